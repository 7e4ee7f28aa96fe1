"""Ids of records that are made beside those that were read."""

from __future__ import annotations

import numpy as np

from ms_medqa.data.mix import digest
from ms_medqa.data.spool import Spooled


class UniqueIds:
    """Gives each made record an id that no other record of the folder has.

    A user's record may be called `qa-1~aug1` or `qa-1~2` itself, and two files that are mixed in may have one name.
    Memory: 8 bytes for each record that was read, about 100 for each that is made.

    Args:
        read: the records that were read; their ids stay as they are.
    """

    def __init__(self, read: Spooled) -> None:
        self._read = np.fromiter((digest(read.id(index)) for index in range(len(read))), np.uint64, len(read))
        self._read.sort()
        self._made: set[int] = set()

    def take(self, name: str) -> str:
        """`name`, with a number behind it where that is an id already; no later call gives the same."""
        found, number = name, 1
        while self._is_taken(mark := digest(found)):
            number += 1
            found = f"{name}-{number}"
        self._made.add(mark)
        return found

    def _is_taken(self, mark: int) -> bool:
        place = int(np.searchsorted(self._read, np.uint64(mark)))
        return mark in self._made or (place < self._read.size and int(self._read[place]) == mark)
