"""What records of all shapes have in common."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from ms_medqa.data.columns import FormatError, Row, UndesirableAnswerError, from_json_cell, given, is_nothing
from ms_medqa.data.shapes.names import CHOSEN, CONTEXT, ID, PICTURE, PLURAL, REJECTED, SYSTEM
from ms_medqa.data.text import letters

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
# Where a picture stands in a text; on a line of its own it takes the line with it.
_PICTURE_MARK = re.compile(r"(?<![^\n])(?:<image>[ \t]*)+\n?|[ \t]*<image>")


def identity(row: Row, name: str, source: str) -> dict[str, Any]:
    """The fields that every record has: `id`, `source`, `split`."""
    column = row.find_optional("id", ID)
    # An object, such as MongoDB's, is no id, but no reason to reject the record either.
    known = column is not None and isinstance(row.raw(column), str | int | float)
    return {"id": (row.text(column) if known and column else "") or name, "source": source, "split": _part(row)}


def extras(row: Row, context: tuple[str, ...] = CONTEXT) -> dict[str, Any]:
    """The optional fields of an Example: `context`, `system`, `key`."""
    return {
        "context": given(text_of(row, row.find_optional("context", context))),
        "system": row.optional("system", SYSTEM),
        "key": row.optional("key", ("key",)),
    }


def text_of(row: Row, column: str | None) -> str:
    """The text of a column; of an object such as SQuAD's answers or PubMedQA's context that of its main key."""
    if column is None:
        return ""
    value = value_of(row, column)
    if isinstance(value, Mapping):
        key = next((key for key in ("text", "contexts", "value", "content") if key in value), None)
        if key == "text" and isinstance(value[key], list):
            # SQuAD: several people's wordings of one answer.
            return row.to_text(next(iter(value[key]), ""), row.original(column))
        if key is not None:
            value = value[key]
    return row.to_text(value, row.original(column))


def value_of(row: Row, column: str) -> Any:
    """A cell; in a column of a plural name JSON text is the list that a CSV file can hold in no other way.

    Elsewhere a text that happens to be JSON is a text: it may be what was asked for.
    """
    return from_json_cell(row.raw(column)) if column in PLURAL else row.raw(column)


def join_title(title: str, body: str) -> str:
    """A post's title and its text as one question; where one holds the other but for case and marks, it alone."""
    short, long = letters(title), letters(body)
    if not long or body in ("无", "如题", "None") or long in short:
        return title
    return body if short in long else f"{title}\n{body}"


def is_preference(row: Row) -> bool:
    """True where the answer is given twice: the one that people preferred, and the one they did not."""
    return row.has(CHOSEN) and row.has(REJECTED)


def refuse_undesirable(row: Row, marks: Iterable[str]) -> None:
    """Refuse an answer that one of these columns marks as undesirable, as KTO's data do.

    Raises:
        UndesirableAnswerError: it does; trained, the answer would be learnt as a good one.
    """
    for name in marks:
        # In a CSV file it is a text.
        if row.has(name) and str(row.raw(name)).strip().lower() == "false":
            raise UndesirableAnswerError(f"undesirable answer ({row.original(name)}: false)")


def leave_out_pictures(row: Row) -> None:
    """Note that a record comes with pictures, and cut the places where they stand out of the texts read after this."""
    if any(not is_blank(row.raw(name)) for name in PICTURE if row.has(name)):
        row.note("picture_left_out")
        row.placeholder = _PICTURE_MARK


def is_blank(value: Any) -> bool:
    """True for null, NaN, an empty text and an empty list."""
    return is_nothing(value) or value in ([], {}) or (isinstance(value, str) and not value.strip())


def _part(row: Row) -> str | None:
    text = row.optional("split", ("split",))
    if text is not None and text.lower() not in _PARTS:
        raise FormatError(f"split {text[:20]!r}; known are train, val and test")
    return _PARTS[text.lower()] if text else None
