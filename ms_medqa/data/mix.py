"""How many records of a source go into the training part, and which: replay of general data, weighted inputs.

Only counts, lengths and digests are needed, so a source may lie on disk; 16 bytes for each record are in memory.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.data.shingles import mix

# By which the state of SplitMix64 grows. Sums wrap at 64 bits on purpose; NumPy's arrays do so without a warning.
_STEP = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, slots=True)
class Amount:
    """The size of a set of records, in records and in tokens."""

    records: int
    tokens: int

    @classmethod
    def of(cls, lengths: np.ndarray) -> Amount:
        """The size of the records whose tokens are `lengths`, integers (n,)."""
        return cls(int(lengths.size), int(lengths.sum(dtype=np.int64)))


def select(
    main: Amount,
    lengths: np.ndarray,
    *,
    weight: float,
    digests: np.ndarray,
    by: Literal["record", "token"] = "record",
    seed: int = 42,
    name: str = "the source",
) -> np.ndarray:
    """The records of a source that are mixed into a main set.

    With `by="record"` it is exactly weight × main.records of them, half a record rounded up; with `by="token"` as many
    as come nearest to weight × main.tokens, off by at most half of the last one's tokens. They are the first in an
    order by a hash of seed and digest, so the order of the source does not matter, and a larger weight takes the same
    and more. A source that is too small is taken whole as often as it goes, then its first ones again.

    An input with a weight of its own (`PATH@0.5`) is its own main set: `select(Amount.of(lengths), lengths, …)`.

    Args:
        main: size of what is mixed into; the main training part.
        lengths: integers (n,), tokens of the source's records, each at least 1.
        weight: how much of the source there will be for each record (token) of the main set.
        digests: uint64 (n,), one of each record, such as `digest` of its text; of its id where its place in the file
            may count.
        by: what the weight counts.
        seed: of the order.
        name: of the source, for the error.

    Returns:
        int64 (k,), places in the source in the order in which they are taken; place i is of pass i // n.

    Raises:
        UserError: the weight is negative or no number, or the source has no records.
    """
    assert lengths.shape == digests.shape == (lengths.size,), (lengths.shape, digests.shape)
    assert digests.dtype == np.uint64, digests.dtype
    if not math.isfinite(weight) or weight < 0:
        raise UserError(f"{name}: weight {weight}", "a number of at least 0 is needed, such as 0.1 for one tenth")
    # As written: 0.15 of 10 records is one and a half, not a float below it.
    wanted = Fraction(str(float(weight))) * (main.records if by == "record" else main.tokens)
    if wanted == 0:
        return np.zeros(0, dtype=np.int64)
    if not lengths.size:
        raise UserError(f"{name}: no records are left to mix in", "look at its rejected records, or leave it out")
    assert int(lengths.min()) > 0, "a record without tokens"
    # Equal digests are equal records, of which one is as good as the other; lengths come second all the same.
    order = np.lexsort((lengths, _ranks(digests, seed))).astype(np.int64)
    if by == "record":
        passes, rest = divmod(math.floor(wanted + Fraction(1, 2)), order.size)
        return np.concatenate([np.tile(order, passes), order[:rest]])
    ends = np.cumsum(lengths[order], dtype=np.int64)
    passes, left = divmod(wanted, int(ends[-1]))
    return np.concatenate([np.tile(order, passes), order[: _nearest(ends, left)]])


def pass_numbers(selection: np.ndarray, source_records: int) -> np.ndarray:
    """int64 (k,): how often each selected record was taken before, 0 the first time."""
    return np.arange(selection.size, dtype=np.int64) // max(source_records, 1)


def numbered_id(name: str, number: int) -> str:
    """The id of a record that is taken once more: its own the first time, then `~2`, `~3`, … behind it."""
    return name if number == 0 else f"{name}~{number + 1}"


def digest(text: str) -> int:
    """64 bits that stand for a text."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _nearest(ends: np.ndarray, wanted: Fraction) -> int:
    """How many records come nearest to `wanted` tokens; of two that are as near, the fewer."""
    count = int(np.searchsorted(ends, float(wanted)))
    below = int(ends[count - 1]) if count else 0
    return count + 1 if count < ends.size and int(ends[count]) - wanted < wanted - below else count


def _ranks(digests: np.ndarray, seed: int) -> np.ndarray:
    """uint64 (n,), evenly spread: the next number of SplitMix64 behind digest and seed."""
    start = mix(np.array([seed % 2**64], dtype=np.uint64) + _STEP)
    return mix((digests ^ start) + _STEP)
