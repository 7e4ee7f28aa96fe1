"""The rule that looks at all records: one that is nearly an earlier one is rejected."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import IO

import numpy as np

from ms_medqa.data.banding import near_duplicates
from ms_medqa.data.facts import Facts
from ms_medqa.data.gather import rejected_line
from ms_medqa.data.minhash import similarity
from ms_medqa.data.report import FileCount
from ms_medqa.data.spool import Spooled

REASON = "near_duplicate"


def reject_near_duplicates(
    records: Spooled, facts: Facts, files: Sequence[FileCount], threshold: float | None, rejected_file: IO[str]
) -> np.ndarray:
    """Count and write down the records that are nearly an earlier one.

    Args:
        records: everything that was kept so far.
        facts: of these records.
        files: of the input; their counts are changed.
        threshold: smallest similarity of near duplicates; None keeps them all.
        rejected_file: gets a line for each.

    Returns:
        int64 (k,): numbers of the other records, rising.
    """
    if threshold is None or not len(records):
        return np.arange(len(records))
    first = near_duplicates(records.texts, threshold)
    for number in np.flatnonzero(first >= 0):
        file, earlier = files[facts.files[number]], int(first[number])
        share = float(similarity(records.texts[number], records.texts[earlier]))
        detail = f"{share:.0%} like {records.id(earlier)}"
        file.rejected[REASON] += 1
        value = json.loads(records.line(number))
        rejected_file.write(rejected_line(file.name, facts.lines[number], REASON, detail, value))
    return np.flatnonzero(first < 0)
