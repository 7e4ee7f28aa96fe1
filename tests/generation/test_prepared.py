"""A context that is too long: what is kept of it, and that it is said."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import tiny

from ms_medqa.config import UserError
from ms_medqa.config.schema import GenerateSection
from ms_medqa.generation.prepared import longest_start

CONTEXT = "高血压患者应低盐饮食。" * 40
GREEDY = GenerateSection(temperature=0, max_new_tokens=8)
CUTTING = GREEDY.model_copy(update={"truncate_context": True})


@pytest.mark.parametrize("size", [0, 1, 2, 63, 64, 65, 127, 128, 500, 999])
def test_the_longest_start_that_fits_is_found(size: int) -> None:
    text = "药" * 1000
    tried: list[int] = []

    def fits(start: str) -> bool:
        tried.append(len(start))
        return len(start) <= size

    assert longest_start(text, fits) == text[:size]
    assert max(tried) <= max(64, 4 * size)
    assert len(tried) < 30


def test_no_mark_is_parted_from_its_letter_and_no_joined_emoji_torn() -> None:
    family = "👨\u200d👩\u200d👧"
    assert longest_start("ae\u0301b", lambda start: len(start) <= 2) == "a"
    for size in range(1, 1 + len(family)):
        assert longest_start(f"a{family}b", lambda start, size=size: len(start) <= size) == "a"
    assert longest_start(f"a{family}bc", lambda start: len(start) <= 1 + len(family)) == f"a{family}"


def test_too_long_a_context_is_an_error_that_says_what_helps() -> None:
    with pytest.raises(UserError, match=r"256 positions.*truncate_context"):
        tiny.qa().answer("能吃咸菜吗", CONTEXT, settings=GREEDY)


def test_as_much_of_the_context_is_kept_as_the_model_holds() -> None:
    qa = tiny.qa()
    prepared = qa.prepare("能吃咸菜吗", CONTEXT, settings=CUTTING)
    assert 256 - 8 - 4 < len(prepared.prompt) <= 256 - 8
    text = qa.tokenizer.decode(prepared.prompt)
    kept = text.partition("知识:")[2].partition("\n问题:能吃咸菜吗\n回答:")[0]
    assert CONTEXT.startswith(kept)
    assert prepared.prompt == qa.encode("能吃咸菜吗", kept)
    assert prepared.cut is not None
    assert (prepared.cut.kept, prepared.cut.total) == (
        len(qa.tokenizer.encode(kept)),
        len(qa.tokenizer.encode(CONTEXT)),
    )


def test_the_cut_is_a_warning_alone_streamed_and_in_a_batch() -> None:
    qa = tiny.qa()
    cut = qa.prepare("能吃咸菜吗", CONTEXT, settings=CUTTING).cut
    said = f"of the context only the first {cut.kept} of {cut.total} tokens fit"
    with pytest.warns(UserWarning, match=said):
        answer = qa.answer("能吃咸菜吗", CONTEXT, settings=GREEDY, truncate_context=True)
    with pytest.warns(UserWarning, match=f"question 2: {said}"):
        batch = qa.answer_batch(["头痛怎么办", "能吃咸菜吗"], [None, CONTEXT], settings=CUTTING)
    assert batch[1] == answer


def test_each_cut_is_told_where_python_shows_a_warning_once_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    program = (
        "import tiny, warnings\n"
        "warnings.simplefilter('ignore', DeprecationWarning)\n"
        f"for _ in range(2): tiny.qa().answer('能吃咸菜吗', {CONTEXT!r}, temperature=0, max_new_tokens=2, "
        "truncate_context=True)\n"
    )
    tests = Path(tiny.__file__).parent
    paths = os.pathsep.join([str(tests), str(tests.parent)])
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": paths}, check=True)
    told = [line for line in capfd.readouterr().err.splitlines() if "ContextCutWarning" in line]
    assert len(told) == 2
    # Of the caller's line, not of the library's.
    assert all(line.startswith("<string>:3") for line in told)


def test_a_context_that_fits_is_left_alone_without_a_word() -> None:
    qa = tiny.qa()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert qa.answer("头痛", "多休息", settings=CUTTING) == qa.answer("头痛", "多休息", settings=GREEDY)
    assert qa.prepare("头痛", "多休息", settings=CUTTING).cut is None


def test_where_only_the_question_fits_it_is_asked_without_context_and_a_longer_one_is_refused() -> None:
    qa = tiny.qa()
    longest = next(n for n in range(300, 0, -1) if qa.fits("x" * n, None, (), None, CUTTING))
    prepared = qa.prepare("x" * longest, CONTEXT, settings=CUTTING)
    assert prepared.prompt == qa.encode("x" * longest)
    assert prepared.cut is not None
    assert prepared.cut.kept == 0
    with pytest.raises(UserError, match="256 positions") as error:
        qa.prepare("x" * (longest + 20), CONTEXT, settings=CUTTING)
    assert "truncate" not in str(error.value)
