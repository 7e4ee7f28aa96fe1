"""Kept records as columns: how they travel between processes, and what is written of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ms_medqa.config.files import json_bytes
from ms_medqa.data.clean import Kept, digest_of
from ms_medqa.data.facts import Facts
from ms_medqa.data.records import TokenRecords, from_rows


@dataclass(frozen=True, slots=True)
class KeptColumns:
    """n kept records.

    Attributes:
        records: their ids, tokens and loss masks.
        lines: their lines of JSON, with the lines' ends.
        digests: of their texts: equal ones are duplicates.
        facts: what is remembered of them.
    """

    records: TokenRecords
    lines: list[bytes]
    digests: list[bytes]
    facts: Facts


def columns_of(kept: Sequence[Kept], file: int = 0, lines: Sequence[int] | None = None) -> KeptColumns:
    """The columns of these records.

    Args:
        kept: the records.
        file: the number of the file that they were read from.
        lines: the line of that file on which each begins; 0 for those that were made.
    """
    records = from_rows((each.record.id, each.input_ids, each.loss_mask) for each in kept)
    digests = [digest_of(each.record) for each in kept]
    return KeptColumns(
        records=records,
        lines=[json_bytes(each.record.to_dict()) for each in kept],
        digests=digests,
        facts=Facts.of(kept, records.trained, digests, file, lines or [0] * len(kept)),
    )
