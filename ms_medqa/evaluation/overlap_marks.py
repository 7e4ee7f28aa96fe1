"""Phrases and questions of an evaluation, with marks of what has been found in training texts."""

from __future__ import annotations

import numpy as np

from ms_medqa.data.banding import BUCKET_LIMIT, band_hashes, bands
from ms_medqa.data.minhash import NONE, similarity
from ms_medqa.data.overlap import COMMON
from ms_medqa.data.shingles import TokenHashes


class PhraseBuilder:
    """Gathers phrases, each with the group of items that it stands in."""

    def __init__(self) -> None:
        self._found: dict[int, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}

    def add(self, tokens: TokenHashes, length: int, groups: np.ndarray, *, always: bool, whole: bool = False) -> None:
        """Add the n-grams of n texts.

        Args:
            tokens: of the texts.
            length: tokens in an n-gram.
            groups: int32 (n,), the group of each text.
            always: they count however common they are.
            whole: only of texts that are one n-gram.
        """
        if whole and not (tokens.counts == length).any():
            return
        hashes, offsets = tokens.ngrams(length, whole_if_shorter=False)
        each = np.diff(offsets)
        kept = np.repeat(tokens.counts == length, each) if whole else slice(None)
        owners = np.repeat(groups, each)[kept]
        self._found.setdefault(length, []).append((hashes[kept], owners, np.full(owners.size, always)))

    def phrases(self, group_of: np.ndarray) -> dict[int, PhraseMarks]:
        """Length → the phrases; `group_of` is int32 (n,), the group of each item."""
        return {
            length: PhraseMarks(length, *map(np.concatenate, zip(*parts, strict=True)), group_of)
            for length, parts in self._found.items()
        }


class PhraseMarks:
    """Phrases of one length, and in how many training records each has been found, at most `COMMON` + 1.

    Args:
        length: tokens.
        hashes: uint64 (m,), a phrase each.
        groups: int32 (m,), a group of items that it stands in.
        always: bool (m,), whether it counts however common it is.
        group_of: int32 (n,), the group of each item.
    """

    def __init__(
        self, length: int, hashes: np.ndarray, groups: np.ndarray, always: np.ndarray, group_of: np.ndarray
    ) -> None:
        self._length = length
        self._group_of = group_of
        order = np.lexsort((groups, always, hashes))
        hashes, groups, always = hashes[order], groups[order], always[order]
        new = np.ones(hashes.size, dtype=bool)
        new[1:] = (hashes[1:] != hashes[:-1]) | (always[1:] != always[:-1]) | (groups[1:] != groups[:-1])
        hashes, groups, always = hashes[new], groups[new], always[new]
        places = np.unique(hashes, return_inverse=True)[1]
        kept = always | (np.bincount(places[~always], minlength=hashes.size) <= COMMON)[places]
        self._hashes, places = np.unique(hashes[kept], return_inverse=True)
        self._places, self._groups, self._always = places.astype(np.int32), groups[kept], always[kept]
        self._records = np.zeros(self._hashes.size, dtype=np.uint8)

    def find(self, tokens: TokenHashes, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which of n texts have which phrases.

        Args:
            tokens: of the texts.
            owners: int64 (n,), the record of each.

        Returns:
            int64 (k,) records and int64 (k,) phrases; each pair once.
        """
        hashes, offsets = tokens.ngrams(self._length, whole_if_shorter=False)
        if not self._hashes.size or not hashes.size:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        places = np.minimum(np.searchsorted(self._hashes, hashes), self._hashes.size - 1)
        known = np.flatnonzero(self._hashes[places] == hashes)
        texts = np.searchsorted(offsets, known, side="right") - 1
        pairs = np.unique(owners[texts] * self._hashes.size + places[known])
        return pairs // self._hashes.size, pairs % self._hashes.size

    def is_rare(self, places: np.ndarray) -> np.ndarray:
        """bool (k,): whether one more record with these phrases says anything."""
        return self._records[places] <= COMMON

    def count(self, places: np.ndarray) -> None:
        """One more record has had each of these phrases, int64 (k,); a phrase may come several times."""
        found, times = np.unique(places, return_counts=True)
        self._records[found] = np.minimum(self._records[found] + times, COMMON + 1)

    def items_hit(self) -> np.ndarray:
        """bool (n,): whether a phrase of the item that tells something has been found."""
        times = self._records[self._places]
        hit = np.zeros(self._group_of.size, dtype=bool)
        hit[self._groups[(times > 0) & (self._always | (times <= COMMON))]] = True
        return hit[self._group_of]


class NearMarks:
    """Questions by their MinHash signatures, with marks at those that a training question has been near.

    Args:
        signatures: uint32 (n, num_perm), of the questions.
        threshold: smallest estimated Jaccard similarity, 0.5 … 1.
    """

    def __init__(self, signatures: np.ndarray, threshold: float) -> None:
        self._threshold = threshold
        self._signatures, self._place = np.unique(signatures, axis=0, return_inverse=True)
        self._place = self._place.reshape(-1)
        self._marked = np.zeros(len(self._signatures), dtype=bool)
        self._empty = (self._signatures == NONE).all(axis=1)
        self._bands: list[tuple[np.ndarray, np.ndarray]] = []
        count, self._rows = bands(signatures.shape[1], threshold)
        for band in range(count):
            hashes = band_hashes(self._signatures, band, self._rows)
            order = np.argsort(hashes, kind="stable")
            self._bands.append((hashes[order], order))

    def mark(self, signatures: np.ndarray) -> None:
        """Mark the questions that are near one of these, uint32 (m, num_perm)."""
        for band, (hashes, order) in enumerate(self._bands):
            wanted = band_hashes(signatures, band, self._rows)
            places, ends = np.searchsorted(hashes, wanted), np.searchsorted(hashes, wanted, side="right")
            for step in range(BUCKET_LIMIT):
                active = np.flatnonzero(places + step < ends)
                if not active.size:
                    break
                candidates = order[places[active] + step]
                unknown = ~self._marked[candidates]
                candidates, active = candidates[unknown], active[unknown]
                near = similarity(signatures[active], self._signatures[candidates]) >= self._threshold - 1e-9
                self._marked[candidates[near]] = True

    def items_hit(self) -> np.ndarray:
        """bool (n,): whether the question has been marked; one without any token never is."""
        return (self._marked & ~self._empty)[self._place]
