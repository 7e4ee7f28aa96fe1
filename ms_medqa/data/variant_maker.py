"""What a worker does for variants: find those that could be made of training records, judge those that are wanted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ms_medqa.data.augment import variant_of
from ms_medqa.data.clean import Kept
from ms_medqa.data.example import Example
from ms_medqa.data.judging import Worker
from ms_medqa.data.kept_columns import KeptColumns, columns_of
from ms_medqa.data.split import question_digest


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant that could be made of a record.

    Attributes:
        method: by which.
        text: what `variant_of` takes.
        digest: of its question; None where it asks no other question than its record, so that it may always be made.
    """

    method: str
    text: str
    digest: bytes | None


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate that is wanted of a record, which is given as its line of JSON."""

    line: bytes
    method: str
    text: str


def find_candidates(worker: Worker, lines: Sequence[bytes]) -> list[list[Candidate]]:
    """What could be made of each record, the preferred one first.

    Raises:
        UserError: a file of synonyms is at fault.
    """
    return [
        [
            Candidate(variant.method, variant.text, question_digest(variant.record) if variant.asks_anew else None)
            for variant in worker.augmenter.candidates(_example(line))
        ]
        for line in lines
    ]


def make_variants(worker: Worker, choices: Sequence[Choice]) -> KeptColumns:
    """Make and judge the variants; those that the rules reject are left out.

    Raises:
        UserError: one is too long under `data.length_policy=raise`.
    """
    records = [variant_of(_example(choice.line), choice.method, choice.text).record for choice in choices]
    return columns_of([verdict for verdict in worker.cleaner.judge(records) if isinstance(verdict, Kept)])


def _example(line: bytes) -> Example:
    return Example.from_dict(json.loads(line.decode()))
