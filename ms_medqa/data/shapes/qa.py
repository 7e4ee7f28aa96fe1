"""A question and its answer, under whatever names; and alpaca's instruction, input, output."""

from __future__ import annotations

from typing import Any

from ms_medqa.data.columns import Row
from ms_medqa.data.example import Example
from ms_medqa.data.shapes.common import extras, is_blank, is_preference, join_title, text_of, value_of
from ms_medqa.data.shapes.dialogue import chosen_answer, inline_turns, pairs_of
from ms_medqa.data.shapes.names import ANSWER, BODY, CHOSEN, LABEL, QUESTION, TITLE


def read_pair(row: Row, common: dict[str, Any]) -> tuple[Example, str] | None:
    """A question with its answer; None where there are no such columns.

    - A title goes before the text of a post (`title` + `ask`, `content`, …) where neither holds the other; an `input`
      follows an `instruction` on a new line.
    - Of two answers, `chosen` and `rejected`, the chosen one is taken, and the other noted.
    - Lists: of several phrasings of a question the first is taken. They are the inner lists of `[[q1, q2], …]`, or a
      flat list. Where there are several questions and as many answers, the first pair is taken. Any other list of
      answers or contexts is one text, each item on a line of its own. What was left out is noted.

    Raises:
        FormatError: a value is no text.
    """
    answer = row.find("answer", (*ANSWER, "final_decision")) or (CHOSEN if is_preference(row) else None)
    question = _question_column(row, answer)
    if answer is None or question is None:
        return None
    title = row.first(TITLE) if question in BODY and not row.named("question") else None
    questions = value_of(row, question)
    if isinstance(questions, list):
        text, reply = _first_of(row, questions, value_of(row, answer), question, answer)
    else:
        text, reply = row.text(question), _reply(row, answer)
    if title is not None:
        text = join_title(row.text(title), text)
    if question == "instruction" and row.has("input") and answer != "input":
        text = f"{text}\n{row.text('input')}".strip()
    example = Example(
        question=text,
        answer=reply,
        history=pairs_of(row, "history"),
        label=row.optional("label", LABEL),
        **extras(row),
        **common,
    )
    return example, f"question and answer ({f'{title} + ' if title else ''}{question}, {answer})"


def read_alpaca(row: Row, common: dict[str, Any]) -> tuple[Example, str]:
    """Instruction and output; an input follows the instruction on a new line.

    Raises:
        FormatError: a value is no text, or turns inside the instruction do not alternate.
    """
    question = row.text("instruction")
    history = pairs_of(row, "history")
    if row.has("input") and (extra := row.text("input")):
        question = f"{question}\n{extra}" if question else extra
    if not history and question.startswith("<user>"):
        *turns, question = inline_turns(question)
        history = tuple(zip(turns[::2], turns[1::2], strict=True))
    example = Example(question=question, answer=row.text("output"), history=history, **extras(row), **common)
    return example, "alpaca (instruction, input, output)"


def _question_column(row: Row, answer: str | None) -> str | None:
    column = row.find("question", QUESTION)
    if column == "question" and not row.named("question") and row.has("question_text"):
        return "question_text"
    if column is not None:
        return column
    # A post's text goes before its title; `input` is a question only where nothing else is.
    return row.first(name for name in (*BODY, *TITLE, "input") if name != answer)


def _reply(row: Row, answer: str) -> str:
    return chosen_answer(row) if answer == CHOSEN and is_preference(row) else text_of(row, answer)


def _first_of(row: Row, questions: list[Any], answers: Any, question: str, answer: str) -> tuple[str, str]:
    """The first question of a list, in its first phrasing, and the answer to it."""
    groups = [item if isinstance(item, list) else [item] for item in questions]
    groups = [[text for text in group if not is_blank(text)] for group in groups]
    groups = [group for group in groups if group] or [[""]]
    if len(groups) > 1 and isinstance(answers, list) and len(answers) == len(groups):
        row.note("first_pair")
        reply = row.to_text(answers[0], row.original(answer))
    else:
        reply = _reply(row, answer)
    if len(groups[0]) > 1 or (len(groups) > 1 and "first_pair" not in row.notes):
        row.note("first_phrasing")
    return row.to_text(groups[0][0], row.original(question)), reply
