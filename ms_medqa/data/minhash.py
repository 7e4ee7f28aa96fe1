"""Near duplicates by MinHash: signatures whose share of equal entries estimates the Jaccard similarity of two texts.

Sources: A. Broder, On the resemblance and containment of documents, 1997 (MinHash); J. Leskovec, A. Rajaraman,
J. Ullman, Mining of Massive Datasets, section 3.3. The hash functions are x → a·x + b mod 2³² with odd a of values that
are hashes already: NumPy takes half the time of 64 bits, and the estimate's error is that of the theory.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np

from ms_medqa.data.shingles import TokenHashes, batches, mix, token_hashes

NUM_PERM = 64
SHINGLE = 3
NONE = np.uint32(0xFFFFFFFF)
_CHUNK = 1 << 15


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


@functools.cache
def _functions(num_perm: int) -> tuple[np.ndarray, np.ndarray]:
    """uint32 (num_perm,) odd factors and terms, from a counter: no random generator whose stream may change."""
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
