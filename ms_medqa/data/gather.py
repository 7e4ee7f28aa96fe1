"""Read all input files through the cleaning rules: what is kept goes to the spool, what is rejected is written down."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import IO, Any

from ms_medqa.config.console import progress, say
from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import DataSection
from ms_medqa.data.clean import Kept, Rejected
from ms_medqa.data.columns import list_names
from ms_medqa.data.example import Record
from ms_medqa.data.facts import Facts
from ms_medqa.data.inputs import InputFile, stem_of
from ms_medqa.data.judging import Judges, Verdict
from ms_medqa.data.raw import RawRecord, printable
from ms_medqa.data.readers import open_raw
from ms_medqa.data.report import FileCount
from ms_medqa.data.rules.lexicon import Coverage
from ms_medqa.data.rules.redact import redact_value
from ms_medqa.data.spool import Spool

# Records after which a file without a single usable one is given up.
_EARLY = 1000


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
        """Read all files; of several, one whose records have no known columns is rejected whole, and that is said.

        Raises:
            UserError: a file is broken as a whole or more than half broken, no file has known columns, or a column
                named by the user is nowhere.
        """
        sizes = [item.path.stat().st_size for item in inputs]
        with progress(total=max(1, sum(sizes) // 1024), desc="reading", unit="KB") as bar:
            for number, item in enumerate(inputs):
                layout, raws = open_raw(item.path)
                file = FileCount(printable(item.path), item.name, layout)
                self.files.append(file)
                for batch, verdicts in self._judges.judge(raws, printable(stem_of(item.path)), item.name):
                    for raw, verdict in zip(batch, verdicts, strict=True):
                        self._take(raw, verdict, file, number)
                    done = sum(sizes[:number]) + min(batch[-1].position, sizes[number])
                    bar.update(done // 1024 - bar.n)
                    if file.read >= _EARLY and not file.formats and not (len(inputs) > 1 and file.of_no_use):
                        file.check_broken()
                if len(inputs) == 1 or not file.of_no_use:
                    file.check_broken()
        self._say_useless()
        self._check_columns()

    def _take(self, raw: RawRecord, verdict: Verdict, file: FileCount, number: int) -> None:
        outcome = verdict.outcome
        if isinstance(raw.value, Mapping):
            self._seen_columns.update(dict.fromkeys(map(str, raw.value)))
        if isinstance(outcome, Kept):
            record = self._with_own_id(outcome.record)
            first = self._seen.setdefault(verdict.digest, record.id) if self._duplicates else record.id
            if first == record.id:
                line = json_line(record.to_dict())
                assert verdict.signatures is not None
                self._spool.add(record.id, line, outcome.input_ids, outcome.loss_mask, verdict.signatures)
                self.facts.add(outcome, number, raw.line, verdict.digest)
            else:
                outcome = Rejected("duplicate", f"same as {first}")
        file.add(raw, verdict.format, outcome)
        if isinstance(outcome, Kept):
            self._note(raw, outcome, file)
        if isinstance(outcome, Rejected):
            line = rejected_line(file.name, raw.line, outcome.reason, outcome.detail, self._shown(raw))
            self._rejected_file.write(line)

    def _shown(self, raw: RawRecord) -> Any:
        """A raw record as it may be written down."""
        return redact_value(raw.value) if self._redact else raw.value

    def _note(self, raw: RawRecord, kept: Kept, file: FileCount) -> None:
        """Count what was done to a record that is kept, and write down what was left out of it."""
        for code in kept.record.notes:
            file.notes[code] += 1
        for note in kept.notes:
            file.notes[note.reason] += note.count
            if note.reason == "cut":
                line = rejected_line(file.name, raw.line, note.reason, f"{note.detail}; kept", self._shown(raw))
                self._rejected_file.write(line)
        if self.coverage is not None:
            self.coverage.add(kept.terms)

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

    def _say_useless(self) -> None:
        useless = [file for file in self.files if file.of_no_use]
        if useless and len(useless) == len(self.files):
            useless[0].check_broken()
        for file in useless:
            assert file.first_broken is not None
            say(f"warning: {file.path}: all {file.read:,} records are rejected ({file.first_broken[1]})")

    def _check_columns(self) -> None:
        known = {name.strip().lower() for name in self._seen_columns}
        for field, wish in self._columns.model_dump().items():
            if wish is not None and wish.lower() not in known:
                there = list_names(self._seen_columns)
                raise UserError(f"data.columns.{field}={wish}: no such column", f"there are {there}")


def rejected_line(file: str, line: int, reason: str, detail: str, record: Any) -> str:
    """A line of `rejected.jsonl`."""
    return json_line({"file": file, "line": line, "reason": reason, "detail": detail, "record": record})


def json_line(value: Any) -> str:
    """One line of JSON Lines, readable text where it can be written as UTF-8."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which a broken record may hold.
        text = json.dumps(value, ensure_ascii=True)
    return text + "\n"
