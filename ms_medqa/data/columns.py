"""Look up the columns of a raw record, and read a cell as text."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from ms_medqa.config.schema import Columns

# A file without header shows its first record as column names, so an error message quotes only the start of each.
_LONGEST_NAME = 30
_MOST_NAMES = 20


class FormatError(ValueError):
    """A record that does not fit its format; the text says how."""

    reason = "broken_record"


class UnknownColumnsError(FormatError):
    """A record of which no format is known by its columns."""

    reason = "unknown_columns"


class Row:
    """Values of a record by column name, whatever the case of the letters."""

    def __init__(self, value: Mapping[str, Any], columns: Columns) -> None:
        self._value = value
        self._columns = columns
        self._names = {str(name).strip().lower(): name for name in reversed(list(value))}

    def has(self, name: str) -> bool:
        return name in self._names

    def first(self, names: tuple[str, ...]) -> str | None:
        """The first of `names` that is a column."""
        return next((name for name in names if name in self._names), None)

    def find(self, field: str, aliases: tuple[str, ...]) -> str | None:
        """The column of a field: the user's name for it, else the first alias there is, else None."""
        wish = getattr(self._columns, field)
        if wish is None:
            return self.first(aliases)
        if wish.lower() not in self._names:
            raise UnknownColumnsError(f"no column {wish!r} (data.columns.{field}); columns: {list_names(self._value)}")
        return wish.lower()

    def raw(self, name: str) -> Any:
        return self._value[self._names[name]]

    def text(self, name: str) -> str:
        return to_text(self.raw(name), self._names[name])

    def optional(self, field: str, aliases: tuple[str, ...]) -> str | None:
        """The text of an optional field, None when it is absent or empty."""
        wish = getattr(self._columns, field, None)
        name = self.first(aliases) if wish is None else self.first((wish.lower(),))
        return (self.text(name) or None) if name is not None else None


def to_text(value: Any, column: str) -> str:
    """The text of a cell, without space around it; a list of texts becomes lines."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = "\n".join(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise FormatError(f"column {column!r} holds {kind_of(value)}, not text")
    text = str(value).replace("\r\n", "\n").replace("\r", "\n").strip()
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise FormatError(f"column {column!r} holds half a surrogate pair, which is no character")
    return text


def list_names(names: Iterable[Any]) -> str:
    """Column names for an error message; long ones and many of them are cut."""
    shown = [name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "…" for name in map(str, names)]
    more = len(shown) - _MOST_NAMES
    return ", ".join(shown[:_MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "") or "none"


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")
