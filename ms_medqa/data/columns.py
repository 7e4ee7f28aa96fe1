"""Look up the columns of a raw record, and read a cell as text."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ms_medqa.config.schema import Columns
from ms_medqa.data.text import normalize

# A file without header shows its first record as column names, so an error message quotes only the start of each.
_LONGEST_NAME = 30
_MOST_NAMES = 20
_NOTHING = ("", "nan", "NaN")
_HALF_PAIR = re.compile("[\ud800-\udfff]")


class FormatError(ValueError):
    """A record that does not fit its format; the text says how."""

    reason = "broken_record"


class UnknownColumnsError(FormatError):
    """A record of which no format is known by its columns."""

    reason = "unknown_columns"


class UndesirableAnswerError(FormatError):
    """A record whose answer is marked as one that a model shall not give."""

    reason = "undesirable"


class Row:
    """Values of a record by column name, whatever the case of the letters.

    Args:
        value: column → value.
        columns: the user's column names.
        nfkc: texts are also brought to NFKC.

    Attributes:
        notes: codes of `notes.NOTES`: what was left out of this record while it was read.
        placeholder: what is cut out of all its texts, None where nothing is.
    """

    def __init__(self, value: Mapping[str, Any], columns: Columns, nfkc: bool = False) -> None:
        self.notes: list[str] = []
        self.placeholder: re.Pattern[str] | None = None
        self.nfkc = nfkc
        self._value = value
        self._columns = columns
        names = tuple(value)
        # The records of a file have the same few sets of columns.
        self._names = _by_folded(names) or _fold_all(names)

    def has(self, name: str) -> bool:
        return name in self._names

    def first(self, names: Iterable[str]) -> str | None:
        """The first of `names` that is a column."""
        # Not a generator: this is asked six times for each record, and mostly in vain.
        for name in names:
            if name in self._names:
                return name
        return None

    def named(self, field: str) -> bool:
        """True where the user has named the column of a field."""
        return getattr(self._columns, field, None) is not None

    def find(self, field: str, aliases: Iterable[str]) -> str | None:
        """The column of a field: the user's name for it, else the first alias there is, else None.

        Raises:
            UnknownColumnsError: there is no column of the user's name.
        """
        wish = getattr(self._columns, field, None)
        if wish is None:
            return self.first(aliases)
        if _fold(wish) not in self._names:
            raise UnknownColumnsError(f"no column {wish!r} (data.columns.{field}); columns: {self.list_names()}")
        return _fold(wish)

    def find_optional(self, field: str, aliases: Iterable[str]) -> str | None:
        """As `find`, but a record without the user's column simply has no such field."""
        wish = getattr(self._columns, field, None)
        return self.first(aliases if wish is None else (_fold(wish),))

    def raw(self, name: str) -> Any:
        return self._value[self._names[name]]

    def original(self, name: str) -> str:
        """A column's name as it stands in the file."""
        return str(self._names[name])

    def text(self, name: str) -> str:
        return self.to_text(self.raw(name), self.original(name))

    def optional(self, field: str, aliases: Iterable[str]) -> str | None:
        """The text of an optional field, None when it is absent, empty or `nan`."""
        name = self.find_optional(field, aliases)
        return given(self.text(name)) if name is not None else None

    def to_text(self, value: Any, column: str) -> str:
        """`to_text` as this record's texts are normalised, without its placeholders."""
        text = to_text(value, column, self.nfkc)
        return text if self.placeholder is None else normalize(self.placeholder.sub("", text), self.nfkc)

    def note(self, code: str) -> None:
        if code not in self.notes:
            self.notes.append(code)

    def list_names(self) -> str:
        """The names of its columns for an error message."""
        return list_names(self._value)


def to_text(value: Any, column: str, nfkc: bool = False) -> str:
    """The normalised text of a cell (see `text.normalize`); a list of texts becomes lines.

    Raises:
        FormatError: the value is no text, or holds half a surrogate pair.
    """
    text = value if type(value) is str else _spell(value, column)
    if _HALF_PAIR.search(text):
        raise FormatError(f"column {column!r} holds half a surrogate pair, which is no character")
    return normalize(text, nfkc)


def _spell(value: Any, column: str) -> str:
    """The text of a cell that holds something else than one text."""
    if is_nothing(value):
        return ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = "\n".join(value)
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise FormatError(f"column {column!r} holds {kind_of(value)}, not text")
    return str(value)


def given(text: str) -> str | None:
    """The text of an optional field; None where it is empty, or the word that pandas writes for nothing."""
    return None if text in _NOTHING else text


def is_nothing(value: Any) -> bool:
    """True for null, and for NaN: pandas' way to write it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def from_json_cell(value: Any) -> Any:
    """The list or object that a cell of a CSV file holds as JSON text; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def list_names(names: Iterable[Any]) -> str:
    """Column names for an error message; long ones and many of them are cut."""
    shown = [name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "…" for name in map(str, names)]
    more = len(shown) - _MOST_NAMES
    return ", ".join(shown[:_MOST_NAMES]) + (f" and {more:,} more" if more > 0 else "") or "none"


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _fold_all(names: tuple[Any, ...]) -> dict[str, Any]:
    """Folded → name; of two that fold alike the first counts."""
    return {_fold(name): name for name in reversed(names)}


@functools.lru_cache(maxsize=64)
def _by_folded(names: tuple[Any, ...]) -> dict[str, Any] | None:
    """`_fold_all` of texts, None for others: 1 and true are different names, but equal to a cache."""
    return _fold_all(names) if all(isinstance(name, str) for name in names) else None


def _fold(name: Any) -> str:
    return str(name).strip().lower()
