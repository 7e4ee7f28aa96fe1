"""Read all input files through the cleaning rules: what is kept goes to the spool, what is rejected is written down."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ms_medqa.config.console import progress, say
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import json_bytes, json_line
from ms_medqa.config.schema import DataSection
from ms_medqa.data.clean import Note, Rejected
from ms_medqa.data.columns import list_names
from ms_medqa.data.facts import Facts
from ms_medqa.data.inputs import InputFile, stem_of
from ms_medqa.data.judge import Judged
from ms_medqa.data.judging import Judges
from ms_medqa.data.raw import EmptyFileError, RawRecord, printable
from ms_medqa.data.readers import open_raw
from ms_medqa.data.report import FileCount
from ms_medqa.data.rules.lexicon import Coverage
from ms_medqa.data.rules.redact import redact_value
from ms_medqa.data.spool import Spool

# Records after which a file without a single usable one is given up.
_EARLY = 1000
# Files of no use that are named on the terminal.
_WARNED = 5


class Gatherer:
    """Takes files one after the other; duplicates and ids are seen across them.

    Args:
        settings: of the conversion.
        judges: the rules.
        spool: gets every kept record.
        rejected_file: gets a line for every rejected record.

    Attributes:
        facts: what is known of each kept record, in the order of the spool.
        files: the counts of each file.
        coverage: of the user's medical names, None where there are none.
    """

    def __init__(self, settings: DataSection, judges: Judges, spool: Spool, rejected_file: IO[str]) -> None:
        self.facts = Facts()
        self.files: list[FileCount] = []
        self.coverage = Coverage() if settings.lexicon else None
        self._columns = settings.columns
        self._duplicates = settings.rules.duplicate
        self._redact = settings.redact
        self._judges = judges
        self._spool = spool
        self._rejected_file = rejected_file
        self._ids: dict[str, int] = {}
        self._seen: dict[bytes, str] = {}
        self._seen_columns: dict[str, None] = {}

    def read(self, inputs: Sequence[InputFile]) -> None:
        """Read all files; of several, one without records or known columns is of no use, and that is said.

        Raises:
            UserError: a file is broken as a whole or more than half broken, no file has known columns, or a column
                named by the user is nowhere.
        """
        sizes = [item.path.stat().st_size for item in inputs]
        with progress(total=max(1, sum(sizes) // 1024), desc="reading", unit="KB") as bar:
            for number, item in enumerate(inputs):
                layout, raws = _open(item.path, alone=len(inputs) == 1)
                file = FileCount(printable(item.path), item.name, layout)
                self.files.append(file)
                for batch, judged in self._judges.judge(raws, printable(stem_of(item.path)), item.name, number):
                    self._take(batch, judged, file)
                    done = sum(sizes[:number]) + min(batch[-1].position, sizes[number])
                    bar.update(done // 1024 - bar.n)
                    if file.read >= _EARLY and not file.formats and not (len(inputs) > 1 and file.of_no_use):
                        file.check_broken()
                if len(inputs) == 1 or not file.of_no_use:
                    file.check_broken()
        self._say_useless()
        self._check_columns()

    def _take(self, raws: Sequence[RawRecord], judged: Judged, file: FileCount) -> None:
        self._seen_columns.update(dict.fromkeys(judged.columns))
        rejected, noted = dict(judged.rejected), dict[int, tuple[Note, ...]]()
        fresh: list[int] = []
        kept = judged.kept
        for index, (place, name) in enumerate(zip(judged.places, kept.records.ids, strict=True)):
            own = self._own_id(name)
            first = self._seen.setdefault(kept.digests[index], own) if self._duplicates else own
            if first != own:
                rejected[place] = Rejected("duplicate", f"same as {first}")
                continue
            if own != name:
                kept.records.ids[index] = own
                kept.lines[index] = json_bytes(json.loads(kept.lines[index]) | {"id": own})
            fresh.append(index)
            if index in judged.notes:
                noted[place] = judged.notes[index]
            if self.coverage is not None:
                self.coverage.add(judged.terms[index])
        self._keep(judged, fresh)
        file.add([raw.line for raw in raws], judged.formats, rejected, noted.values())
        for place in sorted((*rejected, *noted)):
            self._write_down(raws[place], file, rejected.get(place), noted.get(place, ()))

    def _keep(self, judged: Judged, fresh: Sequence[int]) -> None:
        records, lines, signatures = judged.kept.records, judged.kept.lines, judged.signatures
        if len(fresh) < len(records):
            records, signatures = records.select(fresh), signatures[fresh]
            lines = [lines[index] for index in fresh]
        self._spool.add_batch(records, lines, signatures)
        self.facts.extend(judged.kept.facts, fresh)

    def _write_down(self, raw: RawRecord, file: FileCount, rejected: Rejected | None, notes: Sequence[Note]) -> None:
        """A line for a record that is rejected, or kept in part."""
        lines = [(rejected.reason, rejected.detail)] if rejected else []
        lines += [(note.reason, f"{note.detail}; kept") for note in notes if note.reason == "cut"]
        for reason, detail in lines:
            value = redact_value(raw.value) if self._redact else raw.value
            self._rejected_file.write(rejected_line(file.name, raw.line, reason, detail, value))

    def _own_id(self, name: str) -> str:
        """An id that no other record has: the one given, or it with a number behind."""
        count = self._ids.get(name, 0) + 1
        own = name
        if count > 1:
            while f"{name}-{count}" in self._ids:
                count += 1
            own = f"{name}-{count}"
            self._ids[own] = 1
        self._ids[name] = count
        return own

    def _say_useless(self) -> None:
        useless = [file for file in self.files if file.complaint]
        if len(useless) == len(self.files):
            # Raises where there are records; that there are none is said when the result is seen to be empty.
            for file in useless:
                file.check_broken()
            return
        for file in useless[:_WARNED]:
            say(f"warning: {file.path}: {file.complaint}")
        if rest := useless[_WARNED:]:
            say(f"warning: … and {len(rest):,} more files of no use")

    def _check_columns(self) -> None:
        known = {name.strip().lower() for name in self._seen_columns}
        for field, wish in self._columns.model_dump().items():
            if wish is not None and wish.lower() not in known:
                there = list_names(self._seen_columns)
                raise UserError(f"data.columns.{field}={wish}: no such column", f"there are {there}")


def _open(path: Path, alone: bool) -> tuple[str, Iterator[RawRecord]]:
    """`open_raw`; among several files an empty one has no records."""
    try:
        return open_raw(path)
    except EmptyFileError:
        if alone:
            raise
        return "empty file", iter(())


def rejected_line(file: str, line: int, reason: str, detail: str, record: Any) -> str:
    """A line of `rejected.jsonl`."""
    return json_line({"file": file, "line": line, "reason": reason, "detail": detail, "record": record})
