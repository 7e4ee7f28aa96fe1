"""Tokenised records in memory: flat arrays, so that a million records cost no Python objects but their ids."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

# Id, tokens, loss mask.
Row = tuple[str, np.ndarray, np.ndarray]
# Of a batch: rows at most, and tokens, unless one row has more. MindRecord takes 40 bytes a token while it is made.
_BATCH = 1024
_BATCH_TOKENS = 1 << 18


@dataclass(frozen=True, slots=True)
class TokenRecords:
    """The tokens of n records, one after the other.

    Attributes:
        ids: n record ids.
        tokens: int32 (total,), all token ids.
        loss_mask: uint8 (total,), 1 where the token is a target of the training.
        offsets: int64 (n + 1,); record i is `tokens[offsets[i]:offsets[i + 1]]`.
    """

    ids: list[str]
    tokens: np.ndarray
    loss_mask: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        assert self.tokens.dtype == np.int32, self.tokens.dtype
        assert self.loss_mask.dtype == np.uint8, self.loss_mask.dtype
        assert self.offsets.dtype == np.int64, self.offsets.dtype
        assert self.offsets.shape == (len(self.ids) + 1,), self.offsets.shape
        assert self.tokens.shape == self.loss_mask.shape == (int(self.offsets[-1]),), self.tokens.shape

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,): tokens of each record."""
        return np.diff(self.offsets)

    @property
    def trained(self) -> np.ndarray:
        """int64 (n,): tokens of each that are targets of the training."""
        return np.diff(np.concatenate([[0], np.cumsum(self.loss_mask, dtype=np.int64)])[self.offsets])

    @property
    def id_bytes(self) -> np.ndarray:
        """int64 (n,): bytes of each id."""
        return np.fromiter((len(name.encode()) for name in self.ids), np.int64, len(self.ids))

    def record(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The tokens (int32) and loss mask (uint8) of one record, as views."""
        start, end = self.offsets[index], self.offsets[index + 1]
        return self.tokens[start:end], self.loss_mask[start:end]

    def batches(self) -> Iterator[TokenRecords]:
        """All of them in order, some at a time: what `mindrecord.write_records` takes."""
        return itertools.starmap(self.slice, spans(self.lengths))

    def slice(self, start: int, stop: int) -> TokenRecords:
        """The records from `start` to `stop`; their tokens are views."""
        offsets = self.offsets[start : stop + 1]
        tokens = slice(int(offsets[0]), int(offsets[-1]))
        return TokenRecords(self.ids[start:stop], self.tokens[tokens], self.loss_mask[tokens], offsets - offsets[0])

    def select(self, indices: Iterable[int]) -> TokenRecords:
        """The records at `indices`, in that order, as a copy."""
        return from_rows((self.ids[i], *self.record(i)) for i in indices)


def from_rows(rows: Iterable[Row]) -> TokenRecords:
    """Gather (id, tokens, loss mask) rows; token arrays and lists of any integer type are taken."""
    ids: list[str] = []
    # Bytes in one place each: a million small arrays would take more memory than the tokens in them.
    tokens, masks, lengths = bytearray(), bytearray(), array("q")
    for name, row, mask in rows:
        ids.append(name)
        tokens += np.asarray(row, dtype=np.int32).tobytes()
        masks += np.asarray(mask, dtype=np.uint8).tobytes()
        lengths.append(len(row))
    ends = ends_of(np.frombuffer(lengths, np.int64))
    return TokenRecords(ids, np.frombuffer(tokens, np.int32), np.frombuffer(masks, np.uint8), ends)


def spans(lengths: np.ndarray) -> Iterator[tuple[int, int]]:
    """(start, stop) of batches of rows that have these lengths, one after the other."""
    ends = ends_of(lengths)
    start = 0
    while start < len(lengths):
        fitting = int(np.searchsorted(ends, ends[start] + _BATCH_TOKENS, "right")) - 1
        stop = min(max(fitting, start + 1), start + _BATCH)
        yield start, stop
        start = stop


def ends_of(sizes: np.ndarray) -> np.ndarray:
    """int64 (n + 1,): where n things of these sizes begin, one after the other, and where the last ends."""
    ends = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=ends[1:])
    return ends


def empty() -> TokenRecords:
    """No records."""
    return from_rows(())
