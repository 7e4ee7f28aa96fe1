"""Raw files of any known layout and format → Example or PlainText, one record at a time."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import Columns, DataSection
from ms_medqa.data.columns import FormatError
from ms_medqa.data.csv_reader import open_csv
from ms_medqa.data.example import Record
from ms_medqa.data.formats import FileHints, hints_of, parse_record
from ms_medqa.data.inputs import KNOWN_SUFFIXES, stem_of, suffix_of
from ms_medqa.data.json_reader import open_json
from ms_medqa.data.parquet_reader import open_parquet
from ms_medqa.data.raw import HALF_WRITTEN, EmptyFileError, RawRecord, check_file, printable
from ms_medqa.data.streams import ByteStream
from ms_medqa.data.text_reader import open_text
from ms_medqa.data.text_stream import TextStream
from ms_medqa.data.xlsx_reader import open_xlsx
from ms_medqa.data.xml_reader import open_xml

_KINDS = {
    **dict.fromkeys((".json", ".jsonl", ".ndjson"), "json"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
    **dict.fromkeys((".xlsx", ".xlsm"), "xlsx"),
    **dict.fromkeys((".txt", ".md"), "text"),
    ".parquet": "parquet",
    ".xml": "xml",
}
# The container of old Office files, and of encrypted new ones.
_OLE = b"\xd0\xcf\x11\xe0"
# Characters and lines by which a text is told from JSON that is called one.
_TEXT_HEAD = 1 << 18
_TEXT_LINES = 6
# Records by which a file's ways are found out.
_HEAD = 512


class Reading(NamedTuple):
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


def read_records(path: Path, settings: DataSection, source: str) -> tuple[str, Iterator[Reading]]:
    """The layout of a file, in words, and its records; one that cannot be used is a Reading with an error.

    Args:
        path: the file.
        settings: the user's column names, shape and normalisation.
        source: name of the file, for `Example.source`.

    Raises:
        UserError: as `open_raw`.
    """
    layout, raws = open_raw(path)
    stem = printable(stem_of(path))

    def readings() -> Iterator[Reading]:
        hints, records = look_ahead(raws, settings.columns)
        for raw in records:
            yield parse_raw(raw, settings, stem, source, hints)

    return layout, readings()


def look_ahead(raws: Iterable[RawRecord], columns: Columns) -> tuple[FileHints, Iterator[RawRecord]]:
    """What the first records of a file tell of all, and all its records."""
    records = iter(raws)
    head = list(itertools.islice(records, _HEAD))
    hints = hints_of((raw.value for raw in head if raw.error is None), columns)
    return hints, itertools.chain(head, records)


def open_raw(path: Path) -> tuple[str, Iterator[RawRecord]]:
    """The layout of a file, in words, and its raw records.

    Raises:
        UserError: the file is absent, empty or of an unknown kind, or broken as a whole; the last may come only
            while the records are read.
    """
    check_file(path)
    kind, suffix = _kind(path), suffix_of(path)
    if kind == "xlsx":
        return open_xlsx(path, printable(stem_of(path)))
    if kind == "parquet":
        return open_parquet(path)
    stream = TextStream(path)
    if not stream.peek(1):
        stream.close()
        raise EmptyFileError(path)
    if kind == "text" and suffix == ".txt" and _holds_json(stream.peek(_TEXT_HEAD)):
        kind = "json"
    openers: dict[str, Callable[[], tuple[str, Iterator[RawRecord]]]] = {
        "json": lambda: open_json(stream, suffix),
        "csv": lambda: open_csv(stream, suffix),
        "xml": lambda: open_xml(stream),
        "text": lambda: open_text(stream, suffix),
    }
    layout, raws = openers[kind]()
    if stream.encoding.name != "utf-8":
        layout += f", {stream.encoding.words}"
    if stream.gzipped:
        layout += ", gzip"
    return layout, _to_the_end(stream, raws)


def _kind(path: Path) -> str:
    """What the file is, by its first bytes where they tell, else by its name."""
    with ByteStream(path) as stream:
        head = stream.read()
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith(b"PK\3\4"):
        # Spreadsheets are often given a wrong name; any other archive is no file of records.
        if suffix_of(path) in (".xlsx", ".xlsm") or b"xl/" in head or b"[Content_Types].xml" in head:
            return "xlsx"
        raise UserError(f"{path}: a ZIP archive", "unpack it and name the files in it")
    if head.startswith(_OLE):
        raise UserError(f"{path}: an old (.xls) or encrypted Excel file", "save it as .xlsx without a password")
    kind = _KINDS.get(suffix_of(path))
    if kind is None:
        known = " ".join(KNOWN_SUFFIXES)
        raise UserError(f"{path}: unknown kind of file", f"known are {known}, each also with .gz behind it")
    if kind in ("xlsx", "parquet"):
        words = "XLSX" if kind == "xlsx" else "Parquet"
        raise UserError(f"{path}: not a whole {words} file: {HALF_WRITTEN}")
    return kind


def _holds_json(head: str) -> bool:
    """Whether a text is JSON Lines of objects, or begins as an array of them: such files are often called `.txt`."""
    whole, head = len(head) < _TEXT_HEAD, head.strip("\ufeff \t\r\n")
    if head.startswith("["):
        # What follows the first object tells an array from a text that quotes one.
        return _is_object(head[1:].lstrip(), before=(",", "]"))
    lines = head.split("\n")
    if not whole and len(lines) > 1:
        lines.pop()  # cut
    return all(_is_object(line) for line in lines[:_TEXT_LINES] if line.strip())


def _is_object(text: str, before: tuple[str, ...] = ()) -> bool:
    """Whether a text is an object, or begins with one that stands before one of these."""
    if not text.startswith("{"):
        return False
    try:
        value, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    rest = text[end:].lstrip()
    return bool(value) and (rest.startswith(before) if before else not rest)


def _to_the_end(stream: TextStream, raws: Iterator[RawRecord]) -> Iterator[RawRecord]:
    """The records, and one more for what a damaged gzip file holds no longer."""
    last = 0
    try:
        for raw in raws:
            last = raw.line
            yield raw
    finally:
        stream.close()
    if stream.gzip_fault is not None:
        detail = f"{stream.gzip_fault}: {HALF_WRITTEN}"
        yield RawRecord(last + 1, last + 1, "", ("broken_file", detail), stream.position)


def parse_raw(raw: RawRecord, settings: DataSection, stem: str, source: str, hints: FileHints) -> Reading:
    """What becomes of one raw record.

    Args:
        raw: as it stands in the file.
        settings: the user's column names, shape and normalisation.
        stem: what the id of a record without one begins with.
        source: name of the file.
        hints: what `look_ahead` has found out about the file.
    """
    if raw.error is not None:
        return Reading(raw, None, error=raw.error)
    name = raw.key or f"{stem}-{raw.number}"
    try:
        record, found = parse_record(
            raw.value,
            settings.columns,
            name=name,
            source=source,
            shape=settings.shape,
            nfkc=settings.nfkc,
            hints=hints,
        )
    except FormatError as error:
        return Reading(raw, None, error=(error.reason, str(error)))
    return Reading(raw, record, found)
