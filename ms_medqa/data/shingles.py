"""Texts as hashed n-grams, many at a time in NumPy: what near duplicates and benchmark overlap are found by.

One rule for all languages. A text is NFKC-normalised and case-folded. Its tokens are runs of letters, digits and
combining marks; in scripts written without spaces (Chinese, Japanese kana, Thai, Lao, Burmese, Khmer) every character
is a token of its own. Spaces, punctuation and symbols only separate. So an n-gram is n words of English, n characters
of Chinese, and n of both where they are mixed. A text of nothing but symbols has its characters as tokens.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ms_medqa.data.text import to_nfkc

_GAP, _ALONE, _WORD = 0, 1, 2
# First and last code point of scripts that put no spaces between words. Beyond the table are rare Chinese characters.
_UNSPACED = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x2E80, 0x2FDF), (0x3005, 0x3007)),
    *((0x3041, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)),
)
_TABLE_SIZE, _HAN_BEYOND = 0x20000, (0x20000, 0x3FFFF)
# Arrays of 8 bytes a character that stay in the processor's cache: 1 << 16 takes a quarter longer.
_BATCH_CHARACTERS = 1 << 15
_CHARACTER_BASE = np.uint64(0x9E3779B97F4A7C15)
_TOKEN_BASE = np.uint64(0xD6E8FEB86659FD93)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TokenHashes:
    """The tokens of n texts.

    Attributes:
        hashes: uint64 (total,), one for each token.
        offsets: int64 (n + 1,); text i is `hashes[offsets[i]:offsets[i + 1]]`.
    """

    hashes: np.ndarray
    offsets: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """int64 (n,): tokens of each text."""
        return np.diff(self.offsets)

    def joined(self, first: np.ndarray) -> TokenHashes:
        """The texts joined to fewer: int64 (m + 1,) places of the first text of each, and the number of all texts."""
        return TokenHashes(self.hashes, self.offsets[first])

    def ngrams(self, length: int, whole_if_shorter: bool) -> tuple[np.ndarray, np.ndarray]:
        """The n-grams of each text.

        Args:
            length: tokens in an n-gram.
            whole_if_shorter: a text with fewer tokens counts as one n-gram; else it has none.

        Returns:
            uint64 (total,) hashes of the n-grams, and int64 (n + 1,) offsets as in `offsets`. A hash depends only on
            the tokens and their order.
        """
        counts = self.counts
        grams = np.maximum(counts - length + 1, np.minimum(counts, 1) if whole_if_shorter else 0)
        offsets = np.concatenate([[0], np.cumsum(grams)])
        starts = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1] - offsets[:-1], grams)
        ends = np.repeat(self.offsets[1:], grams)
        result = np.zeros(starts.size, dtype=np.uint64)
        for step in range(length):
            places = starts + step
            inside = places < ends
            token = self.hashes[np.minimum(places, self.hashes.size - 1)] if starts.size else result
            result = np.where(inside, result * _TOKEN_BASE + token, result)
        return mix(result), offsets


def token_hashes(texts: Sequence[str]) -> TokenHashes:
    """The hashed tokens of each text. Takes about 60 bytes a character: give it a few thousand texts at a time."""
    normal = [to_nfkc(text).casefold() for text in texts]
    code_points = np.frombuffer("".join(normal).encode("utf-32-le", "surrogatepass"), dtype="<u4")
    lengths = np.array([len(text) for text in normal], dtype=np.int64)
    text_ends = np.cumsum(lengths)
    kinds = _kinds(code_points)
    text_starts = text_ends - lengths
    bare = _empty_texts(kinds, text_starts, text_ends)
    for index in bare:  # nothing but symbols
        kinds[text_starts[index] : text_ends[index]] = [
            _GAP if character.isspace() else _ALONE for character in normal[index]
        ]
    places = np.flatnonzero(kinds)
    offsets = np.zeros(len(normal) + 1, dtype=np.int64)
    if not places.size:
        return TokenHashes(np.zeros(0, dtype=np.uint64), offsets)
    is_word = kinds == _WORD
    starts = is_word.copy()
    starts[1:] &= ~is_word[:-1]
    inner = text_starts[text_starts < code_points.size]
    starts[inner] = is_word[inner]
    starts |= kinds == _ALONE
    first = np.flatnonzero(starts[places])
    position = np.arange(places.size) - np.repeat(first, np.diff(np.append(first, places.size)))
    powers = np.full(int(position.max()) + 1, _CHARACTER_BASE, dtype=np.uint64)
    powers[0] = 1
    powers = np.multiply.accumulate(powers)
    values = mix(code_points[places].astype(np.uint64) + np.uint64(1)) * powers[position]
    offsets[1:] = np.searchsorted(places[first], text_ends)
    return TokenHashes(mix(np.add.reduceat(values, first)), offsets)


def batches(items: Sequence[T], length: Callable[[T], int]) -> Iterator[tuple[int, Sequence[T]]]:
    """(index of the first, items): runs of about 32,000 characters, so that the arrays stay small.

    Args:
        items: texts, or records of several.
        length: characters of one.
    """
    start = size = 0
    for index, item in enumerate(items):
        size += length(item)
        if size >= _BATCH_CHARACTERS:
            yield start, items[start : index + 1]
            start, size = index + 1, 0
    if start < len(items):
        yield start, items[start:]


def mix(values: np.ndarray) -> np.ndarray:
    """uint64 → uint64, one to one, every bit of the result depending on every bit of the value.

    The finaliser of SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
    """
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _kinds(code_points: np.ndarray) -> np.ndarray:
    kinds = _table()[np.minimum(code_points, _TABLE_SIZE)]
    beyond = code_points >= _TABLE_SIZE
    kinds[beyond & (code_points <= _HAN_BEYOND[1])] = _ALONE
    return kinds


def _empty_texts(kinds: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Indices of the texts that have characters but no token."""
    before = np.concatenate([[0], np.cumsum(kinds != _GAP)])
    return np.flatnonzero((ends > starts) & (before[ends] == before[starts]))


@functools.cache
def _table() -> np.ndarray:
    """uint8 (table size + 1,): what a code point is; the last entry stands for all beyond the table."""
    kinds = [_WORD if unicodedata.category(chr(c))[0] in "LMN" else _GAP for c in range(_TABLE_SIZE)]
    table = np.array([*kinds, _GAP], dtype=np.uint8)
    for first, last in _UNSPACED:
        part = table[first : last + 1]
        part[part == _WORD] = _ALONE
    return table
