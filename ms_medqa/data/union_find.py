"""Disjoint sets over array indices, joined many pairs at a time."""

from __future__ import annotations

import numpy as np


class UnionFind:
    """n sets of one member each, to be joined. A set is named by its smallest member.

    Args:
        count: n.
    """

    def __init__(self, count: int) -> None:
        self._parents = np.arange(count, dtype=np.int64)

    def find(self, members: np.ndarray) -> np.ndarray:
        """int64 (m,): the smallest member of each member's set."""
        roots = self._parents[members]
        while True:
            above = self._parents[roots]
            if np.array_equal(above, roots):
                # So that the next way is short.
                self._parents[members] = roots
                return roots
            roots = above

    def union(self, first: np.ndarray, second: np.ndarray) -> None:
        """Joins the sets of first[i] and second[i], for every i."""
        while first.size:
            a, b = self.find(first), self.find(second)
            apart = a != b
            first, second, a, b = first[apart], second[apart], a[apart], b[apart]
            # A root that meets several others takes the smallest; the next round joins the rest.
            np.minimum.at(self._parents, np.maximum(a, b), np.minimum(a, b))

    def labels(self) -> np.ndarray:
        """int64 (n,): the smallest member of each index's set."""
        return self.find(np.arange(self._parents.size))
