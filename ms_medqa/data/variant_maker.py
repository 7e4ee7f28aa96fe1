"""What a worker does for variants: find those that could be made of training records, judge those that are wanted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ms_medqa.data.augment import Variant
from ms_medqa.data.clean import Kept
from ms_medqa.data.example import Example
from ms_medqa.data.judging import Worker
from ms_medqa.data.kept_columns import KeptColumns, columns_of
from ms_medqa.data.split import text_digest
from ms_medqa.data.spool import Spooled


@dataclass(frozen=True, slots=True)
class Candidate:
    """A variant that could be made of a record.

    Attributes:
        method: by which.
        text: of the `Variant`.
        digest: of its question; None where it asks no other question than its record, so that it may always be made.
    """

    method: str
    text: str
    digest: bytes | None


@dataclass(frozen=True, slots=True)
class Choice:
    """The candidate that is wanted of a record, which is given by its number."""

    number: int
    method: str
    text: str


def find_candidates(worker: Worker, numbers: Sequence[int], records: Spooled) -> list[tuple[int, list[Candidate]]]:
    """What could be made of those records that are tried: their numbers, each with the preferred candidate first.

    Records of which nothing can be made are left out.

    Raises:
        UserError: a file of synonyms is at fault.
    """
    augmenter = worker.augmenter
    names = records.ids(np.array(numbers, np.int64))
    tried = [number for number, name in zip(numbers, names, strict=True) if augmenter.tries(name)]
    found = ((number, list(map(_candidate, augmenter.candidates(_example(records, number))))) for number in tried)
    return [(number, candidates) for number, candidates in found if candidates]


def make_variants(worker: Worker, choices: Sequence[Choice], records: Spooled) -> KeptColumns:
    """Make and judge the variants; those that the rules reject are left out.

    Raises:
        UserError: one is too long under `data.length_policy=raise`.
    """
    variants = [Variant(_example(records, each.number), each.method, each.text).record for each in choices]
    return columns_of([verdict for verdict in worker.cleaner.judge(variants) if isinstance(verdict, Kept)])


def _candidate(variant: Variant) -> Candidate:
    return Candidate(variant.method, variant.text, text_digest(variant.text) if variant.asks_anew else None)


def _example(records: Spooled, number: int) -> Example:
    return Example.from_dict(json.loads(records.line(number).decode()))
