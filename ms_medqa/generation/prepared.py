"""A question on its way into the model: its tokens, and what of its context found room."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, replace

from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.generation.variant import Variant

_FIRST_GUESS = 64
# Joins two emojis into one.
_JOINER = "\u200d"


@dataclass(frozen=True, slots=True)
class Cut:
    """How much of a context was kept.

    Attributes:
        kept, total: tokens.
    """

    kept: int
    total: int

    def __str__(self) -> str:
        return f"of the context only the first {self.kept} of {self.total} tokens fit, the rest was cut off"


@dataclass(frozen=True, slots=True)
class Prepared:
    """A question that can be answered.

    Attributes:
        prompt: token ids, up to where the answer begins.
        variant: what answers it.
        cut: what was done to its context, None where nothing.
    """

    prompt: list[int]
    variant: Variant
    cut: Cut | None = None


def fit_context(prompt: Prompt, example: Example, room: int) -> tuple[list[int], Cut]:
    """The prompt of a question with as much of its context as leaves it `room` tokens, or without any.

    Args:
        prompt: renders it.
        example: the question, with a context that is too long.
        room: tokens.

    Returns:
        Token ids, more than `room` where the question alone is too long; and the cut.
    """
    context = example.context
    assert context is not None

    def tokens(start: str) -> list[int]:
        return prompt.encode_prompt(replace(example, context=start if start.strip() else None))

    kept = longest_start(context, lambda start: len(tokens(start)) <= room)
    encode = prompt.tokenizer.encode
    return tokens(kept), Cut(len(encode(kept)) if kept.strip() else 0, len(encode(context)))


def longest_start(text: str, fits: Callable[[str], bool]) -> str:
    """The longest start of a text that fits, in whole characters; empty where none does.

    Args:
        text: does not fit itself.
        fits: true for every start up to some length, false beyond; off by a few characters does no harm.
    """
    # Texts are many times longer than what fits, so the first guesses are short.
    low, high = 0, _FIRST_GUESS
    while high < len(text) and fits(text[:high]):
        low, high = high, 2 * high
    high = min(high, len(text))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(text[:middle]) else (low, middle)
    size = _whole(text, low)
    # A shorter text may have more tokens than a longer one.
    while size and not fits(text[:size]):
        size = _whole(text, size - 1)
    return text[:size]


def _whole(text: str, size: int) -> int:
    """`size`, or so much less that no mark is parted from its letter and no joined emoji is torn."""
    while 0 < size < len(text) and (
        unicodedata.category(text[size]).startswith("M") or _JOINER in (text[size], text[size - 1])
    ):
        size -= 1
    return size
