"""Near duplicates among many MinHash signatures: by banding, without comparing each with each.

Sources: J. Leskovec, A. Rajaraman, J. Ullman, Mining of Massive Datasets, section 3.4 (banding); P. Li, A. C. König,
b-bit minwise hashing, 2010 (comparing the lowest bits).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ms_medqa.data.minhash import similarity
from ms_medqa.data.shingles import mix
from ms_medqa.data.union_find import UnionFind

# In one bucket each text is compared with so many others at most: more share a band only in data made from a template.
BUCKET_LIMIT = 128
_CHUNK = 1 << 15
# Columns that one byte can count, in whole words of eight.
_COUNTED = 248


def near_duplicates(signatures: np.ndarray, threshold: float) -> np.ndarray:
    """The first earlier text that each text is a near duplicate of.

    Banding is set so that for thresholds from 0.54 no pair at or above the threshold is missed (at 0.5 fewer than one
    in a thousand), except in buckets of more than `BUCKET_LIMIT` different texts, where each is compared with the
    first `BUCKET_LIMIT` ones. Equal signatures are always found. Memory beside the signatures: about 100 bytes a text.

    Args:
        signatures: uint32 (n, num_perm), in memory or a memmap, which is read a column range at a time.
        threshold: 0.5 … 1, the smallest estimated similarity of near duplicates.

    Returns:
        int64 (n,): an index smaller than the text's own, or -1.
    """
    table = _Table(signatures)
    first, distinct = _distinct(table)
    best = np.full(len(table), len(table), dtype=np.int64)
    comparison = _Comparison(table, threshold)
    for buckets in _each_band(table, distinct, threshold):
        pending = np.ones(buckets.members.size, dtype=bool)
        for earlier, later, places in buckets.pairs(pending):
            useful = earlier < best[later]
            near = comparison.near(earlier[useful], later[useful])
            found = later[useful][near]
            best[found] = np.minimum(best[found], earlier[useful][near])
            # Members stand in the order of their indices: what follows in this bucket is no earlier one.
            pending[places[~useful]] = False
            pending[places[useful][near]] = False
    best[best == len(table)] = -1
    copies = first != np.arange(len(first))
    origin = first[copies]
    best[copies] = np.where(best[origin] >= 0, best[origin], origin)
    return best


def clusters(signatures: np.ndarray, threshold: float, among: np.ndarray | None = None) -> np.ndarray:
    """The cluster of each text: texts linked by a chain of near duplicates (single linkage).

    Limits as for `near_duplicates`.

    Args:
        signatures: uint32 (n, num_perm), of all texts.
        threshold: 0.5 … 1, the smallest estimated similarity of near duplicates.
        among: int64 (m,), rising, those that count; None for all.

    Returns:
        int64 (m,): the first place in the text's cluster, its own where it stands alone; places are counted among those
        that count.
    """
    table = _Table(signatures, among)
    first, distinct = _distinct(table)
    groups = UnionFind(len(table))
    comparison = _Comparison(table, threshold)
    for buckets in _each_band(table, distinct, threshold):
        for earlier, later, _ in buckets.pairs(np.ones(buckets.members.size, dtype=bool)):
            apart = groups.find(earlier) != groups.find(later)
            earlier, later = earlier[apart], later[apart]
            near = comparison.near(earlier, later)
            groups.union(earlier[near], later[near])
    return groups.labels()[first]


def bands(num_perm: int, threshold: float) -> tuple[int, int]:
    """(number of bands, rows in each): two signatures at the threshold agree in at least one band.

    By the pigeonhole principle this is certain when there are more bands than entries that may differ. Two rows are the
    least, for bands of one row would put unlike texts together.
    """
    assert 0.5 <= threshold <= 1, threshold
    differing = num_perm - math.ceil(threshold * num_perm - 1e-9)
    rows = max(2, num_perm // (differing + 1))
    return num_perm // rows, rows


def band_hashes(signatures: np.ndarray, band: int, rows: int, indices: np.ndarray | None = None) -> np.ndarray:
    """uint64 (m,): one hash of columns `band * rows … + rows` for each signature, or for those at `indices`."""
    count = len(signatures) if indices is None else len(indices)
    result = np.empty(count, dtype=np.uint64)
    for start in range(0, count, _CHUNK):
        chosen = slice(start, start + _CHUNK) if indices is None else indices[start : start + _CHUNK]
        block = np.asarray(signatures[chosen, band * rows : (band + 1) * rows])
        value = np.zeros(len(block), dtype=np.uint64)
        for column in range(block.shape[1]):
            value = mix(value + block[:, column] + np.uint64(0x9E3779B97F4A7C15))
        result[start : start + _CHUNK] = value
    return result


class _Table:
    """Signatures by their place among those that count.

    Args:
        signatures: uint32 (n, num_perm).
        among: int64 (m,), rising, those that count; None for all.
    """

    def __init__(self, signatures: np.ndarray, among: np.ndarray | None = None) -> None:
        # Not a memmap, of which each part that is taken is one again, and slowly.
        self._signatures = np.asarray(signatures)
        self._among = None if among is None or len(among) == len(signatures) else among
        self.width = signatures.shape[1]

    def __len__(self) -> int:
        return len(self._signatures) if self._among is None else len(self._among)

    def take(self, places: np.ndarray) -> np.ndarray:
        """uint32 (k, num_perm): a copy."""
        # `take` gathers rows several times as fast as an index does, from a memmap above all.
        return np.take(self._signatures, places if self._among is None else self._among[places], axis=0)

    def band_hashes(self, band: int, rows: int, places: np.ndarray | None = None) -> np.ndarray:
        """`band_hashes` of those at `places`, or of all."""
        if self._among is not None:
            places = self._among if places is None else self._among[places]
        return band_hashes(self._signatures, band, rows, places)


class _Buckets:
    """The texts that share a band with another one.

    Attributes:
        members: int64 (m,), their indices, sorted by band hash, then index.
        starts: int64 (m,), for each the place in `members` where its bucket begins.
    """

    def __init__(self, members: np.ndarray, starts: np.ndarray) -> None:
        self.members = members
        self.starts = starts

    def pairs(self, pending: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """(earlier, later, place of the later in `members`), with the first member of each bucket, then the second, …

        A place that the caller sets to False in `pending` comes no more.
        """
        places = np.arange(self.members.size)
        for step in range(BUCKET_LIMIT):
            places = places[pending[places] & (self.starts[places] + step < places)]
            if not places.size:
                return
            for start in range(0, places.size, _CHUNK):
                part = places[start : start + _CHUNK]
                yield self.members[self.starts[part] + step], self.members[part], part


def _each_band(table: _Table, distinct: np.ndarray, threshold: float) -> Iterator[_Buckets]:
    """The buckets of each band; the next ones are sorted while the caller is busy with these."""
    count, rows = bands(table.width, threshold)
    chosen = None if distinct.size == len(table) else distinct
    # NumPy hashes and sorts without the interpreter's lock.
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(_sorted_band, table, 0, rows, chosen)
        for band in range(count):
            order, hashes = coming.result()
            if band + 1 < count:
                coming = ahead.submit(_sorted_band, table, band + 1, rows, chosen)
            changes = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])) if hashes.size else order
            sizes = np.diff(np.append(changes, hashes.size))
            shared = np.repeat(sizes > 1, sizes)
            sizes = sizes[sizes > 1]
            starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if sizes.size else sizes
            yield _Buckets(distinct[order[shared]], np.repeat(starts, sizes))


def _sorted_band(table: _Table, band: int, rows: int, chosen: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """The order of a band's hashes, and the hashes in it."""
    hashes = table.band_hashes(band, rows, chosen)
    order = np.argsort(hashes, kind="stable")
    return order, hashes[order]


def _distinct(table: _Table) -> tuple[np.ndarray, np.ndarray]:
    """int64 (n,) place of the first text with the same signature, and int64 (m,) those that are their own first."""
    count = len(table)
    hashes = table.band_hashes(0, table.width)
    order = np.argsort(hashes, kind="stable")
    fresh = np.concatenate([[True], hashes[order[1:]] != hashes[order[:-1]]]) if count else np.zeros(0, dtype=bool)
    first = np.empty(count, dtype=np.int64)
    first[order] = order[np.flatnonzero(fresh)[np.cumsum(fresh) - 1]]
    copies = np.flatnonzero(first != np.arange(count))
    for start in range(0, copies.size, _CHUNK):  # two signatures may share a hash
        part = copies[start : start + _CHUNK]
        equal = (table.take(part) == table.take(first[part])).all(axis=1)
        first[part[~equal]] = part[~equal]
    return first, np.flatnonzero(first == np.arange(count))


class _Comparison:
    """Compares pairs of signatures, first by the lowest byte of each entry: 64 bytes a text, which mostly lie in the
    processor's cache, decide nearly all pairs that share a band and are not alike.

    Args:
        table: the signatures.
        threshold: smallest similarity of near ones.
    """

    def __init__(self, table: _Table, threshold: float) -> None:
        self._table = table
        self._threshold = threshold - 1e-9
        # Of more columns than a byte can count, the first; padded to whole words of eight bytes, which are all equal.
        used = min(table.width, _COUNTED)
        self._low = np.zeros((len(table), -(-used // 8)), np.uint64)
        low = self._low.view(np.uint8)
        for start in range(0, len(table), _CHUNK):
            places = np.arange(start, min(start + _CHUNK, len(table)))
            low[places[0] : places[-1] + 1, :used] = table.take(places)[:, :used] & np.uint32(0xFF)

    def near(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """bool (m,): whether the texts first[i] and second[i] are near."""
        result = np.zeros(first.size, dtype=bool)
        unlike = (np.take(self._low, first, axis=0) ^ np.take(self._low, second, axis=0)).view(np.uint8)
        ones = (unlike != 0).view(np.uint64).sum(axis=1)
        # Multiplied so, the highest byte is the sum of all eight.
        different = (ones * np.uint64(0x0101010101010101)) >> np.uint64(56)
        maybe = np.flatnonzero(1 - different / self._table.width >= self._threshold)
        result[maybe] = similarity(*(self._table.take(side[maybe]) for side in (first, second))) >= self._threshold
        return result
