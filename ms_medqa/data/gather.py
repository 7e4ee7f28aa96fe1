"""Read all input files through the cleaning rules; what is rejected is written down at once."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from ms_medqa.config.console import progress
from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import Columns
from ms_medqa.data.clean import Cleaner, Kept, Rejected
from ms_medqa.data.columns import list_names
from ms_medqa.data.example import Record
from ms_medqa.data.raw import printable
from ms_medqa.data.readers import Reading, read_records
from ms_medqa.data.report import FileCount

# Records that are tokenised together: enough for all cores, few enough that the progress bar moves.
_BATCH = 256


class Gatherer:
    """Takes files one after the other; duplicates and ids are seen across them.

    Args:
        columns: the user's column names.
        cleaner: the rules.
        rejected_file: gets a line for every rejected record.

    Attributes:
        kept: the records that passed, in the order of the input.
        files: the counts of each file.
    """

    def __init__(self, columns: Columns, cleaner: Cleaner, rejected_file: IO[str]) -> None:
        self.kept: list[Kept] = []
        self.files: list[FileCount] = []
        self._columns = columns
        self._cleaner = cleaner
        self._rejected_file = rejected_file
        self._ids: dict[str, int] = {}
        self._seen_columns: dict[str, None] = {}

    def read(self, paths: Sequence[Path]) -> None:
        """Read all files.

        Raises:
            UserError: a file is broken as a whole or more than half broken, or a column named by the user is nowhere.
        """
        sizes = [path.stat().st_size for path in paths]
        with progress(total=max(1, sum(sizes) // 1024), desc="reading", unit="KB") as bar:
            for number, (path, name) in enumerate(zip(paths, file_names(paths), strict=True)):
                for position in self._read_file(path, name):
                    bar.update((sum(sizes[:number]) + min(position, sizes[number])) // 1024 - bar.n)
        self._check_columns()

    def _read_file(self, path: Path, name: str) -> Iterator[int]:
        """Read one file, handing out how many bytes are done."""
        layout, readings = read_records(path, self._columns, name)
        file = FileCount(printable(path), name, layout)
        self.files.append(file)
        while batch := list(itertools.islice(readings, _BATCH)):
            self._take(batch, file)
            yield batch[-1].raw.position
        file.check_broken()

    def _take(self, batch: Sequence[Reading], file: FileCount) -> None:
        records = [self._with_own_id(reading.record) for reading in batch if reading.record is not None]
        verdicts = iter(self._cleaner.check(records))
        for reading in batch:
            file.add(reading)
            if isinstance(reading.raw.value, Mapping):
                self._seen_columns.update(dict.fromkeys(map(str, reading.raw.value)))
            if reading.error is not None:
                self._reject(reading, Rejected(*reading.error), file)
                continue
            verdict = next(verdicts)
            if isinstance(verdict, Kept):
                self.kept.append(verdict)
            else:
                file.rejected[verdict.reason] += 1
                self._reject(reading, verdict, file)

    def _reject(self, reading: Reading, rejected: Rejected, file: FileCount) -> None:
        line = {
            "file": file.name,
            "line": reading.raw.line,
            "reason": rejected.reason,
            "detail": rejected.detail,
            "record": reading.raw.value,
        }
        self._rejected_file.write(json_line(line))

    def _with_own_id(self, record: Record) -> Record:
        """The record under an id that no other has: its own, or with a number behind it."""
        name, count = record.id, self._ids.get(record.id, 0) + 1
        if count > 1:
            while f"{name}-{count}" in self._ids:
                count += 1
            record = replace(record, id=f"{name}-{count}")
            self._ids[record.id] = 1
        self._ids[name] = count
        return record

    def _check_columns(self) -> None:
        known = {name.strip().lower() for name in self._seen_columns}
        for field, wish in self._columns.model_dump().items():
            if wish is not None and wish.lower() not in known:
                there = list_names(self._seen_columns)
                raise UserError(f"data.columns.{field}={wish}: no such column", f"there are {there}")


def json_line(value: Any) -> str:
    """One line of JSON Lines, readable text where it can be written as UTF-8."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which a broken record may hold.
        text = json.dumps(value, ensure_ascii=True)
    return text + "\n"


def file_names(paths: Sequence[Path]) -> list[str]:
    """A short name for each file that tells it from the others: its last part, or as many as are needed.

    Raises:
        UserError: a file is named twice.
    """
    for path, count in Counter(path.resolve() for path in paths).items():
        if count > 1:
            raise UserError(f"{path}: named {count} times")
    # A link keeps its own name: what it leads to may be called by a hash, as in the caches of download tools.
    absolute = [Path(os.path.abspath(path)) for path in paths]
    names = []
    for path in absolute:
        length = 1
        while sum(other.parts[-length:] == path.parts[-length:] for other in absolute) > 1:
            length += 1
        names.append(printable("/".join(path.parts[-length:])))
    return names


def write_lines(file: IO[str], records: Iterable[Record]) -> None:
    """Write records as JSON Lines."""
    for record in records:
        file.write(json_line(record.to_dict()))
