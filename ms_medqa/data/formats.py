"""Tell by its columns what a raw record is, and make an Example or a PlainText of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ms_medqa.config.schema import Columns
from ms_medqa.data.columns import FormatError, Row, UnknownColumnsError, kind_of, list_names, to_text
from ms_medqa.data.example import Example, PlainText, Record

QUESTION = ("question", "query", "prompt", "问题")
ANSWER = ("answer", "response", "output", "completion", "long_answer", "答案", "回答")
CONTEXT = ("context", "contexts", "knowledge", "上下文", "知识")
_DIALOGUE = ("conversations", "conversation", "messages")
_LABEL = ("label", "answer_idx", "final_decision")
_ROLES = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "system": "system",
}
_PARTS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
_INLINE_TURN = re.compile(r"<(user|bot)>\s*[:：]")
KNOWN_FORMATS = (
    "question + answer (+ context), instruction + output (+ input, history), conversations, messages, text; "
    "or name the columns: data.columns.question=NAME data.columns.answer=NAME"
)


def parse_record(value: Any, columns: Columns, *, name: str, source: str) -> tuple[Record, str]:
    """The record behind a raw value, and its format in words.

    Args:
        value: column → value.
        columns: the user's column names; an empty one is found by itself.
        name: id for a record that brings none.
        source: name of the file.

    Raises:
        FormatError: the value fits no format, or not its own.
    """
    if not isinstance(value, Mapping):
        raise FormatError(f"a record must be an object, not {kind_of(value)}")
    row = Row(value, columns)
    common = {"id": row.optional("id", ("id",)) or name, "source": source, "split": _part(row)}
    named = columns.question is not None or columns.answer is not None
    if not named and (dialogue := row.first(_DIALOGUE)) is not None:
        return _dialogue(row, dialogue, common)
    if not named and row.has("instruction") and row.has("output"):
        return _alpaca(row, common)
    question, answer = row.find("question", QUESTION), row.find("answer", ANSWER)
    if question is not None and answer is not None:
        return _triple(row, question, answer, common)
    if not named and row.has("text"):
        return PlainText(text=row.text("text"), **common), "plain text (text)"
    raise UnknownColumnsError(f"unknown columns: {list_names(value)}")


def _triple(row: Row, question: str, answer: str, common: dict[str, Any]) -> tuple[Record, str]:
    column = row.first(("options", "choices"))
    options = row.raw(column) if column else None
    if isinstance(options, Mapping):
        options = list(options.values())
    choices = tuple(to_text(option, "options") for option in options) if isinstance(options, list) else None
    example = Example(
        question=row.text(question),
        answer=row.text(answer),
        context=row.optional("context", CONTEXT),
        system=row.optional("system", ("system",)),
        history=_pairs(row.raw("history")) if row.has("history") else (),
        choices=choices or None,
        label=row.optional("label", _LABEL),
        key=row.optional("key", ("key",)),
        **common,
    )
    return example, f"question and answer ({question}, {answer})"


def _alpaca(row: Row, common: dict[str, Any]) -> tuple[Record, str]:
    question = row.text("instruction")
    history = _pairs(row.raw("history")) if row.has("history") else ()
    if row.has("input") and (extra := row.text("input")):
        question = f"{question}\n{extra}" if question else extra
    if not history and question.startswith("<user>"):
        *turns, question = _inline_turns(question)
        history = tuple(zip(turns[::2], turns[1::2], strict=True))
    example = Example(
        question=question,
        answer=row.text("output"),
        context=row.optional("context", CONTEXT),
        system=row.optional("system", ("system",)),
        history=history,
        key=row.optional("key", ("key",)),
        **common,
    )
    return example, "alpaca (instruction, input, output)"


def _dialogue(row: Row, column: str, common: dict[str, Any]) -> tuple[Record, str]:
    turns = row.raw(column)
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise FormatError(f"column {column!r} must be a list of turns")
    messages = [_message(turn) for turn in turns]
    system = row.optional("system", ("system",))
    if messages and messages[0][0] == "system":
        system = messages.pop(0)[1] or system
    roles = [role for role, _ in messages]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise FormatError(f"a dialogue must be user and assistant in turn, this one is: {', '.join(roles) or 'empty'}")
    texts = [text for _, text in messages]
    example = Example(
        question=texts[-2],
        answer=texts[-1],
        context=row.optional("context", CONTEXT),
        system=system,
        history=tuple(zip(texts[:-2:2], texts[1:-2:2], strict=True)),
        key=row.optional("key", ("key",)),
        **common,
    )
    return example, f"dialogue ({column})"


def _message(turn: Mapping[str, Any]) -> tuple[str, str]:
    role = turn.get("role", turn.get("from"))
    if not isinstance(role, str) or role not in _ROLES:
        raise FormatError(f"a turn of role {str(role)[:20]!r}; known are {', '.join(_ROLES)}")
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list) and all(map(_is_text_part, content)):
        content = "".join(part["text"] for part in content)
    return _ROLES[role], to_text(content, "content")


def _is_text_part(part: Any) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _pairs(history: Any) -> tuple[tuple[str, str], ...]:
    # The last is how an empty list stands in a CSV file.
    if history in (None, "", [], "[]"):
        return ()
    if not isinstance(history, list) or not all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in history):
        raise FormatError("column 'history' must be a list of [question, answer] pairs")
    return tuple((to_text(question, "history"), to_text(answer, "history")) for question, answer in history)


def _inline_turns(text: str) -> list[str]:
    """The turns of `<user>: … <bot>: … <user>: …`, ending with the user's."""
    _, *parts = _INLINE_TURN.split(text)
    speakers, turns = parts[::2], [turn.strip() for turn in parts[1::2]]
    if speakers != ["user", "bot"] * (len(speakers) // 2) + ["user"]:
        raise FormatError("the turns <user>: and <bot>: do not alternate")
    return turns


def _part(row: Row) -> str | None:
    text = row.optional("split", ("split",))
    if text is not None and text.lower() not in _PARTS:
        raise FormatError(f"split {text[:20]!r}; known are train, val and test")
    return _PARTS[text.lower()] if text else None
