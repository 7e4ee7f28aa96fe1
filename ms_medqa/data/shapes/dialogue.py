"""A dialogue of several turns, in the layouts of ShareGPT, OpenAI and of spoken lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ms_medqa.data.columns import FormatError, Row, from_json_cell
from ms_medqa.data.example import Example
from ms_medqa.data.shapes.common import extras, is_blank, is_preference, leave_out_pictures, refuse_undesirable
from ms_medqa.data.shapes.content import text_of_content
from ms_medqa.data.shapes.names import ANSWER, CHOSEN, DESIRABLE_DIALOGUE, DIALOGUE

Turn = tuple[str, str]
_USER = ("user", "human", "patient", "client", "病人", "患者", "用户", "问", "提问者")
_ASSISTANT = ("assistant", "gpt", "bot", "model", "chatgpt", "ai", "doctor", "医生", "助手", "答")
_ROLES = dict.fromkeys(_USER, "user") | dict.fromkeys(_ASSISTANT, "assistant") | {"system": "system"}
_SPEAKER = re.compile(rf"\s*({'|'.join((*_USER, *_ASSISTANT))})\s*[:：]\s*", re.IGNORECASE)
_INLINE_TURN = re.compile(r"<(user|bot)>\s*[:：]")
_TEXT_KEYS = ("content", "value", "text", "utterance", "sentence")
_ROLE_KEYS = ("role", "from", "speaker")
_TOOL_KEYS = ("tool_calls", "function_call")
# One object for a whole round: Firefly's and MOSS's names, XTuner's.
_ROUNDS = (("human", "assistant"), ("user", "assistant"), ("input", "output"), ("question", "answer"))


def dialogue_column(row: Row) -> str | None:
    """The column of a dialogue; HuatuoGPT's `data` only where it holds spoken lines.

    Preference data may hold it in `prompt`, without the answer, or in `chosen`, with it.
    """
    column = row.find("turns", DIALOGUE)
    if column is None and row.has("data"):
        lines = row.raw("data")
        if isinstance(lines, list) and lines and all(isinstance(line, str) and _SPEAKER.match(line) for line in lines):
            return "data"
    if column is None and is_preference(row) and row.first(ANSWER) is None:
        return next((name for name in ("prompt", CHOSEN) if row.has(name) and _asks(row.raw(name))), None)
    return column


def is_bare_dialogue(value: Any) -> bool:
    """True for a list of turns that name their speaker, outside any object."""
    if not isinstance(value, list) or not value:
        return False
    if all(isinstance(turn, str) for turn in value):
        return any(map(_SPEAKER.match, value))
    return all(isinstance(turn, Mapping) and _role_of(turn) is not None for turn in value)


def read_dialogue(row: Row, column: str, common: dict[str, Any]) -> tuple[Example, str]:
    """A dialogue; its last answered question is the example's, the earlier ones are its history.

    The rule, in this order: a turn of a tool or of an unknown speaker, and a system turn after the first other one,
    make the record broken; turns without text are left out; the text of system turns replaces the record's own system
    text; assistant turns before the first user turn are left out; consecutive turns of one speaker are joined by a
    line break; a last user turn without answer is left out. What was left out is noted.

    Where `chosen` and `rejected` stand beside a dialogue that ends with a user turn, the chosen one is its answer.

    Raises:
        FormatError: broken as said, no user turn is followed by an assistant turn, or the answer is undesirable.
    """
    refuse_undesirable(row, DESIRABLE_DIALOGUE)
    leave_out_pictures(row)
    turns = list(_turns(row, from_json_cell(row.raw(column)), row.original(column)))
    if column == CHOSEN:
        row.note("rejected_left_out")
    elif is_preference(row) and turns and turns[-1][0] == "user":
        turns.append(("assistant", chosen_answer(row)))
    fields = extras(row)
    system, pairs = _settle(row, turns)
    if not pairs:
        said = ", ".join(role if text else f"{role} (empty)" for role, text in turns) or "empty"
        raise FormatError(f"a dialogue needs a user turn and an assistant turn after it, this one is: {said[:100]}")
    fields["system"] = system or fields["system"]
    *history, (question, answer) = pairs
    return Example(question=question, answer=answer, history=tuple(history), **fields, **common), f"dialogue ({column})"


def chosen_answer(row: Row) -> str:
    """The better answer of a preference pair: a text, a turn, or the last assistant turn of a list; the other is noted.

    Raises:
        FormatError: none of these.
    """
    row.note("rejected_left_out")
    value = from_json_cell(row.raw(CHOSEN))
    if isinstance(value, list) and value and all(isinstance(turn, Mapping) for turn in value):
        said = [text for role, text in _turns(row, value, CHOSEN) if role == "assistant"]
        if not said:
            raise FormatError(f"column {CHOSEN!r} holds no assistant turn")
        return said[-1]
    if isinstance(value, Mapping) and any(key in value for key in _TEXT_KEYS):
        return _said(row, value)
    return row.text(CHOSEN)


def pairs_of(row: Row, column: str) -> tuple[tuple[str, str], ...]:
    """The earlier rounds that a record has beside its question: `[question, answer]` pairs, or a list of turns.

    Raises:
        FormatError: neither.
    """
    # In a CSV file a list stands as JSON text.
    history = from_json_cell(row.raw(column)) if row.has(column) else None
    if is_blank(history):
        return ()
    if isinstance(history, list) and all(isinstance(turn, list | tuple) and len(turn) == 2 for turn in history):
        pairs = [(row.to_text(question, "history"), row.to_text(answer, "history")) for question, answer in history]
        return tuple(pair for pair in pairs if any(pair))
    if isinstance(history, list) and all(isinstance(turn, Mapping) for turn in history):
        return tuple(_settle(row, list(_turns(row, history, column)))[1])
    raise FormatError("column 'history' must be a list of [question, answer] pairs")


def inline_turns(text: str) -> list[str]:
    """The turns of `<user>: … <bot>: … <user>: …`, ending with the user's.

    Raises:
        FormatError: they do not alternate.
    """
    _, *parts = _INLINE_TURN.split(text)
    speakers, turns = parts[::2], [turn.strip() for turn in parts[1::2]]
    if speakers != ["user", "bot"] * (len(speakers) // 2) + ["user"]:
        raise FormatError("the turns <user>: and <bot>: do not alternate")
    return turns


def _settle(row: Row, turns: Sequence[Turn]) -> tuple[str, list[tuple[str, str]]]:
    """The system text and the (question, answer) pairs, by the rule of `read_dialogue`."""
    spoken = [turn for turn in turns if turn[1]]
    if len(spoken) < len(turns):
        row.note("empty_turn")
    start = next((i for i, (role, _) in enumerate(spoken) if role != "system"), len(spoken))
    system = "\n".join(text for _, text in spoken[:start])
    joined: list[Turn] = []
    for role, text in spoken[start:]:
        if role == "system":
            raise FormatError("a system turn in the middle of a dialogue")
        if not joined and role == "assistant":
            row.note("leading_assistant_turn")
        elif joined and joined[-1][0] == role:
            joined[-1] = (role, f"{joined[-1][1]}\n{text}")
            row.note("joined_turns")
        else:
            joined.append((role, text))
    if len(joined) % 2:
        joined.pop()
        row.note("trailing_user_turn")
    texts = [text for _, text in joined]
    return system, list(zip(texts[::2], texts[1::2], strict=True))


def _turns(row: Row, value: Any, column: str) -> Iterator[Turn]:
    if isinstance(value, str):
        value = _spoken_lines(value)
    if isinstance(value, list) and value and all(isinstance(turn, str) for turn in value):
        yield from _strings(row, value, column)
        return
    if not isinstance(value, list) or not all(isinstance(turn, Mapping) for turn in value):
        raise FormatError(f"column {column!r} must be a list of turns")
    for turn in value:
        yield from _round(row, turn) or [_message(row, turn)]


def _spoken_lines(text: str) -> list[str] | None:
    """The turns of a text whose lines begin with their speaker; a line without one goes on the turn before it."""
    turns: list[str] = []
    for line in text.splitlines():
        if _SPEAKER.match(line):
            turns.append(line)
        elif turns:
            turns[-1] += f"\n{line}"
        elif line.strip():
            return None
    return turns


def _strings(row: Row, turns: Sequence[str], column: str) -> Iterator[Turn]:
    """Turns that begin with their speaker (`病人：…`); where none does, user and assistant take turns."""
    speakers = [_SPEAKER.match(turn) for turn in turns]
    if any(speakers) and not all(speakers):
        raise FormatError(f"column {column!r}: some of the turns name their speaker, others do not")
    for number, (turn, speaker) in enumerate(zip(turns, speakers, strict=True)):
        role = _ROLES[speaker[1].lower()] if speaker else ("user", "assistant")[number % 2]
        yield role, row.to_text(turn[speaker.end() :] if speaker else turn, column)


def _round(row: Row, turn: Mapping[str, Any]) -> list[Turn]:
    for user, assistant in _ROUNDS:
        if user in turn and assistant in turn:
            system = [("system", row.to_text(turn["system"], "system"))] if turn.get("system") else []
            return [
                *system,
                ("user", row.to_text(turn[user], user)),
                ("assistant", row.to_text(turn[assistant], assistant)),
            ]
    return []


def _message(row: Row, turn: Mapping[str, Any]) -> Turn:
    role = _role_of(turn)
    if not isinstance(role, str) or role.strip().lower() not in _ROLES:
        raise FormatError(f"a turn of role {str(role)[:20]!r}; known are {', '.join(_ROLES)}")
    if any(turn.get(key) for key in _TOOL_KEYS):
        raise FormatError("a turn that calls a tool")
    return _ROLES[role.strip().lower()], _said(row, turn)


def _said(row: Row, turn: Mapping[str, Any]) -> str:
    return text_of_content(row, next((turn[key] for key in _TEXT_KEYS if key in turn), None))


def _role_of(turn: Mapping[str, Any]) -> Any:
    return next((turn[key] for key in _ROLE_KEYS if key in turn), None)


def _asks(value: Any) -> bool:
    """True for a list of turns of which one is a user's."""
    turns = from_json_cell(value)
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        return False
    return any(_ROLES.get(str(_role_of(turn)).strip().lower()) == "user" for turn in turns)
