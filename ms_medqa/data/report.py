"""Counts of a conversion: what was read, what was kept where, what was rejected why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import DataSection
from ms_medqa.data.clean import Kept
from ms_medqa.data.formats import KNOWN_FORMATS
from ms_medqa.data.raw import NOT_UTF8, recode
from ms_medqa.data.readers import Reading
from ms_medqa.data.split import PARTS

# Reasons that speak of the file rather than of its contents; more than half of them stops the conversion.
_BROKEN = ("broken_json", "broken_record", "unknown_columns")
# Records after which a file without a single usable one is given up.
_EARLY = 1000
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
        first_broken: line and detail of the first record that could not be used.
    """

    path: str
    name: str
    layout: str
    read: int = 0
    formats: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    first_broken: tuple[int, str] | None = None

    @property
    def kept(self) -> int:
        return self.read - self.rejected.total()

    def add(self, reading: Reading) -> None:
        """Count a record that was read, and its error if it has one.

        Raises:
            UserError: so far not one of many could be used.
        """
        self.read += 1
        if reading.error is None:
            self.formats[reading.format] += 1
            return
        self.rejected[reading.error[0]] += 1
        if self.first_broken is None:
            self.first_broken = reading.raw.line, reading.error[1]
        if self.read == _EARLY and not self.formats:
            self.check_broken()

    def check_broken(self) -> None:
        """Raise a UserError when more than half of the records could not be used."""
        broken = sum(self.rejected[reason] for reason in _BROKEN)
        if 2 * broken <= self.read:
            return
        assert self.first_broken is not None
        line, detail = self.first_broken
        unknown = self.rejected["unknown_columns"]
        if unknown == broken == self.read:
            raise UserError(f"{self.path} line {line}: {detail}", f"known are {KNOWN_FORMATS}")
        hint = f"known are {KNOWN_FORMATS}" if unknown else "more than half of a file must be sound"
        if detail.startswith(NOT_UTF8):
            hint = recode(self.path, "GB18030" if "GB18030" in detail else "ITS_ENCODING")
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
        }


def build_report(
    files: Sequence[FileCount],
    kept: Mapping[str, Sequence[Kept]],
    settings: DataSection,
    *,
    kind: str,
    tokenizer: str,
    prompt: dict[str, Any],
) -> dict[str, Any]:
    """The content of `report.json`. It holds no times and no absolute paths, so that equal runs give equal reports.

    Args:
        files: counts of each input.
        kept: part → records.
        settings: of the conversion.
        kind: `sft` or `text`.
        tokenizer: fingerprint.
        prompt: definition.
    """
    rejected: Counter[str] = Counter()
    for file in files:
        rejected.update(file.rejected)
    read = sum(file.read for file in files)
    counts = {part: len(kept[part]) for part in PARTS}
    assert read == sum(counts.values()) + rejected.total(), (read, counts, rejected)
    return {
        "read": read,
        "kept": counts,
        "augmented": 0,
        "rejected": dict(sorted(rejected.items())),
        "kind": kind,
        "files": [file.to_dict() for file in files],
        "tokens": {part: _token_statistics(kept[part]) for part in PARTS if kept[part]},
        "tokenizer": tokenizer,
        "seed": settings.seed,
        "prompt": prompt,
        "settings": {
            "max_length": settings.max_length,
            "length_margin": settings.length_margin,
            "min_question_tokens": settings.min_question_tokens,
            "min_answer_tokens": settings.min_answer_tokens,
            "split": list(settings.split),
            "fill_context": settings.fill_context,
        },
    }


def table(report: Mapping[str, Any]) -> str:
    """The short table that ends a conversion."""
    kept = report["kept"]
    rows = [("read", report["read"], "")]
    rows.append(("kept", sum(kept.values()), ", ".join(f"{part} {kept[part]:,}" for part in PARTS)))
    rejected = report["rejected"]
    reasons = sorted(rejected.items(), key=lambda item: (-item[1], item[0]))
    rows.append(("rejected", sum(rejected.values()), ", ".join(f"{reason} {count:,}" for reason, count in reasons)))
    return "\n".join(f"{name:<9}{count:>10,}   {text}".rstrip() for name, count, text in rows)


def _token_statistics(kept: Sequence[Kept]) -> dict[str, Any]:
    statistics: dict[str, Any] = {
        "total": sum(item.input_ids.size for item in kept),
        "trained": sum(int(item.loss_mask.sum()) for item in kept),
        "record": _percentiles([item.input_ids.size for item in kept]),
    }
    if any(item.question_tokens for item in kept):
        statistics["question"] = _percentiles([item.question_tokens for item in kept])
        statistics["answer"] = _percentiles([item.answer_tokens for item in kept])
    return statistics


def _percentiles(values: Sequence[int]) -> dict[str, int]:
    # `nearest` gives lengths that occur, as whole numbers.
    found = np.percentile(values, PERCENTILES, method="nearest")
    result = {"min": min(values)}
    result |= {f"p{percent}": int(value) for percent, value in zip(PERCENTILES, found, strict=True)}
    return result | {"max": max(values)}
