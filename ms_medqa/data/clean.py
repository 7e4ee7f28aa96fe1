"""The cleaning rules: which records are kept, and for each other one the reason."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ms_medqa.config.schema import DataSection
from ms_medqa.data.claims import ClaimList
from ms_medqa.data.example import Example, PlainText, Record
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer

# Characters of the answer that stand in for a missing context under `data.fill_context`.
EXCERPT_LENGTH = 100


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that passed.

    Attributes:
        record: the record.
        input_ids: int32 (n,), its tokens.
        loss_mask: uint8 (n,), 1 where a token is a target of the training.
        question_tokens: tokens of the question alone; 0 for plain text.
        answer_tokens: tokens of the answer alone, without its end token; 0 for plain text.
    """

    record: Record
    input_ids: np.ndarray
    loss_mask: np.ndarray
    question_tokens: int = 0
    answer_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that did not pass, and why.

    Attributes:
        reason: `empty`, `too_short`, `too_long`, `wrong_claim` or `duplicate`.
        detail: the same for people, with the numbers.
    """

    reason: str
    detail: str


class Cleaner:
    """Applies the rules in this order; the first that fails gives the reason.

    - `empty`: no question or no answer (in any round of a dialogue), no text.
    - `too_short`: question or answer below `data.min_question_tokens`, `data.min_answer_tokens`.
    - `too_long`: question + answer above `data.max_length` - `data.length_margin`, or the whole record above
      `data.max_length` tokens.
    - `wrong_claim`: an answer makes a claim of the list.
    - `duplicate`: an earlier record has the same question, answer, context and dialogue.

    Question and answer are counted alone, without prompt and end token; in a dialogue those of the last round. Plain
    text is cut into rows by the training, so only `empty` and `duplicate` apply to it.
    """

    def __init__(self, settings: DataSection, tokenizer: Tokenizer, prompt: Prompt) -> None:
        self._settings = settings
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._claims = ClaimList(settings.wrong_claims)
        self._seen: dict[bytes, str] = {}

    def check(self, records: Sequence[Record]) -> list[Kept | Rejected]:
        """The verdict on each record, in order; duplicates are also found across calls."""
        texts: list[str] = []
        for record in records:
            texts += (record.question, record.answer) if isinstance(record, Example) else (record.text, "")
        tokens = self._tokenizer.encode_batch(texts)
        return [
            self._check_example(record, len(tokens[2 * i]), len(tokens[2 * i + 1]))
            if isinstance(record, Example)
            else self._check_text(record, tokens[2 * i])
            for i, record in enumerate(records)
        ]

    def _check_example(self, example: Example, question: int, answer: int) -> Kept | Rejected:
        settings = self._settings
        rounds = (*example.history, (example.question, example.answer))
        if not all(q and a for q, a in rounds):
            return Rejected("empty", "no question" if not all(q for q, _ in rounds) else "no answer")
        if question < settings.min_question_tokens:
            return Rejected("too_short", f"question of {question} tokens, at least {settings.min_question_tokens}")
        if answer < settings.min_answer_tokens:
            return Rejected("too_short", f"answer of {answer} tokens, at least {settings.min_answer_tokens}")
        limit = settings.max_length - settings.length_margin
        if question + answer > limit:
            return Rejected("too_long", f"question and answer of {question + answer} tokens, at most {limit}")
        if settings.fill_context and example.context is None:
            example = replace(example, context=example.answer[:EXCERPT_LENGTH])
        encoded = self._prompt.encode(example)
        if len(encoded.input_ids) > settings.max_length:
            return Rejected("too_long", f"record of {len(encoded.input_ids)} tokens, at most {settings.max_length}")
        claim = self._claims.find(a for _, a in rounds)
        if claim is not None:
            return Rejected("wrong_claim", claim)
        parts = [example.system or "", example.context or "", *(text for turn in rounds for text in turn)]
        if (first := self._first_of(parts, example.id)) is not None:
            return Rejected("duplicate", f"same as {first}")
        assert len(encoded.input_ids) == len(encoded.loss_mask) > 0
        return Kept(
            example,
            np.asarray(encoded.input_ids, dtype=np.int32),
            np.asarray(encoded.loss_mask, dtype=np.uint8),
            question,
            answer,
        )

    def _check_text(self, record: PlainText, tokens: list[int]) -> Kept | Rejected:
        if not record.text:
            return Rejected("empty", "no text")
        if (first := self._first_of([record.text], record.id)) is not None:
            return Rejected("duplicate", f"same as {first}")
        ids = [*self._tokenizer.prefix_ids, *tokens, self._tokenizer.eos_token_id]
        return Kept(record, np.asarray(ids, dtype=np.int32), np.ones(len(ids), dtype=np.uint8))

    def _first_of(self, parts: Sequence[str], name: str) -> str | None:
        """The id of the first record with the same texts, None when this is the first."""
        digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            # Composed characters and spaces that only look different make no other record.
            text = " ".join(unicodedata.normalize("NFC", part).split()).encode()
            digest.update(len(text).to_bytes(8, "little") + text)
        first = self._seen.setdefault(digest.digest(), name)
        return None if first == name else first
