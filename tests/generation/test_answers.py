"""Several answers to a question: drawn, or searched with beams; and how settings reach the search."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from ms_medqa import MedicalQA
from ms_medqa.config import UserError
from ms_medqa.generation import answers
from ms_medqa.generation.answer import AnswerStream
from ms_medqa.generation.answers import Tokens
from ms_medqa.generation.batch import answer_file, read_requests
from ms_medqa.generation.beams import BeamParams, Hypothesis
from ms_medqa.generation.params import SamplingParams
from ms_medqa.generation.search import search_many
from ms_medqa.generation.stops import AnswerText

QUESTION = "感冒了怎么办？"
DRAWN = {"temperature": 5.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 8}
BEAMS = {"num_beams": 3, "max_new_tokens": 8, "repetition_penalty": 1.0}


@pytest.fixture(scope="module")
def qa(tmp_path_factory: pytest.TempPathFactory) -> MedicalQA:
    """The model of `tiny` with one adapter beside it."""
    return MedicalQA(
        tiny.model(), adapters={"tuned": tiny.write_adapter(tmp_path_factory.mktemp("answers") / "adapter")}
    )


def test_drawn_answers_differ_and_a_seed_repeats_them_the_first_being_that_of_one_answer() -> None:
    answers = tiny.qa().answers(QUESTION, n=3, seed=5, **DRAWN)
    assert len(set(answers)) == 3
    assert answers == tiny.qa().answers(QUESTION, n=3, seed=5, **DRAWN)
    assert answers[0] == tiny.qa().answer(QUESTION, seed=5, **DRAWN)
    assert answers[:2] == tiny.qa().answers(QUESTION, n=2, seed=5, batch_size=1, **DRAWN)
    assert len(set(tiny.qa().answers(QUESTION, n=3, **DRAWN))) == 3


def test_searched_answers_are_the_likeliest_and_no_draw_is_made() -> None:
    qa = tiny.qa()
    prompt = qa.encode(QUESTION)
    params, beams = SamplingParams(temperature=0, repetition_penalty=1.0), BeamParams(3)
    [expected] = search_many(qa.engine, [prompt], params, beams, 8, qa.end_ids, batch_size=1)
    texts = [qa.tokenizer.decode(answer.tokens) for answer in expected]
    assert qa.answers(QUESTION, n=3, temperature=5.0, **BEAMS) == texts
    assert qa.answer(QUESTION, temperature=5.0, **BEAMS) == texts[0]
    stream = qa.stream(QUESTION, **BEAMS)
    assert "".join(stream) == texts[0]
    assert stream.tokens == len(expected[0].tokens)
    assert stream.tokens_per_second == stream.tokens / stream.seconds


def test_the_time_of_an_end_token_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(clock)))

    def tokens() -> Tokens:
        yield 40, None
        yield 41, None
        next(clock)
        yield None, "stop"

    stream = AnswerStream(tiny.qa().prepare(QUESTION), tokens(), AnswerText(tiny.qa().tokenizer))
    "".join(stream)
    assert (stream.tokens, stream.finish) == (2, "stop")
    assert (stream.first_seconds, stream.seconds, stream.tokens_per_second) == (1.0, 2.0, 1.0)


def test_a_stop_text_that_is_sure_at_the_end_alone_is_no_cut() -> None:
    """The last token might have begun the longer of two stop texts."""
    text = tiny.qa().tokenizer.encode("ab")

    def tokens() -> Tokens:
        yield from ((token, None) for token in text[:-1])
        yield text[-1], "length"

    stream = AnswerStream(tiny.qa().prepare(QUESTION), tokens(), AnswerText(tiny.qa().tokenizer, ["b", "bcd"]))
    assert "".join(stream) == "a"
    assert stream.finish == "stop"


def test_a_stop_text_ends_beams(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tiny.qa().answer(QUESTION, **BEAMS)
    stop = whole[1:3]
    searched: list[Hypothesis] = []

    def noted(*given: Any, **more: Any) -> list[list[Hypothesis]]:
        found = search_many(*given, **more)
        searched.extend(*found)
        return found

    monkeypatch.setattr(answers, "search_many", noted)
    # Short answers are liked best, so that those that were ended stay among the found.
    for answer in tiny.qa().answers(QUESTION, n=3, stop=[stop], length_penalty=-2.0, **BEAMS):
        assert stop not in answer
    decode = tiny.qa().tokenizer.decode
    assert any(stop in decode(one.tokens) for one in searched)
    for one in searched:
        # No beginning is followed beyond its stop text.
        assert stop not in decode(one.tokens[:-1])
        assert (one.finish == "stop") == (stop in decode(one.tokens))


def test_a_search_goes_through_the_adapter_that_is_chosen(qa: MedicalQA) -> None:
    base, tuned = (qa.answers(QUESTION, n=3, adapter=name, **BEAMS) for name in (None, "tuned"))
    assert base == tiny.qa().answers(QUESTION, n=3, **BEAMS)
    assert tuned != base


def test_a_file_gets_all_answers(qa: MedicalQA, tmp_path: Path) -> None:
    records = [{"question": QUESTION}, {"question": "What is fever?", "adapter": "tuned"}, {"question": ""}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    for options in (DRAWN | {"seed": 3}, BEAMS):
        settings = qa.changed(n=2, **options)
        done = itertools.count()
        requests = read_requests(tmp_path / "in.jsonl", qa, settings)
        assert answer_file(qa, requests, tmp_path / "out.jsonl", settings, functools.partial(next, done)) == (2, 1)
        assert next(done) == 2
        first, second, bad = map(json.loads, (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines())
        assert first["answers"] == qa.answers(QUESTION, settings=settings)
        assert second["answers"] == qa.answers("What is fever?", adapter="tuned", settings=settings)
        assert first["answer"] == first["answers"][0]
        assert "answers" not in bad


def test_more_answers_than_beams_are_refused() -> None:
    with pytest.raises(UserError, match="3 beams find at most 3 answers"):
        tiny.qa().answers(QUESTION, n=4, **BEAMS)
