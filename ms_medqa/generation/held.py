"""What a row of the cache holds, by which a prompt that begins alike is not read from the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A shorter common start is read again: finding and copying it would not pay.
SHORTEST_SHARED = 16


@dataclass(frozen=True, slots=True)
class Held:
    """What a row's cache holds, or is wanted to hold.

    Attributes:
        tokens: int32 (n,), of its first positions.
        adapter: with which they were read.
    """

    tokens: np.ndarray
    adapter: str | None

    @classmethod
    def of(cls, tokens: Sequence[int], adapter: str | None) -> Held:
        return cls(np.asarray(tokens, np.int32), adapter)

    def cut(self, size: int) -> Held:
        """Its first tokens."""
        return Held(self.tokens[:size], self.adapter)

    def common(self, other: Held) -> int:
        """How many tokens two have in common from the start."""
        if self.adapter != other.adapter:
            return 0
        size = min(len(self.tokens), len(other.tokens))
        different = np.flatnonzero(self.tokens[:size] != other.tokens[:size])
        return int(different[0]) if len(different) else size


NOTHING = Held(np.zeros(0, np.int32), None)
