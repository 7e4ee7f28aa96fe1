"""A dialogue: what is remembered, and what happens when it grows too long."""

from __future__ import annotations

from typing import Any

import pytest
import tiny

from ms_medqa.config import UserError
from ms_medqa.config.schema import GenerateSection
from ms_medqa.generation.session import Session

GREEDY = GenerateSection(temperature=0, max_new_tokens=8)
LONG = "旧" * 15


def start(settings: GenerateSection = GREEDY, **options: Any) -> tuple[Session, list[str]]:
    notes: list[str] = []
    return Session(tiny.qa(), settings, note=notes.append, **options), notes


def say(session: Session, question: str) -> str:
    return "".join(session.ask(question))


def texts(session: Session) -> list[tuple[str, str]]:
    return [(turn.question, turn.answer) for turn in session.turns]


def test_the_second_question_is_asked_with_the_first_turn() -> None:
    qa = tiny.qa()
    first = qa.answer("头痛怎么办", settings=GREEDY)
    second = qa.answer("还有呢", history=[("头痛怎么办", first)], settings=GREEDY)
    session, notes = start()
    assert [say(session, "头痛怎么办"), say(session, "还有呢")] == [first, second]
    assert texts(session) == [("头痛怎么办", first), ("还有呢", second)]
    assert notes == []


@pytest.mark.usefixtures("way")
def test_what_was_read_in_earlier_turns_is_not_read_again(read: list[tuple[int, int, int]]) -> None:
    session, _ = start()
    with session:
        say(session, "头痛怎么办")
        first = len(session.turns[0].prepared.prompt)
        read.clear()
        say(session, "还有呢")
        # The answer may be told apart from the next prompt's tokens where the two meet; the rest is there already.
        assert all(begin >= first for _, begin, _ in read)
        assert read[-1][1] + read[-1][2] == len(session.turns[1].prepared.prompt)


def test_a_cut_is_told_again_after_a_reset() -> None:
    session, notes = start(GREEDY.model_copy(update={"truncate_context": True}), context="药" * 400)
    say(session, "头痛怎么办")
    session.reset()
    say(session, "头痛怎么办")
    assert len(notes) == 2
    assert notes[0] == notes[1]
    assert "cut off" in notes[0]


def test_after_a_reset_the_answer_is_that_of_a_new_dialogue() -> None:
    session, _ = start()
    first = say(session, "头痛怎么办")
    session.reset()
    assert say(session, "头痛怎么办") == first
    assert len(session.turns) == 1


def test_the_oldest_turns_make_room_and_that_is_said_once() -> None:
    session, notes = start()
    for _ in range(3):
        say(session, LONG)
    assert notes == []
    say(session, LONG)
    assert notes == ["the oldest turn is left out from here on: the model holds no more"]
    assert session.turns[-1].prepared.prompt == tiny.qa().encode(LONG, history=texts(session)[1:3])
    assert not tiny.qa().fits(LONG, None, texts(session)[:3], None, GREEDY)
    # Beside a short question there is room for one turn more, so again one is left out.
    say(session, "好")
    assert len(notes) == 1
    say(session, "药" * 45)
    assert "oldest turns are left out" in notes[1]
    session.reset()
    say(session, LONG)
    assert len(notes) == 2


def test_turns_go_before_the_context_is_cut_which_is_said_once() -> None:
    context = "多休息。" * 40
    session, notes = start(GREEDY.model_copy(update={"truncate_context": True}), context=context)
    say(session, "头痛怎么办")
    assert len(notes) == 1
    assert notes[0].startswith("of the context only the first ")
    say(session, "头痛怎么办")
    assert session.turns[1].prepared == session.turns[0].prepared
    assert notes[1:] == ["the oldest turn is left out from here on: the model holds no more"]


def test_a_question_too_long_by_itself_is_an_error_and_no_turn() -> None:
    session, notes = start()
    say(session, "头痛怎么办")
    with pytest.raises(UserError, match="256 positions"):
        session.ask("药" * 300)
    with pytest.raises(UserError, match="empty"):
        session.ask(" ")
    assert len(session.turns) == 1
    assert notes == []


def test_a_broken_off_answer_is_no_turn() -> None:
    session, _ = start()
    stream = session.ask("头痛怎么办")
    next(stream)
    stream.close()
    assert session.turns == []
    assert say(session, "头痛怎么办") == tiny.qa().answer("头痛怎么办", settings=GREEDY)


def test_seed_repeats_a_dialogue_but_its_turns_draw_anew() -> None:
    settings = GenerateSection(temperature=5.0, top_p=1.0, top_k=0, max_new_tokens=8, seed=1)
    answers = []
    for _ in range(2):
        session, _ = start(settings)
        first = say(session, "头痛怎么办")
        session.reset()
        answers.append((first, say(session, "头痛怎么办")))
    assert answers[0] == answers[1]
    assert answers[0][0] != answers[0][1]
    assert answers[0][0] == tiny.qa().answer("头痛怎么办", settings=settings)
