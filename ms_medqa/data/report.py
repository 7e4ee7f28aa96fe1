"""Counts of a conversion: what was read, what was kept where, what was rejected why."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import DataSection
from ms_medqa.data.clean import Note, Rejected
from ms_medqa.data.formats import KNOWN_FORMATS
from ms_medqa.data.split import PARTS

# Reasons that speak of the file rather than of its contents; more than half of them stops the conversion.
_BROKEN = ("bad_encoding", "broken_file", "broken_json", "broken_record", "unknown_columns")
# Bars of a histogram, at most.
_BINS = 40
PERCENTILES = (5, 25, 50, 75, 90, 95, 99)


@dataclass(slots=True)
class FileCount:
    """Counts of one input file.

    Attributes:
        path: the file, as the user gave it.
        name: its name in the report.
        layout: JSON Lines, JSON array, JSON object or CSV.
        read: records.
        formats: format → records.
        rejected: reason → records.
        notes: what was left out of, or changed in, records that are kept → places.
        first_broken: line and detail of the first record that could not be used.
    """

    path: str
    name: str
    layout: str
    read: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    first_broken: tuple[int, str] | None = None

    @property
    def kept(self) -> int:
        return self.read - self.rejected.total()

    def add(
        self,
        lines: Sequence[int],
        formats: Sequence[str],
        rejected: Mapping[int, Rejected],
        notes: Iterable[Sequence[Note]],
    ) -> None:
        """Count n records that were read.

        Args:
            lines: n; the line on which each begins.
            formats: n; the format of each in words, empty where none was found.
            rejected: place among them → the reason against it.
            notes: what was done to those that are kept.
        """
        self.read += len(lines)
        self.formats.update(filter(None, formats))
        self.rejected.update(each.reason for each in rejected.values())
        for note in itertools.chain.from_iterable(notes):
            self.notes[note.reason] += note.count
        broken = min((place for place in rejected if not formats[place]), default=None)
        if broken is not None and self.first_broken is None:
            self.first_broken = lines[broken], rejected[broken].detail

    @property
    def of_no_use(self) -> bool:
        """Whether every record so far was sound, but none of any known format."""
        return 0 < self.read == self.rejected["unknown_columns"]

    @property
    def complaint(self) -> str:
        """Why nothing of the file is used, empty for a file with sound records of a known format."""
        if not self.read:
            return "no record in it"
        if not self.of_no_use or self.first_broken is None:
            return ""
        return f"all {self.read:,} records are rejected ({self.first_broken[1]})"

    def check_broken(self) -> None:
        """Raise a UserError when more than half of the records could not be used."""
        broken = sum(self.rejected[reason] for reason in _BROKEN)
        if 2 * broken <= self.read:
            return
        assert self.first_broken is not None
        line, detail = self.first_broken
        unknown = self.rejected["unknown_columns"]
        if self.of_no_use:
            raise UserError(f"{self.path} line {line}: {detail}", f"known are {KNOWN_FORMATS}")
        hint = f"known are {KNOWN_FORMATS}" if unknown else "more than half of a file must be sound"
        what = "broken JSON" if 2 * self.rejected["broken_json"] > broken else "not usable"
        raise UserError(
            f"{self.path}: {broken} of {self.read} records are {what}, the first in line {line} ({detail})",
            hint,
        )

    def describe(self) -> str:
        """A line for the terminal."""
        found = "; ".join(
            name if len(self.formats) == 1 else f"{name}: {count:,}" for name, count in self.formats.most_common()
        )
        return f"{self.path}: {self.layout}, {found or 'nothing usable'}, {self.read:,} records"

    def to_dict(self) -> dict[str, Any]:
        return {
            "file": self.name,
            "layout": self.layout,
            "formats": dict(self.formats),
            "read": self.read,
            "kept": self.kept,
            "rejected": dict(sorted(self.rejected.items())),
            "notes": dict(sorted(self.notes.items())),
        }


def build_report(
    files: Sequence[FileCount],
    kept: Mapping[str, int],
    tokens: Mapping[str, dict[str, np.ndarray]],
    settings: DataSection,
    *,
    kind: str,
    tokenizer: str,
    prompt: dict[str, Any],
    types: Mapping[str, Mapping[str, int]],
    lexicon: Mapping[str, Any] | None,
    augmented: int,
    repeated: int,
    mixed: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The content of `report.json`. It holds no times and no absolute paths, so that equal runs give equal reports.

    Args:
        files: counts of each input.
        kept: part → number of records.
        tokens: part → `record`, `trained`, `question`, `answer` → tokens of each record, int (n,).
        settings: of the conversion.
        kind: `sft` or `text`.
        tokenizer: fingerprint.
        prompt: definition.
        types: part → type of question → records.
        lexicon: coverage of the user's medical names.
        augmented: variants in the training part.
        repeated: repetitions in it, by the weights of the inputs.
        mixed: other data in it.
    """
    rejected: Counter[str] = Counter()
    notes: Counter[str] = Counter()
    for file in files:
        rejected.update(file.rejected)
        notes.update(file.notes)
    read = sum(file.read for file in files)
    counts = {part: kept[part] for part in PARTS}
    assert read == sum(counts.values()) + rejected.total(), (read, counts, rejected)
    return {
        "read": read,
        "kept": counts,
        "augmented": augmented,
        **({"repeated": repeated} if repeated else {}),
        **({"mixed": list(mixed)} if mixed else {}),
        "rejected": dict(sorted(rejected.items())),
        "kind": kind,
        "files": [file.to_dict() for file in files],
        "tokens": {part: _token_statistics(tokens[part]) for part in PARTS if kept[part]},
        **({"types": {part: dict(types[part]) for part in PARTS if kept[part]}} if kind == "sft" else {}),
        **({"lexicon": dict(lexicon)} if lexicon is not None else {}),
        "notes": dict(sorted(notes.items())),
        "tokenizer": tokenizer,
        "seed": settings.seed,
        "prompt": prompt,
        "settings": settings.model_dump(mode="json", exclude={"path", "packing", "seed", "prompt"}),
    }


def table(report: Mapping[str, Any]) -> str:
    """The short table that ends a conversion."""
    kept = report["kept"]
    rows = [("read", report["read"], "")]
    rows.append(("kept", sum(kept.values()), ", ".join(f"{part} {kept[part]:,}" for part in PARTS)))
    if report["augmented"]:
        rows.append(("augmented", report["augmented"], "variants in the train part"))
    if "repeated" in report:
        rows.append(("repeated", report["repeated"], "by the weights of the inputs"))
    for source in report.get("mixed", ()):
        rows.append(("mixed", source["taken"], f"of {source['path']}, {source['tokens']:,} tokens"))
    rows.append(("rejected", sum(report["rejected"].values()), by_count(report["rejected"])))
    if report["notes"]:
        rows.append(("noted", sum(report["notes"].values()), by_count(report["notes"])))
    return "\n".join(f"{name:<9}{count:>10,}   {text}".rstrip() for name, count, text in rows)


def by_count(counts: Mapping[str, int]) -> str:
    """Names and how often each was counted, the most frequent first."""
    largest_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in largest_first)


def histograms_of(tokens: Mapping[str, dict[str, np.ndarray]]) -> dict[str, dict[str, tuple[list[int], list[int]]]]:
    """`record`, `question`, `answer` → part → (edges, counts) of lengths in tokens; bins are the same for all parts."""
    found: dict[str, dict[str, tuple[list[int], list[int]]]] = {}
    for name in ("record", "question", "answer"):
        largest = max((int(columns[name].max()) for columns in tokens.values() if columns[name].size), default=0)
        if not largest:
            continue
        edges = np.arange(0, largest + 1 + (step := max(1, -(-largest // _BINS))), step)
        found[name] = {
            part: (edges.tolist(), np.histogram(columns[name], edges)[0].tolist())
            for part, columns in tokens.items()
            if columns[name].size
        }
    return found


def _token_statistics(tokens: dict[str, np.ndarray]) -> dict[str, Any]:
    statistics: dict[str, Any] = {
        "total": int(tokens["record"].sum()),
        "trained": int(tokens["trained"].sum()),
        "record": _percentiles(tokens["record"]),
    }
    if tokens["question"].any():
        statistics |= {name: _percentiles(tokens[name]) for name in ("question", "answer")}
    return statistics


def _percentiles(values: np.ndarray) -> dict[str, int]:
    # `nearest` gives lengths that occur, as whole numbers.
    found = np.percentile(values, PERCENTILES, method="nearest")
    result = {"min": int(values.min())}
    result |= {f"p{percent}": int(value) for percent, value in zip(PERCENTILES, found, strict=True)}
    return result | {"max": int(values.max())}
