"""Figures about a stream of records in memory that does not grow with it: lengths, repeats, a random sample."""

from __future__ import annotations

import hashlib
import random
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Generic, TypeVar

import numpy as np

T = TypeVar("T")
# Lengths below are counted one by one, those above in steps of 1/64 of their size.
_EXACT = 1 << 16
# Fingerprints held at most: 32 MB.
_MOST = 1 << 22


class LengthTally:
    """How often each length occurs.

    Attributes:
        count: lengths added.
        total: their sum.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total = 0
        self._exact = array("q", bytes(8 * _EXACT))
        self._long: Counter[int] = Counter()
        self._bounds: tuple[int, int] | None = None

    def add(self, length: int) -> None:
        """Count one length, at least 0."""
        self.count += 1
        self.total += length
        low, high = self._bounds or (length, length)
        self._bounds = min(low, length), max(high, length)
        if length < _EXACT:
            self._exact[length] += 1
        else:
            shift = length.bit_length() - 7
            self._long[length >> shift << shift] += 1

    def values(self) -> tuple[np.ndarray, np.ndarray]:
        """int64 (k,) lengths in rising order and int64 (k,) how often each occurs."""
        exact = np.frombuffer(self._exact, dtype=np.int64)
        short = np.flatnonzero(exact)
        long = sorted(self._long)
        counts = [self._long[length] for length in long]
        return np.concatenate([short, np.array(long, np.int64)]), np.concatenate([exact[short], np.array(counts, "q")])

    def percentile(self, percent: float) -> int:
        """The smallest length that at least `percent` of all do not exceed; the count must not be 0."""
        assert self._bounds is not None
        if percent <= 0 or percent >= 100:
            return self._bounds[percent > 0]
        lengths, counts = self.values()
        return int(lengths[np.searchsorted(np.cumsum(counts), percent / 100 * self.count)])

    def summary(self) -> dict[str, float]:
        """Minimum, percentiles, maximum and mean; empty where nothing was counted."""
        if not self.count:
            return {}
        names = {"min": 0, "p5": 5, "p50": 50, "p95": 95, "p99": 99, "max": 100}
        found: dict[str, float] = {name: self.percentile(percent) for name, percent in names.items()}
        return found | {"mean": round(self.total / self.count, 1)}

    def histogram(self, most: int = 40) -> tuple[list[int], list[int]]:
        """Edges (n + 1) and counts (n) of at most `most` + 1 bins: [edge i, edge i + 1).

        The bins are equally wide, of 1, 2 or 5 times a power of ten, up to the 99th percentile; the last one takes all
        that is longer. Nothing counted: no bins.
        """
        if not self.count:
            return [], []
        low, end = self.percentile(0), self.percentile(99)
        width = _round_up((end - low + 1) / most)
        edges = list(range(low // width * width, end + width + 1, width))
        if edges[-2] > end:
            edges.pop()
        lengths, counts = self.values()
        if lengths[-1] >= edges[-1]:
            edges.append(int(lengths[-1]) + 1)
        found, _ = np.histogram(lengths, bins=edges, weights=counts)
        return edges, [int(count) for count in found]


class RepeatTally:
    """How many of the values added came before, exactly or, beyond four million different ones, estimated.

    Of each value only a 64-bit fingerprint is kept. When these become too many, those with an odd last bit (then the
    next to last, and so on) are left out; what remains is a fair sample of the values with all their repeats (Gibbons,
    "Distinct Sampling", VLDB 2001).
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._kept = array("Q")
        self._level = 0

    @property
    def exact(self) -> bool:
        """False where the figures are estimates."""
        return self._level == 0

    def add(self, value: str) -> None:
        """Count one value."""
        digest = hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        fingerprint = int.from_bytes(digest, "little")
        if fingerprint & ((1 << self._level) - 1):
            return
        self._kept.append(fingerprint)
        while len(self._kept) > self._most and self._thin():
            pass

    def repeats(self) -> int:
        """Values that are the same as an earlier one."""
        return (len(self._kept) - np.unique(self._values()).size) << self._level

    def common(self, other: RepeatTally) -> int:
        """Different values that are also in `other`."""
        level = max(self._level, other._level)
        mine, theirs = (values[values & ((1 << level) - 1) == 0] for values in (self._values(), other._values()))
        return int(np.intersect1d(mine, theirs).size) << level

    def _values(self) -> np.ndarray:
        return np.array(self._kept, dtype=np.uint64)

    def _thin(self) -> bool:
        """Halve the sample; False where one value alone fills it, which cannot be thinned."""
        values = self._values()
        if np.unique(values).size < 2:
            self._most *= 2
            return False
        self._level += 1
        self._kept = array("Q", values[values & ((1 << self._level) - 1) == 0].tobytes())
        return True


class Reservoir(Generic[T]):
    """A random sample of `size` of the items offered, each with equal chance (Vitter's algorithm R)."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._random = random.Random(seed)
        self._items: list[tuple[int, T]] = []
        self._offered = 0

    def offer(self, item: T) -> None:
        """Take the item, or not."""
        number = self._offered
        self._offered += 1
        place = number if number < self._size else self._random.randrange(number + 1)
        if place == len(self._items) < self._size:
            self._items.append((number, item))
        elif place < self._size:
            self._items[place] = number, item

    def items(self) -> list[T]:
        """The sample, in the order in which it was offered."""
        return [item for _, item in sorted(self._items, key=lambda pair: pair[0])]


def tally(lengths: Iterable[int]) -> LengthTally:
    """A tally of given lengths."""
    result = LengthTally()
    for length in lengths:
        result.add(length)
    return result


def _round_up(width: float) -> int:
    power = 1
    while True:
        for step in (1, 2, 5):
            if step * power >= width:
                return step * power
        power *= 10
