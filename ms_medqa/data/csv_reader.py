"""Records of a CSV file with a header line; comma, tab or semicolon between the fields."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.data.raw import RawRecord, wrong_encoding

# Answers longer than the csv module's default limit of 131,072 characters are no error.
_FIELD_LIMIT = 2**31 - 1


def read_csv(path: Path) -> Iterator[RawRecord]:
    """The records, streamed. A row with a wrong number of fields or a stray quote is a RawRecord with an error.

    Raises:
        UserError: not UTF-8, a header that names a column twice, or a quote that is never closed (it would swallow
            the rest of the file).
    """
    csv.field_size_limit(_FIELD_LIMIT)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(path)
    taken: list[str] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        # strict: a stray quote is an error of its row and does not silently join it with the rows below.
        reader = csv.reader(_remembered(file, taken), delimiter=delimiter, strict=True)
        names: list[str] | None = None
        while True:
            line = reader.line_num + 1
            taken.clear()
            try:
                row = next(reader)
            except StopIteration:
                return
            except UnicodeDecodeError:
                raise _wrong_encoding(path) from None
            except csv.Error as fault:
                if "end of data" in str(fault):
                    raise UserError(
                        f"{path} line {line}: a quote that opens here is never closed",
                        "close it, or write two quotes for each that is a part of the text",
                    ) from None
                text = "".join(taken).rstrip("\r\n")
                yield RawRecord(line, line, text, ("broken_record", f"CSV: {fault}"), file.buffer.tell())
                continue
            if not any(cell.strip() for cell in row):
                continue
            if names is None:
                names = [name.strip() for name in row]
                _check_header(path, line, names)
                continue
            error = None
            value: Any = row
            if len(row) == len(names):
                value = dict(zip(names, row, strict=True))
            else:
                error = ("broken_record", f"{len(row)} fields, but the header has {len(names)}")
            yield RawRecord(line, line, value, error, file.buffer.tell())


def _remembered(file: Iterable[str], taken: list[str]) -> Iterator[str]:
    """The lines of a file, each also put into `taken`: the csv module keeps nothing of a record it cannot read."""
    for line in file:
        taken.append(line)
        yield line


def _check_header(path: Path, line: int, names: list[str]) -> None:
    for name, count in Counter(name.lower() for name in names if name).items():
        if count > 1:
            raise UserError(f"{path} line {line}: the header names {name!r} {count} times", "rename or remove a column")


def _wrong_encoding(path: Path) -> UserError:
    # The text layer works in blocks and tells only the place in the block.
    content = path.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as fault:
        return wrong_encoding(path, content.count(b"\n", 0, fault.start) + 1, content[fault.start :])
    raise AssertionError(path)


def _delimiter(path: Path) -> str:
    with path.open("rb") as file:
        header = next((line for line in file if line.strip()), b"")
    return max(",\t;", key=lambda mark: header.count(mark.encode()))
