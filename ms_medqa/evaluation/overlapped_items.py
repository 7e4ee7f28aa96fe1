"""Which items of an evaluation stand in the training data: the rules of `convert --benchmark`, asked of the items.

`BenchmarkIndex` finds the training records that give any item away and names one item for each. To count items, what
is found is marked at the items' own n-grams, so that one pass over the training data tells all items that are hit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ms_medqa.data.example import Example, Record
from ms_medqa.data.minhash import token_signatures
from ms_medqa.data.overlap import NGRAM, SHORTEST_CONTAINED, record_texts
from ms_medqa.data.shapes.options import Options
from ms_medqa.data.shingles import TokenHashes, batches, token_hashes
from ms_medqa.data.split import text_digest
from ms_medqa.evaluation.overlap_marks import NearMarks, PhraseBuilder


class OverlappedItems:
    """The items of an evaluation. Training records are shown to it, and it tells which items these hold.

    Texts are compared token by token as in `BenchmarkIndex`, whatever their case, width and punctuation; context and
    system text do not count. An item is overlapped when

    - a training record asks the same question; an exam's with its options in whatever order, or without them;
    - its question is a near duplicate (MinHash) of a training record's question;
    - its question has 8 to `ngram` - 1 tokens and stands whole in a training text; so does an exam's question without
      its options, for with others it is still the same question in another exam;
    - its question or answer has `ngram` tokens in a row in common with a training text.

    Phrases say nothing that stand in more than `overlap.COMMON` different items, or in more than so many different
    training records: n-grams, and an exam's question without its options. `BenchmarkIndex` knows the first half of this
    rule alone. Here the second is needed: of a small evaluation no phrase stands in many items, and of a large training
    set hardly an answer has no phrase in common with some record. A question that is the same, or nearly, or stands
    whole, counts however often it is trained. The same item many times over is one, and so is a training record.

    Near duplicates may be missed where more than `banding.BUCKET_LIMIT` items are made from one template. Memory: some
    60 bytes for each token of the items and 0.5 kB for each item, whatever the size of the training data, and 100
    bytes for each training record that has a phrase in common with them: at most `COMMON` + 1 for each phrase.

    Args:
        records: the items.
        threshold: smallest estimated Jaccard similarity of near duplicates, 0.5 … 1.
        ngram: tokens in an n-gram, at least 9.
    """

    def __init__(self, records: Sequence[Record], threshold: float, ngram: int = NGRAM) -> None:
        assert ngram > SHORTEST_CONTAINED, ngram
        self._ngram = ngram
        self._same = np.zeros(len(records), dtype=bool)
        self._items_of: dict[bytes, list[int]] = {}
        self._shown: set[bytes] = set()
        first: dict[bytes, int] = {}
        groups: list[int] = []
        builder = PhraseBuilder()
        signatures = [token_signatures(token_hashes([]))]
        for start, batch in batches([_texts(record) for record in records], _Texts.size):
            for item, text in enumerate(batch, start):
                groups.append(first.setdefault(text.digest(), item))
                for key in text.item_keys():
                    self._items_of.setdefault(key, []).append(item)
            group = np.array(groups[start:], dtype=np.int32)
            questions, answers, stems = (
                token_hashes([text[place] for text in batch]) for place in range(len(_Texts._fields) - 1)
            )
            signatures.append(token_signatures(questions))
            for tokens in (questions, answers):
                builder.add(tokens, ngram, group, always=False)
            for length in range(SHORTEST_CONTAINED, ngram):
                builder.add(questions, length, group, always=True, whole=True)
                builder.add(stems, length, group, always=False, whole=True)
        self._phrases = builder.phrases(np.array(groups, dtype=np.int32))
        self._near = NearMarks(np.concatenate(signatures), threshold)

    def show(self, records: Sequence[Record]) -> None:
        """Compare the items with training records; some thousands at a time go fastest."""
        for _, batch in batches([_texts(record) for record in records], _Texts.size):
            for text in batch:
                for key in text.training_keys():
                    self._same[self._items_of.get(key, [])] = True
            # The questions first, so that their signatures can be had of the same tokens.
            tokens = token_hashes([text.question for text in batch] + [text.answer for text in batch])
            self._count(batch, tokens)
            ends = tokens.offsets[: len(batch) + 1]
            self._near.mark(token_signatures(TokenHashes(tokens.hashes[: ends[-1]], ends)))

    def reasons(self) -> list[str | None]:
        """Why each item overlaps what has been shown, None where it does not.

        `question` (the same, or whole in a text), else `near duplicate`, else such as `13-gram`.
        """
        whole, gram = self._same.copy(), np.zeros_like(self._same)
        for length, phrases in self._phrases.items():
            (gram if length == self._ngram else whole)[phrases.items_hit()] = True
        near = self._near.items_hit()
        return [
            "question" if whole[i] else "near duplicate" if near[i] else f"{self._ngram}-gram" if gram[i] else None
            for i in range(len(gram))
        ]

    def _count(self, texts: Sequence[_Texts], tokens: TokenHashes) -> None:
        """Count the phrases of n records, of which `tokens` has all questions, then all answers."""
        owners = np.tile(np.arange(len(texts)), 2)
        found = {length: phrases.find(tokens, owners) for length, phrases in self._phrases.items()}
        fresh = np.zeros(len(texts), dtype=bool)
        # A phrase that is common already is not worth the memory of the record that has it once more.
        telling = [records[self._phrases[length].is_rare(places)] for length, (records, places) in found.items()]
        for record in np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *telling])).tolist():
            digest = texts[record].digest()
            fresh[record] = digest not in self._shown
            self._shown.add(digest)
        for length, (records, places) in found.items():
            self._phrases[length].count(places[fresh[records]])


class _Texts(NamedTuple):
    """A record as it is compared.

    Attributes:
        question: what is asked, with its options; of a dialogue, all that stands before the last answer.
        answer: empty for plain text, which is all question.
        stem: an exam's question without its options; empty for any other record.
        choices: the options of an exam.
    """

    question: str
    answer: str
    stem: str
    choices: tuple[str, ...]

    def size(self) -> int:
        return len(self.question) + len(self.answer)

    def digest(self) -> bytes:
        return text_digest(f"{self.question}\n{self.answer}")

    def item_keys(self) -> Iterator[bytes]:
        """What the item is asked by: its question, that with the options in any order, and that without them."""
        yield from self._common_keys()
        if self.stem:
            yield b"stem" + text_digest(self.stem)

    def training_keys(self) -> Iterator[bytes]:
        """What a training record gives away; equal stems alone say little (`Which is true?`)."""
        yield from self._common_keys()
        if self.stem:
            yield b"asks" + text_digest(self.stem)
        elif self.question.strip():
            yield b"stem" + text_digest(self.question)

    def _common_keys(self) -> Iterator[bytes]:
        if self.question.strip():
            yield b"asks" + text_digest(self.question)
        if self.stem:
            yield b"".join([b"exam", text_digest(self.stem), *sorted(map(text_digest, self.choices))])


def _texts(record: Record) -> _Texts:
    if not isinstance(record, Example):
        return _Texts(record.text, "", "", ())
    *asked, answer = record_texts(record)
    stem, choices = "", record.choices or ()
    if choices and not record.history:
        stem = record.question.removesuffix(Options((), choices).block()).strip()
    return _Texts("\n".join(asked), answer, stem, choices)
