"""What the rules say of a record."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ms_medqa.data.example import Record


@dataclass(frozen=True, slots=True)
class Note:
    """Something that was done to a record that is kept.

    Attributes:
        reason: `cut`, `cleaned_html` or `redacted_phone`, `redacted_identity`, `redacted_email`, `redacted_record`.
        detail: the same for people, with the numbers.
        count: places in the record; 1 for `cut`.
    """

    reason: str
    detail: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that passed.

    Attributes:
        record: the record, as it is trained: cleaned, redacted and cut where the rules say so.
        input_ids: int32 (n,), its tokens.
        loss_mask: uint8 (n,), 1 where a token is a target of the training.
        question_tokens: tokens of the question alone; 0 for plain text.
        answer_tokens: tokens of the answer alone, without its end token; 0 for plain text.
        notes: what was done to it.
        terms: numbers of the lexicon's entries that its text names, rising; empty without a lexicon.
    """

    record: Record
    input_ids: np.ndarray
    loss_mask: np.ndarray
    question_tokens: int = 0
    answer_tokens: int = 0
    notes: tuple[Note, ...] = ()
    terms: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that did not pass, and why.

    Attributes:
        reason: the name of the rule.
        detail: the same for people, with the numbers.
    """

    reason: str
    detail: str
