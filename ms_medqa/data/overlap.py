"""Training records that overlap an evaluation set: n-grams in common, or near duplicates.

The n-gram rule is that of T. Brown et al., Language Models are Few-Shot Learners, 2020, appendix C, with n = 13.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ms_medqa.data.banding import BUCKET_LIMIT, band_hashes, bands
from ms_medqa.data.example import Example, Record
from ms_medqa.data.minhash import similarity, token_signatures
from ms_medqa.data.shingles import TokenHashes, batches, token_hashes

NGRAM = 13
# A question this short is a phrase like any other; it counts where it is the whole question.
SHORTEST_CONTAINED = 8
# Phrases of exams ("which of the following is the most appropriate next step in management …") tell nothing.
COMMON = 10
_BUILD = 4096


class Overlap(NamedTuple):
    """Why a record overlaps the benchmark.

    Attributes:
        reason: `13-gram`, `question` (a benchmark question of fewer tokens, whole) or `near duplicate`.
        record: name of the benchmark record that it hit, of several the one with most n-grams in common.
    """

    reason: str
    record: str


class BenchmarkIndex:
    """Evaluation records, hashed to find training records that give them away. Immutable.

    Tokens are those of `shingles`: words of English, characters of Chinese. A training record overlaps when

    - one of its texts has `ngram` tokens in a row in common with a text of a benchmark record. N-grams that stand in
      more than `COMMON` different benchmark records are set phrases and do not count;
    - a benchmark question of 8 to `ngram` - 1 tokens stands in one of its texts; a shorter one is its whole question;
    - one of its texts is a near duplicate (MinHash) of a benchmark question, or of another text of `ngram` tokens.

    Memory: 12 bytes for each n-gram and about 0.5 kB for each text.

    Args:
        records: (name, texts) of each benchmark record; the first text is its question, with choices where it has them.
        threshold: smallest estimated Jaccard similarity of near duplicates, 0.5 … 1.
        ngram: tokens in an n-gram, at least 9.
    """

    def __init__(self, records: Iterable[tuple[str, Sequence[str]]], threshold: float, ngram: int = NGRAM) -> None:
        assert ngram > SHORTEST_CONTAINED, ngram
        self._ngram = ngram
        self._names: list[str] = []
        builder = _Builder(ngram)
        iterator = iter(records)
        while block := list(itertools.islice(iterator, _BUILD)):
            builder.add([texts for _, texts in block], first=len(self._names))
            self._names.extend(name for name, _ in block)
        self._grams = {length: _Grams(*found) for length, found in builder.grams().items()}
        self._similar = _Similar(*builder.signatures(), threshold)

    @classmethod
    def from_records(cls, records: Iterable[Record], threshold: float, ngram: int = NGRAM) -> BenchmarkIndex:
        """From records as the readers give them; one is named by its source file and id."""
        return cls(((f"{record.source}:{record.id}", record_texts(record)) for record in records), threshold, ngram)

    def __len__(self) -> int:
        return len(self._names)

    def overlap(self, *texts: str) -> Overlap | None:
        """What one record, given by its texts (the question first), has in common with the benchmark."""
        return self.overlaps([texts])[0]

    def overlaps(self, records: Sequence[Sequence[str]]) -> list[Overlap | None]:
        """`overlap` of many records, each given by its texts; a few thousand at a time go fastest."""
        texts = [text for record in records for text in record]
        ends = np.cumsum([len(record) for record in records], dtype=np.int64)
        is_question = np.array([place == 0 for record in records for place in range(len(record))], dtype=bool)
        hits: list[tuple[str, int] | None] = []
        for start, batch in batches(texts, len):
            hits += self._hits(token_hashes(batch), is_question[start : start + len(batch)])
        result: list[Overlap | None] = []
        start = 0
        for end in ends.tolist():
            hit = next((hit for hit in hits[start:end] if hit is not None), None)
            result.append(hit and Overlap(hit[0], self._names[hit[1]]))
            start = end
        return result

    def _hits(self, tokens: TokenHashes, is_question: np.ndarray) -> list[tuple[str, int] | None]:
        counts = tokens.counts
        owners = np.full(counts.size, -1, dtype=np.int64)
        reasons = np.zeros(counts.size, dtype=np.int8)
        for length in sorted(self._grams, reverse=True):
            found = self._grams[length].find(*tokens.ngrams(length, whole_if_shorter=False))
            if length < SHORTEST_CONTAINED:
                found[~is_question | (counts != length)] = -1
            new = (owners < 0) & (found >= 0)
            owners[new] = found[new]
            reasons[new] = length < self._ngram
        open_ = np.flatnonzero((owners < 0) & (counts > 0) & (is_question | (counts >= self._ngram)))
        if open_.size:
            owners[open_] = self._similar.find(token_signatures(tokens)[open_])
            reasons[open_] = 2
        names = (f"{self._ngram}-gram", "question", "near duplicate")
        return [
            (names[reason], owner) if owner >= 0 else None
            for reason, owner in zip(reasons.tolist(), owners.tolist(), strict=True)
        ]


def record_texts(record: Record) -> tuple[str, ...]:
    """The texts of a record that can give away an evaluation: the first question with its choices, then the others.

    Context and system text are left out: many records share them.
    """
    if not isinstance(record, Example):
        return (record.text,)
    turns = [text for turn in (*record.history, (record.question, record.answer)) for text in turn]
    missing = [choice for choice in record.choices or () if choice not in turns[0]]
    return ("\n".join([turns[0], *missing]), *turns[1:])


class _Builder:
    """Gathers the hashes of the benchmark's texts, each with the record's index."""

    def __init__(self, ngram: int) -> None:
        self._ngram = ngram
        self._grams: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
        self._signatures: list[tuple[np.ndarray, np.ndarray]] = []
        self._seen: set[bytes] = set()

    def add(self, records: Sequence[Sequence[str]], first: int) -> None:
        texts = [text for record in records for text in record]
        owners = first + np.repeat(np.arange(len(records)), [len(record) for record in records])
        is_question = np.concatenate([[True], owners[1:] != owners[:-1]]) if texts else np.zeros(0, dtype=bool)
        for start, batch in batches(texts, len):
            part = slice(start, start + len(batch))
            self._add_texts(token_hashes(batch), owners[part], is_question[part])

    def _add_texts(self, tokens: TokenHashes, owners: np.ndarray, is_question: np.ndarray) -> None:
        counts = tokens.counts
        # The same text once more would make its n-grams common.
        fresh = np.zeros(counts.size, dtype=bool)
        for index, (start, end) in enumerate(itertools.pairwise(tokens.offsets.tolist())):
            digest = hashlib.blake2b(tokens.hashes[start:end].tobytes(), digest_size=16).digest()
            fresh[index] = digest not in self._seen
            self._seen.add(digest)
        self._add_grams(tokens, self._ngram, owners, fresh & (counts >= self._ngram))
        for length in np.unique(counts[fresh & is_question & (counts < self._ngram) & (counts > 0)]).tolist():
            self._add_grams(tokens, length, owners, fresh & is_question & (counts == length))
        chosen = fresh & (counts > 0) & (is_question | (counts >= self._ngram))
        self._signatures.append((token_signatures(tokens)[chosen], owners[chosen]))

    def _add_grams(self, tokens: TokenHashes, length: int, owners: np.ndarray, chosen: np.ndarray) -> None:
        hashes, offsets = tokens.ngrams(length, whole_if_shorter=False)
        each = np.diff(offsets)
        kept = np.repeat(chosen, each)
        found = (hashes[kept], np.repeat(owners, each)[kept].astype(np.int32))
        self._grams.setdefault(length, []).append(found)

    def grams(self) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """Length → uint64 (m,) sorted hashes and int32 (m,) the first record with each, common ones left out."""
        return {
            length: _sorted_unique(*map(np.concatenate, zip(*parts, strict=True)))
            for length, parts in self._grams.items()
        }

    def signatures(self) -> tuple[np.ndarray, np.ndarray]:
        empty = token_signatures(token_hashes([]))
        parts = self._signatures or [(empty, np.zeros(0, dtype=np.int64))]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


class _Grams:
    """Sorted hashes, each with the index of a benchmark record."""

    def __init__(self, hashes: np.ndarray, owners: np.ndarray) -> None:
        self._hashes = hashes
        self._owners = owners

    def find(self, hashes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """int64 (n,): the record that most of a text's hashes lead to (of equals the first), or -1."""
        result = np.full(offsets.size - 1, -1, dtype=np.int64)
        if not self._hashes.size or not hashes.size:
            return result
        places = np.minimum(np.searchsorted(self._hashes, hashes), self._hashes.size - 1)
        known = np.flatnonzero(self._hashes[places] == hashes)
        texts = np.searchsorted(offsets, known, side="right") - 1
        pairs, counts = np.unique(np.stack([texts, self._owners[places[known]]]), axis=1, return_counts=True)
        # From the worst to the best, so that the best stays.
        order = np.lexsort((-pairs[1], counts))
        result[pairs[0, order]] = pairs[1, order]
        return result


class _Similar:
    """Signatures in the order of each band's hash."""

    def __init__(self, signatures: np.ndarray, owners: np.ndarray, threshold: float) -> None:
        self._signatures = signatures
        self._owners = owners
        self._threshold = threshold
        self._bands: list[tuple[np.ndarray, np.ndarray]] = []
        count, self._rows = bands(signatures.shape[1], threshold)
        for band in range(count):
            hashes = band_hashes(signatures, band, self._rows)
            order = np.argsort(hashes, kind="stable")
            self._bands.append((hashes[order], order.astype(np.int32)))

    def find(self, signatures: np.ndarray) -> np.ndarray:
        """int64 (n,): the benchmark record that each signature is near, or -1."""
        result = np.full(len(signatures), -1, dtype=np.int64)
        for band, (hashes, order) in enumerate(self._bands):
            wanted = band_hashes(signatures, band, self._rows)
            places, ends = np.searchsorted(hashes, wanted), np.searchsorted(hashes, wanted, side="right")
            for step in range(BUCKET_LIMIT):
                active = np.flatnonzero((result < 0) & (places + step < ends))
                if not active.size:
                    break
                candidates = order[places[active] + step]
                near = similarity(signatures[active], self._signatures[candidates]) >= self._threshold - 1e-9
                result[active[near]] = self._owners[candidates[near]]
        return result


def _sorted_unique(hashes: np.ndarray, owners: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    order = np.lexsort((owners, hashes))
    hashes, owners = hashes[order], owners[order]
    new_hash = np.concatenate([[True], hashes[1:] != hashes[:-1]])[: hashes.size]
    new_pair = new_hash | np.concatenate([[True], owners[1:] != owners[:-1]])[: hashes.size]
    first = np.flatnonzero(new_hash)
    records = np.add.reduceat(new_pair.astype(np.int64), first) if first.size else first
    kept = first[records <= COMMON]
    return hashes[kept], owners[kept]
