"""A file of questions: order, bad records, seeds, nothing half written."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from full_disk import no_room

from ms_medqa.config import RunError, UserError
from ms_medqa.config.schema import GenerateSection
from ms_medqa.generation import MedicalQA
from ms_medqa.generation.batch import Request, answer_file, read_requests
from ms_medqa.generation.beams import Beams
from ms_medqa.generation.kept import KeptAnswers
from ms_medqa.generation.prepared import Prepared
from ms_medqa.generation.sampling import TokenSampler
from ms_medqa.generation.weights import digest
from ms_medqa.models import load_model
from ms_medqa.models.loading import assign

GREEDY = GenerateSection(temperature=0, max_new_tokens=8, batch_size=4)

LINES = [
    b'\xef\xbb\xbf{"id": "a", "question": "\xe5\xa4\xb4\xe7\x97\x9b\xe6\x80\x8e\xe4\xb9\x88\xe5\x8a\x9e"}',
    '"发热怎么办"'.encode(),
    b"",
    b'{"id": 7, "question": "broken',
    b'{"id": "no-question", "text": "x"}',
    b'{"id": "empty", "question": "  "}',
    b'{"id": "number", "question": 5}',
    b'{"question": "ok?", "context": ["list"]}',
    '"发热怎么办"'.encode("gb18030"),
    b"[1, 2]",
    json.dumps({"id": "long", "question": "药" * 300}).encode(),
    json.dumps({"id": "b", "question": "阿托品", "context": "有机磷中毒用阿托品解毒", "other": 1}).encode(),
]


def run(tmp_path: Path, lines: list[bytes], settings: GenerateSection = GREEDY) -> list[dict]:
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    requests = read_requests(tmp_path / "in.jsonl", tiny.qa(), settings)
    answer_file(tiny.qa(), requests, tmp_path / "out.jsonl", settings)
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_record_has_one_line_in_order(tmp_path: Path) -> None:
    out = run(tmp_path, LINES)
    assert [line["id"] for line in out] == ["a", 2, 4, "no-question", "empty", "number", 8, 9, 10, "long", "b"]
    good = [line for line in out if "answer" in line]
    assert [line["id"] for line in good] == ["a", 2, "b"]
    assert [set(line) for line in good] == [{"id", "question", "answer"}] * 3
    assert [set(line) for line in out if "answer" not in line] == [{"id", "error"}] * 8
    errors = {str(line["id"]): line["error"] for line in out if "error" in line}
    for name, words in {
        "4": "line 4: not valid JSON",
        "no-question": "no key 'question'",
        "empty": "empty",
        "number": "'question' must be a string",
        "8": "'context' must be a string",
        "9": "not UTF-8",
        "10": "must be a JSON object or a string",
        "long": "256 positions",
    }.items():
        assert words in errors[name]


def test_the_answers_are_those_of_single_questions(tmp_path: Path) -> None:
    good = {line["id"]: line["answer"] for line in run(tmp_path, LINES) if "answer" in line}
    options = {"settings": GREEDY}
    assert good["a"] == tiny.qa().answer("头痛怎么办", **options)
    assert good["b"] == tiny.qa().answer("阿托品", "有机磷中毒用阿托品解毒", **options)


def test_a_seed_gives_a_record_the_answer_that_it_gets_alone(tmp_path: Path) -> None:
    options = {"temperature": 4.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 8, "seed": 3}
    qa = tiny.qa()
    alone = [qa.answer("头痛怎么办", **options), qa.answer("阿托品", "有机磷中毒用阿托品解毒", **options)]
    out = run(tmp_path, LINES, GenerateSection(batch_size=4, **options))
    assert [line["answer"] for line in out if line["id"] in ("a", "b")] == alone
    assert qa.answer_batch(["头痛怎么办", "阿托品"], [None, "有机磷中毒用阿托品解毒"], **options) == alone


def test_without_a_seed_equal_questions_get_draws_of_their_own(tmp_path: Path) -> None:
    settings = GenerateSection(temperature=5.0, top_p=1.0, top_k=0, max_new_tokens=8, batch_size=4)
    out = run(tmp_path, ['"头痛怎么办"'.encode()] * 4, settings)
    assert len({line["answer"] for line in out}) == 4


def test_ids_and_keys_that_are_no_text_do_not_cost_the_other_answers(tmp_path: Path) -> None:
    lines = [
        b'{"id": "\\ud83d", "question": "ok?"}',
        b'{"\\ud83d": 1}',
        b'{"question": "\\ud83d"}',
        b'{"id": NaN, "question": "ok?"}',
        b"9" * 5000,
        b"[" * 100_000,
    ]
    out = run(tmp_path, lines)
    assert [line["id"] for line in out] == ["\ud83d", 2, 3, 4, 5, 6]
    assert [set(line) - {"id"} for line in out] == [
        {"question", "answer"},
        {"error"},
        {"error"},
        {"question", "answer"},
        {"error"},
        {"error"},
    ]
    assert "a number is too long" in out[4]["error"]
    assert "nested too deeply" in out[5]["error"]


def test_a_place_where_no_file_can_be_is_refused_before_any_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: object, **__: object) -> None:
        pytest.fail("answered in vain")

    monkeypatch.setattr(tiny.qa(), "answer_prepared", unwanted)
    requests = [Request(id=1, question="头痛", prepared=tiny.qa().prepare("头痛"))]
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(UserError, match="not a regular file"):
            answer_file(tiny.qa(), requests, tmp_path / name, GREEDY)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        answer_file(tiny.qa(), requests, tmp_path / "file" / "out.jsonl", GREEDY)
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_stays_a_link_to_the_file_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "answers.jsonl").write_text("old", encoding="utf-8")
    (tmp_path / "out.jsonl").symlink_to(tmp_path / "far" / "answers.jsonl")
    out = run(tmp_path, LINES[:2])
    assert (tmp_path / "out.jsonl").is_symlink()
    assert [line["id"] for line in out] == ["a", 2]
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["answers.jsonl"]


def test_mending_one_record_does_not_move_the_draws_of_the_others(tmp_path: Path) -> None:
    settings = GenerateSection(temperature=4.0, top_p=1.0, top_k=0, max_new_tokens=8, batch_size=4, seed=3)
    mended = [*LINES]
    mended[5] = json.dumps({"id": "empty", "question": "咳嗽"}).encode()
    before, after = run(tmp_path, LINES, settings), run(tmp_path, mended, settings)
    assert [a for a in after if a["id"] == "b"] == [b for b in before if b["id"] == "b"]
    alone = run(tmp_path, LINES, settings.model_copy(update={"batch_size": 1}))
    assert alone == before


def test_a_file_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no question"):
        run(tmp_path, [b"", b"  "])
    with pytest.raises(UserError, match="no such file"):
        read_requests(tmp_path / "absent.jsonl", tiny.qa(), GREEDY)


QUESTIONS = ["头痛", "发热怎么办", "咳嗽", "阿托品", "发热怎么办"]
DRAWN = GenerateSection(temperature=4.0, top_p=1.0, top_k=0, max_new_tokens=8, batch_size=2, seed=3)


def questions(qa: MedicalQA | None = None) -> list[Request]:
    qa = qa or tiny.qa()
    made = [Request(number, text, qa.prepare(text)) for number, text in enumerate(QUESTIONS)]
    return [*made, Request(9, error="line 9: bad")]


def stop_after(answers: int) -> Callable[[], None]:
    """Ctrl-C, so many answers later."""
    count = itertools.count(1)

    def stop() -> None:
        if next(count) == answers:
            raise KeyboardInterrupt

    return stop


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many questions go to the model, each time that some do."""
    counts: list[int] = []
    real = tiny.qa().answer_prepared

    def counted(prepared: Sequence[Prepared], *others: Any, **more: Any) -> list[list[str]]:
        counts.append(len(prepared))
        return real(prepared, *others, **more)

    monkeypatch.setattr(tiny.qa(), "answer_prepared", counted)
    return counts


def test_an_interruption_leaves_the_old_file_as_it_was_and_keeps_what_is_answered(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("old", encoding="utf-8")
    notes: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        answer_file(tiny.qa(), questions(), output, GREEDY, stop_after(1), notes.append)
    assert output.read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "out.jsonl.part"]
    assert notes == [f"{output}.part keeps what has been answered (1 of 5): the same command goes on"]


@pytest.mark.parametrize("settings", [GREEDY, DRAWN], ids=["greedy", "drawn with a seed"])
def test_a_run_goes_on_where_another_was_stopped(tmp_path: Path, settings: GenerateSection, asked: list[int]) -> None:
    whole, output, notes = tmp_path / "whole.jsonl", tmp_path / "out.jsonl", []
    answer_file(tiny.qa(), questions(), whole, settings)
    # The second run is told of two at its start, and stops after one more.
    for answers in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            answer_file(tiny.qa(), questions(), output, settings, stop_after(answers))
    done: list[int] = []
    assert answer_file(tiny.qa(), questions(), output, settings, lambda: done.append(1), notes.append) == (5, 1)
    assert output.read_bytes() == whole.read_bytes()
    assert asked == [5, 5, 3, 2]
    assert len(done) == 5
    assert notes == [f"{output}.part holds what an earlier run has answered (3 of 5): going on from there"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "whole.jsonl"]


def test_answers_to_questions_that_were_mended_meanwhile_do_not_keep_the_others_from_being_taken(
    tmp_path: Path, asked: list[int]
) -> None:
    output, notes = tmp_path / "out.jsonl", list[str]()
    with pytest.raises(KeyboardInterrupt):
        answer_file(tiny.qa(), questions(), output, GREEDY, stop_after(4))
    mended = [Request(0, "便秘", tiny.qa().prepare("便秘")), *questions()[1:]]
    answer_file(tiny.qa(), mended, output, GREEDY, note=notes.append)
    taken = 5 - asked[1]
    assert taken in (3, 4)
    fresh = tmp_path / "fresh.jsonl"
    answer_file(tiny.qa(), mended, fresh, GREEDY)
    assert output.read_bytes() == fresh.read_bytes()
    assert notes == [f"{output}.part holds what an earlier run has answered ({taken} of 5): going on from there"]
    assert len(output.read_text(encoding="utf-8").splitlines()) == 6


def test_ctrl_c_ends_the_reading_of_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in.jsonl").write_text('"头痛"\n' * 5, encoding="utf-8")
    read = itertools.count(1)

    def check() -> None:
        if next(read) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("ms_medqa.generation.batch.check_interrupt", check)
    with pytest.raises(KeyboardInterrupt):
        read_requests(tmp_path / "in.jsonl", tiny.qa(), GREEDY)
    assert next(read) == 4


def test_what_a_killed_run_has_left_half_written_is_answered_again(tmp_path: Path, asked: list[int]) -> None:
    whole, output = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    answer_file(tiny.qa(), questions(), whole, GREEDY)
    with pytest.raises(KeyboardInterrupt):
        answer_file(tiny.qa(), questions(), output, GREEDY, stop_after(3))
    part = tmp_path / "out.jsonl.part"
    kept = part.read_bytes()
    for size in (len(kept) - 1, kept.index(b"\n") + 2, kept.index(b"\n") + 1, kept.index(b"\n"), 1, 0):
        part.write_bytes(kept[:size])
        answer_file(tiny.qa(), questions(), output, GREEDY)
        assert output.read_bytes() == whole.read_bytes()
        assert not part.exists()
    assert asked == [5, 5, 3, 5, 5, 5, 5, 5]


def test_answers_of_other_settings_another_model_or_another_file_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, part = tmp_path / "out.jsonl", tmp_path / "out.jsonl.part"
    with pytest.raises(KeyboardInterrupt):
        answer_file(tiny.qa(), questions(), output, GREEDY, stop_after(1))
    kept = part.read_bytes()
    other = MedicalQA(tiny.model(), adapters={"tuned": tiny.write_adapter(tmp_path / "adapter")})
    for qa, settings in ((tiny.qa(), DRAWN), (other, GREEDY)):
        with pytest.raises(UserError, match=r"out\.jsonl\.part holds answers of another model"):
            answer_file(qa, questions(qa), output, settings)
    # The same questions, of which another token ends the answers, and other questions.
    variant = dataclasses.replace(questions()[0].prepared.variant, end_ids=frozenset({7}))
    ended = [Request(0, "头痛", dataclasses.replace(tiny.qa().prepare("头痛"), variant=variant))]
    for requests in (ended, [Request(0, "便秘", tiny.qa().prepare("便秘"))]):
        with pytest.raises(UserError, match="to other questions"):
            answer_file(tiny.qa(), requests, output, GREEDY)
    monkeypatch.setattr(tiny.qa().model, "config", dataclasses.replace(tiny.model().config, rope_theta=5e5))
    with pytest.raises(UserError, match=r"out\.jsonl\.part holds answers of another model"):
        answer_file(tiny.qa(), questions(), output, GREEDY)
    monkeypatch.undo()
    # How many are answered at a time changes none of them.
    with pytest.raises(KeyboardInterrupt):
        answer_file(tiny.qa(), questions(), output, GREEDY.model_copy(update={"batch_size": 1}), stop_after(1))
    assert part.read_bytes() == kept
    part.write_text("a list of spare parts\n", encoding="utf-8")
    with pytest.raises(UserError, match="something else"):
        answer_file(tiny.qa(), questions(), output, GREEDY)
    assert part.read_text(encoding="utf-8") == "a list of spare parts\n"
    assert not output.exists()


def test_answers_of_another_compute_type_are_not_taken() -> None:
    """Even where both hold the same numbers."""
    half, single = (load_model(tiny.folder(), dtype=dtype) for dtype in ("float16", "float32"))
    for parameter in single.get_parameters():
        assign(parameter, parameter.asnumpy().astype(np.float16))
    assert digest(single, None) != digest(half, None)
    assert digest(single, None) == digest(single, None)


def test_a_file_that_another_run_has_just_removed_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    removed: list[int] = []

    def lock(file: Any, how: int) -> None:
        if not removed:
            (tmp_path / "out.jsonl.part").unlink()
            removed.append(how)

    monkeypatch.setattr("fcntl.flock", lock)
    one = tiny.qa().prepare("头痛")
    with KeptAnswers(tmp_path / "out.jsonl", {"of": "a run"}) as kept:
        kept.add(one, ["多休息"])
    assert removed
    with KeptAnswers(tmp_path / "out.jsonl", {"of": "a run"}) as kept:
        assert kept.take(one) == ["多休息"]


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"

    def second() -> None:
        with pytest.raises(UserError, match="another run is writing there"):
            answer_file(tiny.qa(), questions(), output, GREEDY)

    answer_file(tiny.qa(), questions()[:1], output, GREEDY, second)
    assert len(output.read_text(encoding="utf-8").splitlines()) == 1


def test_a_full_disk_costs_no_answer_that_was_kept(tmp_path: Path, asked: list[int]) -> None:
    output, full = tmp_path / "out.jsonl", ExitStack()
    count = itertools.count(1)

    def fill() -> None:
        if next(count) == 2:
            full.enter_context(no_room(tmp_path))

    with pytest.raises(RunError, match=r"no space left writing .*out\.jsonl\.part"):
        answer_file(tiny.qa(), questions(), output, GREEDY, fill, lambda kept: full.close())
    assert not output.exists()
    assert answer_file(tiny.qa(), questions(), output, GREEDY) == (5, 1)
    assert asked == [5, 3]


@pytest.mark.parametrize("settings", [GREEDY, GREEDY.model_copy(update={"num_beams": 2})], ids=["greedy", "beams"])
@pytest.mark.parametrize("token", [0, 2])
def test_a_record_at_which_the_model_fails_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: GenerateSection, token: int
) -> None:
    """At its first token, or later."""
    answer_file(tiny.qa(), questions(), tmp_path / "whole.jsonl", settings)
    bad = questions()[2].prepared.prompt
    for kind in (TokenSampler, Beams):
        init, choose = kind.__init__, kind.choose

        def remember(self: Any, *given: Any, init: Any = init, **more: Any) -> None:
            init(self, *given, **more)
            self.left = token if any(isinstance(one, list) and one == bad for one in given) else None

        def fail(self: Any, logits: np.ndarray, *others: Any, choose: Any = choose) -> Any:
            if self.left == 0:
                logits = np.full_like(logits, np.nan)
            elif self.left is not None:
                self.left -= 1
            return choose(self, logits, *others)

        monkeypatch.setattr(kind, "__init__", remember)
        monkeypatch.setattr(kind, "choose", fail)
    assert answer_file(tiny.qa(), questions(), tmp_path / "out.jsonl", settings) == (4, 2)
    whole, out = (
        [json.loads(line) for line in (tmp_path / name).read_text(encoding="utf-8").splitlines()]
        for name in ("whole.jsonl", "out.jsonl")
    )
    assert "not finite" in out[2]["error"]
    assert [*out[:2], *out[3:]] == [*whole[:2], *whole[3:]]
