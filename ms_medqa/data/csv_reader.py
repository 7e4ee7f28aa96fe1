"""Records of a CSV file, whatever separates and quotes its fields."""

from __future__ import annotations

import csv
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.data.csv_dialect import Dialect, find_dialect
from ms_medqa.data.raw import BAD_ENCODING, RawRecord
from ms_medqa.data.shapes.exam import implied_header
from ms_medqa.data.text_stream import LONGEST, Line, TextStream

# Answers longer than the csv module's default limit of 131,072 characters are no error.
_FIELD_LIMIT = 2**31 - 1
_HEAD = 1 << 16
_KEPT = 100_000
# Lines behind an unclosed quote that are looked at, to tell whether they are records of their own.
_LOOKED_AT = 1000
# Excel writes and reads such a line before the header.
_SEPARATOR_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?', re.IGNORECASE)
_UNCLOSED = "a quote that opens here is never closed: close it, or write two quotes for each that is a part of the text"


def open_csv(stream: TextStream, suffix: str) -> tuple[str, Iterator[RawRecord]]:
    """The layout (for people) and the records, streamed; a file whose first row is a record already has MMLU's columns.

    A row with a wrong number of fields or a stray quote is a RawRecord with an error. So is one whose quote is never
    closed, where the lines behind it are rows by themselves; otherwise all that follows is one such record.

    Args:
        stream: the file, not yet read.
        suffix: of its name.

    Raises:
        UserError: while reading, at a header that names a column twice.
    """
    csv.field_size_limit(_FIELD_LIMIT)
    head = stream.peek(_HEAD)
    newline = "\r" if "\r" in head and "\n" not in head else "\n"
    lines = [line + newline for line in head.split(newline)]
    if len(head) >= _HEAD and len(lines) > 2:
        lines.pop()
    while lines and not lines[0].strip():
        lines.pop(0)
    if lines and (named := _SEPARATOR_LINE.fullmatch(lines[0].strip("\r\n"))):
        dialect = Dialect(named[1])
    else:
        dialect = find_dialect(lines, tabs=suffix == ".tsv") if lines else Dialect()
    names = implied_header(_first_row(dialect, lines))
    words = f"{dialect.words} without a header" if names else dialect.words
    return words, _Rows(stream, dialect, newline, names or ()).read()


def _first_row(dialect: Dialect, lines: Sequence[str]) -> list[str]:
    """The first row, empty where it is none."""
    try:
        return next(dialect.reader(iter(lines), strict=True), [])
    except csv.Error:
        return []


class _Rows:
    def __init__(self, stream: TextStream, dialect: Dialect, newline: str, names: Sequence[str]) -> None:
        self._path: Path = stream.path
        self._dialect = dialect
        self._lines = stream.lines(newline)
        self._again: deque[Line] = deque()  # lines to be read anew
        self._taken: list[Line] = []  # those of the present row: the csv module keeps nothing of a broken one
        self._names = list(names)  # of the columns; empty until the header was read

    def read(self) -> Iterator[RawRecord]:
        reader = self._dialect.reader(self._next_lines(), strict=True)
        while True:
            self._taken = []
            error = None
            row: list[str] = []
            try:
                row = next(reader)
            except StopIteration:
                return
            except (csv.Error, _TooLongError) as fault:
                unclosed = isinstance(fault, _TooLongError) or "end of data" in str(fault)
                self._give_back(unclosed=unclosed)
                error = ("broken_record", _UNCLOSED if unclosed else f"CSV: {fault}")
                reader = self._dialect.reader(self._next_lines(), strict=True)
            if error is None and not any(cell.strip() for cell in row):
                continue
            first = self._taken[0]
            if error is None and not self._names:
                if _SEPARATOR_LINE.fullmatch(first.text.strip("\r\n")):
                    continue
                self._names = [name.strip() for name in row]
                _check_header(self._path, first.number, self._names)
                continue
            value: Any = row
            wrong = next((line.fault for line in self._taken if line.fault is not None), None)
            if wrong is not None:
                error = (BAD_ENCODING, wrong)
            elif error is None and len(row) != len(self._names):
                error = ("broken_record", f"{len(row)} fields, but the header has {len(self._names)}")
            elif error is None:
                value = dict(zip(self._names, row, strict=True))
            if wrong is not None or not row:
                value, error = self._taken_text(error)
            yield RawRecord(first.number, first.number, value, error, self._taken[-1].position)

    def _next_lines(self) -> Iterator[str]:
        length = 0
        before = self._taken
        while True:
            line = self._again.popleft() if self._again else next(self._lines, None)
            if line is None:
                return
            if self._taken is not before:
                before, length = self._taken, 0
            self._taken.append(line)
            length += len(line.text)
            if length > LONGEST:
                raise _TooLongError
            yield line.text

    def _give_back(self, *, unclosed: bool) -> None:
        """Decide which of the lines taken are the broken row; those behind it are read anew.

        The last line is a row of its own where it can be read as one. After a quote that is never closed all but the
        first are, where this holds of most.
        """
        following = self._taken[1:]
        if unclosed:
            shown = [line for line in following[:_LOOKED_AT] if line.text.strip()]
            if 2 * sum(map(self._is_row, shown)) <= len(shown):
                return
        elif following and self._is_row(following[-1]):
            following = following[-1:]
        else:
            return
        del self._taken[-len(following) :]
        self._again.extendleft(reversed(following))

    def _is_row(self, line: Line) -> bool:
        try:
            (row,) = self._dialect.reader(iter([line.text]), strict=True)
        except (csv.Error, ValueError):
            return False
        return len(row) == max(len(self._names), 2)

    def _taken_text(self, error: tuple[str, str] | None) -> tuple[str, tuple[str, str] | None]:
        """What was read of the present row, of a very long one its beginning."""
        text = "".join(line.text for line in self._taken).rstrip("\r\n")
        if len(self._taken) > 1 and len(text) > _KEPT and error is not None:
            error = (error[0], f"{error[1]}; of {len(text):,} characters the first {_KEPT:,} are kept")
            text = text[:_KEPT]
        return text, error


class _TooLongError(Exception):
    """A row that is longer than any record can be."""


def _check_header(path: Path, line: int, names: list[str]) -> None:
    for name, count in Counter(name.lower() for name in names if name).items():
        if count > 1:
            raise UserError(f"{path} line {line}: the header names {name!r} {count} times", "rename or remove a column")
