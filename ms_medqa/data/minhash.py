"""Near duplicates by MinHash: signatures whose share of equal entries estimates the Jaccard similarity of two texts.

Sources: A. Broder, On the resemblance and containment of documents, 1997 (MinHash); J. Leskovec, A. Rajaraman,
J. Ullman, Mining of Massive Datasets, section 3.4 (banding). The hash functions are x → a·x + b mod 2³² with odd a of
values that are hashes already: NumPy takes half the time of 64 bits, and the estimate's error is that of the theory.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from ms_medqa.data.shingles import TokenHashes, batches, mix, token_hashes
from ms_medqa.data.union_find import UnionFind

NUM_PERM = 64
SHINGLE = 3
NONE = np.uint32(0xFFFFFFFF)
# In one bucket each text is compared with so many others at most: more share a band only in data made from a template.
BUCKET_LIMIT = 128
_CHUNK = 1 << 15
_COUNTED = 248


def signature(text: str, num_perm: int = NUM_PERM) -> np.ndarray:
    """The MinHash signature of one text, uint32 (num_perm,); see `signatures`."""
    return signatures([text], num_perm)[0]


def signatures(texts: Sequence[str], num_perm: int = NUM_PERM) -> np.ndarray:
    """The MinHash signatures of texts over their token 3-grams (`shingles` says what a token is).

    A text of one or two tokens is one shingle. The same text gives the same signature on every machine.

    Args:
        texts: n texts.
        num_perm: hash functions, at most 1024; the estimate's standard error is at most 0.5 / √num_perm.

    Returns:
        uint32 (n, num_perm); all entries of a text without any character but space are 0xFFFFFFFF.
    """
    result = np.empty((len(texts), num_perm), dtype=np.uint32)
    for start, batch in batches(texts, len):
        result[start : start + len(batch)] = token_signatures(token_hashes(batch), num_perm)
    return result


def token_signatures(tokens: TokenHashes, num_perm: int = NUM_PERM) -> np.ndarray:
    """`signatures` of n texts whose tokens are known: uint32 (n, num_perm)."""
    return _minima(*tokens.ngrams(SHINGLE, whole_if_shorter=True), num_perm)


def record_signatures(records: Sequence[Sequence[str]], num_perm: int = NUM_PERM) -> np.ndarray:
    """The signatures of the first text of each record, and of all its texts one after the other.

    The first is hashed once for both: its n-grams are some of the whole's.

    Args:
        records: n records of one or more texts.
        num_perm: as in `signatures`.

    Returns:
        uint32 (n, 2, num_perm).
    """
    result = np.empty((len(records), 2, num_perm), dtype=np.uint32)
    for start, batch in batches(records, lambda texts: sum(map(len, texts))):
        tokens = token_hashes([text for texts in batch for text in texts])
        first = np.cumsum([0, *map(len, batch)])
        hashes, offsets = tokens.joined(first).ngrams(SHINGLE, whole_if_shorter=True)
        counts = tokens.counts[first[:-1]]
        # Two spans for each record: the n-grams inside its first text, and the others.
        spans = np.append(np.stack([offsets[:-1], offsets[:-1] + np.maximum(counts - SHINGLE + 1, 0)], 1), offsets[-1])
        least = _minima(hashes, spans, num_perm).reshape(-1, 2, num_perm)
        found = result[start : start + len(batch)]
        found[:, 0], found[:, 1] = least[:, 0], least.min(axis=1)
        short = np.flatnonzero((counts > 0) & (counts < SHINGLE))
        if short.size:
            found[short, 0] = signatures([batch[index][0] for index in short], num_perm)
    return result


def similarity(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The estimated Jaccard similarity of signatures: float (…) for uint32 (…, num_perm), broadcast."""
    return np.count_nonzero(first == second, axis=-1) / first.shape[-1]


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
    first, distinct = _distinct(signatures)
    best = np.full(len(signatures), len(signatures), dtype=np.int64)
    comparison = _Comparison(signatures, threshold)
    for buckets in _each_band(signatures, distinct, threshold):
        pending = np.ones(buckets.members.size, dtype=bool)
        for earlier, later, places in buckets.pairs(pending):
            useful = earlier < best[later]
            near = comparison.near(earlier[useful], later[useful])
            found = later[useful][near]
            best[found] = np.minimum(best[found], earlier[useful][near])
            # Members stand in the order of their indices: what follows in this bucket is no earlier one.
            pending[places[~useful]] = False
            pending[places[useful][near]] = False
    best[best == len(signatures)] = -1
    copies = first != np.arange(len(first))
    origin = first[copies]
    best[copies] = np.where(best[origin] >= 0, best[origin], origin)
    return best


def clusters(signatures: np.ndarray, threshold: float) -> np.ndarray:
    """The cluster of each text: texts linked by a chain of near duplicates (single linkage).

    Args and limits as for `near_duplicates`.

    Returns:
        int64 (n,): the smallest index in the text's cluster, its own where it stands alone.
    """
    first, distinct = _distinct(signatures)
    groups = UnionFind(len(signatures))
    comparison = _Comparison(signatures, threshold)
    for buckets in _each_band(signatures, distinct, threshold):
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


def _each_band(signatures: np.ndarray, distinct: np.ndarray, threshold: float) -> Iterator[_Buckets]:
    """The buckets of each band; the next ones are sorted while the caller is busy with these."""
    count, rows = bands(signatures.shape[1], threshold)
    chosen = None if distinct.size == len(signatures) else distinct
    # NumPy hashes and sorts without the interpreter's lock.
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(_sorted_band, signatures, 0, rows, chosen)
        for band in range(count):
            order, hashes = coming.result()
            if band + 1 < count:
                coming = ahead.submit(_sorted_band, signatures, band + 1, rows, chosen)
            changes = np.flatnonzero(np.concatenate([[True], hashes[1:] != hashes[:-1]])) if hashes.size else order
            sizes = np.diff(np.append(changes, hashes.size))
            shared = np.repeat(sizes > 1, sizes)
            sizes = sizes[sizes > 1]
            starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if sizes.size else sizes
            yield _Buckets(distinct[order[shared]], np.repeat(starts, sizes))


def _sorted_band(
    signatures: np.ndarray, band: int, rows: int, chosen: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """The order of a band's hashes, and the hashes in it."""
    hashes = band_hashes(signatures, band, rows, chosen)
    order = np.argsort(hashes, kind="stable")
    return order, hashes[order]


def _distinct(signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64 (n,) index of the first text with the same signature, and int64 (m,) those that are their own first."""
    count = len(signatures)
    hashes = band_hashes(signatures, 0, signatures.shape[1])
    order = np.argsort(hashes, kind="stable")
    fresh = np.concatenate([[True], hashes[order[1:]] != hashes[order[:-1]]]) if count else np.zeros(0, dtype=bool)
    first = np.empty(count, dtype=np.int64)
    first[order] = order[np.flatnonzero(fresh)[np.cumsum(fresh) - 1]]
    copies = np.flatnonzero(first != np.arange(count))
    for start in range(0, copies.size, _CHUNK):  # two signatures may share a hash
        part = copies[start : start + _CHUNK]
        equal = (signatures[part] == signatures[first[part]]).all(axis=1)
        first[part[~equal]] = part[~equal]
    return first, np.flatnonzero(first == np.arange(count))


class _Comparison:
    """Compares pairs of signatures, first by the lowest byte of each entry: 64 bytes a text, which mostly lie in the
    processor's cache, decide nearly all pairs that share a band and are not alike (b-bit minwise hashing: P. Li,
    A. C. König, 2010).

    Args:
        signatures: uint32 (n, num_perm).
        threshold: smallest similarity of near ones.
    """

    def __init__(self, signatures: np.ndarray, threshold: float) -> None:
        self._signatures = np.asarray(signatures)
        self._threshold = threshold - 1e-9
        count, columns = self._signatures.shape
        # Of more columns than a byte can count, the first; padded to whole words of eight bytes, which are all equal.
        used = min(columns, _COUNTED)
        self._low = np.zeros((count, -(-used // 8)), np.uint64)
        low = self._low.view(np.uint8)
        for start in range(0, count, _CHUNK):
            low[start : start + _CHUNK, :used] = self._signatures[start : start + _CHUNK, :used] & np.uint32(0xFF)

    def near(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """bool (m,): whether the texts first[i] and second[i] are near."""
        result = np.zeros(first.size, dtype=bool)
        # `take` gathers rows several times as fast as an index does, from a memmap above all.
        unlike = (np.take(self._low, first, axis=0) ^ np.take(self._low, second, axis=0)).view(np.uint8)
        ones = (unlike != 0).view(np.uint64).sum(axis=1)
        # Multiplied so, the highest byte is the sum of all eight.
        different = (ones * np.uint64(0x0101010101010101)) >> np.uint64(56)
        maybe = np.flatnonzero(1 - different / self._signatures.shape[1] >= self._threshold)
        pairs = (np.take(self._signatures, side[maybe], axis=0) for side in (first, second))
        result[maybe] = similarity(*pairs) >= self._threshold
        return result


@functools.cache
def _functions(num_perm: int) -> tuple[np.ndarray, np.ndarray]:
    """uint64 (num_perm,) odd factors and terms, from a counter: no random generator whose stream may change."""
    values = _high(mix(np.arange(1, 2 * num_perm + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)))
    return values[:num_perm] | np.uint32(1), values[num_perm:]


def _minima(hashes: np.ndarray, offsets: np.ndarray, num_perm: int) -> np.ndarray:
    """The smallest value of each function over each of n spans of hashes: uint32 (n, num_perm), `NONE` for no hash.

    Args:
        hashes: uint64 (total,).
        offsets: int64 (n + 1,), where the spans begin and the last ends.
        num_perm: functions.
    """
    factors, terms = _functions(num_perm)
    result = np.full((offsets.size - 1, num_perm), NONE, dtype=np.uint32)
    values = _high(hashes)
    owners = np.repeat(np.arange(len(result)), np.diff(offsets))
    # Blocks keep the work in the cache.
    for start in range(0, values.size, _CHUNK):
        block = values[start : start + _CHUNK]
        owner = owners[start : start + _CHUNK]
        firsts = np.flatnonzero(np.concatenate([[True], owner[1:] != owner[:-1]]))
        spans = owner[firsts]
        work = np.empty_like(block)
        # Written into the result at once: a column of it at a time takes a sixth of the whole.
        least = np.empty((num_perm, spans.size), dtype=np.uint32)
        for column in range(num_perm):
            np.multiply(block, factors[column], out=work)
            np.add(work, terms[column], out=work)
            np.minimum.reduceat(work, firsts, out=least[column])
        result[spans] = np.minimum(result[spans], least.T)
    return result


def _high(values: np.ndarray) -> np.ndarray:
    """uint32: the upper halves of uint64."""
    return (values >> np.uint64(32)).astype(np.uint32)
