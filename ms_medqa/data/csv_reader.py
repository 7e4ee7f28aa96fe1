"""Records of a CSV file with a header line; comma, tab or semicolon between the fields."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.data.raw import RawRecord, wrong_encoding

# Answers longer than the csv module's default limit of 131,072 characters are no error.
_FIELD_LIMIT = 2**31 - 1


def read_csv(path: Path) -> Iterator[RawRecord]:
    """The records, streamed. A row with a wrong number of fields is a RawRecord with an error.

    Raises:
        UserError: not UTF-8, or a quote that is never closed (it would swallow the rest of the file).
    """
    csv.field_size_limit(_FIELD_LIMIT)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(path)
    line = 1
    with path.open(encoding="utf-8-sig", newline="") as file:
        # strict: a stray quote is an error of its row and does not silently join it with the rows below.
        reader = csv.reader(file, delimiter=delimiter, strict=True)
        names: list[str] | None = None
        while True:
            line = reader.line_num + 1
            try:
                row = next(reader)
            except StopIteration:
                return
            except UnicodeDecodeError as fault:
                # The decoder works in blocks, so the line it stopped at is found by counting.
                content = path.read_bytes()
                start = content.find(fault.object[fault.start :][:64])
                raise wrong_encoding(path, content.count(b"\n", 0, start) + 1, content[start:]) from None
            except csv.Error as fault:
                if "end of data" in str(fault):
                    raise UserError(f"{path} line {line}: a quote that opens here is never closed") from None
                yield RawRecord(line, line, None, ("broken_record", f"CSV: {fault}"), file.buffer.tell())
                continue
            if not any(cell.strip() for cell in row):
                continue
            if names is None:
                names = [name.strip() for name in row]
                continue
            error = None
            value: Any = row
            if len(row) == len(names):
                value = dict(zip(names, row, strict=True))
            else:
                error = ("broken_record", f"{len(row)} fields, but the header has {len(names)}")
            yield RawRecord(line, line, value, error, file.buffer.tell())


def _delimiter(path: Path) -> str:
    with path.open("rb") as file:
        header = next((line for line in file if line.strip()), b"")
    return max(",\t;", key=lambda mark: header.count(mark.encode()))
