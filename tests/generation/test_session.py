"""A dialogue: what is remembered, what the commands do, what happens when it grows too long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import tiny

from ms_medqa.config import UserError
from ms_medqa.config.schema import GenerateSection
from ms_medqa.generation.session import Session, converse

GREEDY = GenerateSection(temperature=0, max_new_tokens=8)


def talk(lines: list[str], session: Session | None = None) -> tuple[str, list[str], Session]:
    session = session or Session(tiny.qa(), GREEDY)
    source = iter(lines)
    written: list[str] = []
    notes: list[str] = []
    converse(session, lambda: next(source, None), written.append, notes.append)
    return "".join(written), notes, session


def test_the_second_question_is_asked_with_the_first_turn() -> None:
    qa = tiny.qa()
    first = qa.answer("头痛怎么办", settings=GREEDY)
    second = qa.answer("还有呢", history=[("头痛怎么办", first)], settings=GREEDY)
    written, notes, session = talk(["头痛怎么办", "", "还有呢 "])
    assert written == f"{first}\n{second}\n"
    assert session.turns == [("头痛怎么办", first), ("还有呢", second)]
    assert notes == []


def test_reset_forgets_and_quit_ends() -> None:
    written, notes, session = talk(["头痛怎么办", "/reset", "头痛怎么办", "/quit", "不再回答"])
    first, second = written.removesuffix("\n").split("\n")[0], session.turns[0][1]
    assert len(session.turns) == 1
    assert written == f"{second}\n{second}\n"
    assert first == second.split("\n")[0]
    assert notes == ["a new dialogue"]


def test_an_unknown_command_is_not_asked() -> None:
    written, notes, _ = talk(["/rest", "/help me"])
    assert written == ""
    assert [note.split(":")[0] for note in notes] == ["unknown command '/rest'", "unknown command '/help'"]


def test_old_turns_make_room_for_new_ones() -> None:
    session = Session(tiny.qa(), GREEDY)
    session.turns = [("旧" * 75, "旧回答"), ("新问题", "新回答")]
    history, dropped = session._fitting("高血压患者可以吃水果吗")
    assert (history, dropped) == ([("新问题", "新回答")], 1)
    _, notes, _ = talk(["高血压患者可以吃水果吗"], session)
    assert "1 oldest turns were left out" in notes[0]


def test_a_question_too_long_by_itself_does_not_end_the_dialogue() -> None:
    written, notes, session = talk(["药" * 300, "头痛怎么办"])
    assert "256 positions" in notes[0]
    assert len(session.turns) == 1
    assert written == session.turns[0][1] + "\n"


def test_an_interrupted_answer_is_forgotten_and_the_dialogue_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(tiny.qa(), GREEDY)
    real = tiny.qa().stream

    def interrupted(question: str, *args: object, **options: object) -> Iterator[str]:
        if question == "停":
            yield "半"
            raise KeyboardInterrupt
        yield from real(question, *args, **options)

    monkeypatch.setattr(tiny.qa(), "stream", interrupted)
    written, notes, _ = talk(["停", "头痛怎么办"], session)
    assert written.startswith("半\n")
    assert [question for question, _ in session.turns] == ["头痛怎么办"]
    assert notes == ["stopped; this turn is forgotten"]


def test_seed_repeats_a_dialogue_but_its_turns_draw_anew() -> None:
    settings = GenerateSection(temperature=5.0, top_p=1.0, top_k=0, max_new_tokens=8, seed=1)
    first, _, _ = talk(["头痛怎么办", "/reset", "头痛怎么办"], Session(tiny.qa(), settings))
    again, _, _ = talk(["头痛怎么办", "/reset", "头痛怎么办"], Session(tiny.qa(), settings))
    once, _, _ = talk(["头痛怎么办"], Session(tiny.qa(), settings))
    assert first == again
    assert first.startswith(once)
    assert first != once + once


def test_an_empty_question_is_an_error() -> None:
    with pytest.raises(UserError, match="empty"):
        list(Session(tiny.qa(), GREEDY).ask(" "))
