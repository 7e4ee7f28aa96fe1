"""Raw files of any known layout and format → Example or PlainText, one record at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import Columns
from ms_medqa.data.columns import FormatError
from ms_medqa.data.csv_reader import read_csv
from ms_medqa.data.example import Record
from ms_medqa.data.formats import parse_record
from ms_medqa.data.json_reader import open_json
from ms_medqa.data.raw import RawRecord, check_file, printable

_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
_CSV_SUFFIXES = (".csv", ".tsv")


@dataclass(frozen=True, slots=True)
class Reading:
    """What became of one raw record.

    Attributes:
        raw: as it stands in the file.
        record: the example, or None where there is an error.
        format: the format in words, empty where there is an error.
        error: None, or (reason, detail).
    """

    raw: RawRecord
    record: Record | None
    format: str = ""
    error: tuple[str, str] | None = None


def read_records(path: Path, columns: Columns, source: str) -> tuple[str, Iterator[Reading]]:
    """The layout of a file, in words, and its records; one that cannot be used is a Reading with an error.

    Args:
        path: the file.
        columns: the user's column names.
        source: name of the file, for `Example.source`.

    Raises:
        UserError: as `open_raw`.
    """
    layout, raws = open_raw(path)
    return layout, _parse_all(raws, columns, printable(path.stem), source)


def open_raw(path: Path) -> tuple[str, Iterator[RawRecord]]:
    """The layout of a file, in words, and its raw records.

    Raises:
        UserError: the file is absent, empty or of an unknown kind, or broken as a whole; the last may come only
            while the records are read.
    """
    check_file(path)
    suffix = path.suffix.lower()
    if suffix in _JSON_SUFFIXES:
        return open_json(path)
    if suffix in _CSV_SUFFIXES:
        return "CSV", read_csv(path)
    raise UserError(f"{path}: unknown kind of file", f"known are {' '.join(_JSON_SUFFIXES + _CSV_SUFFIXES)}")


def _parse_all(raws: Iterator[RawRecord], columns: Columns, stem: str, source: str) -> Iterator[Reading]:
    for raw in raws:
        if raw.error is not None:
            yield Reading(raw, None, error=raw.error)
            continue
        try:
            record, found = parse_record(raw.value, columns, name=raw.key or f"{stem}-{raw.number}", source=source)
        except FormatError as error:
            yield Reading(raw, None, error=(error.reason, str(error)))
        else:
            yield Reading(raw, record, found)
