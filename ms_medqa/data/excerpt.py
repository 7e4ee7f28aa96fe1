"""An example in pieces, to be shown: what is trained, and what is not."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ms_medqa.data.example import Example, PlainText, Record
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of an example's text.

    Attributes:
        text: the piece.
        trained: the loss falls on it.
        label: what it is, such as `question`; empty where the pieces are the text that the model sees.
    """

    text: str
    trained: bool
    label: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """An example to be shown: where it is from, and its text in pieces."""

    id: str
    source: str
    spans: tuple[Span, ...]


def show(record: Record, source: str, prompt: Prompt | None = None) -> Shown:
    """An example in pieces: as the model is trained on it, or without a prompt its fields by name."""
    if prompt is not None and isinstance(record, Example):
        encoded = prompt.encode(record)
        return Shown(record.id, source, token_spans(prompt.tokenizer, encoded.input_ids, encoded.loss_mask))
    return Shown(record.id, source, tuple(_fields(record)))


def token_spans(tokenizer: Tokenizer, tokens: Sequence[int], mask: Sequence[int]) -> tuple[Span, ...]:
    """The text of token ids, cut where the loss mask changes."""
    spans = []
    for trained, run in itertools.groupby(zip(mask, tokens, strict=True), key=lambda pair: bool(pair[0])):
        spans.append(Span(tokenizer.decode([int(token) for _, token in run], skip_special=False), trained))
    return tuple(spans)


def _fields(record: Record) -> Iterable[Span]:
    if isinstance(record, PlainText):
        yield Span(record.text, True, "text")
        return
    if record.system:
        yield Span(record.system, False, "system")
    for question, answer in record.history:
        yield Span(question, False, "question")
        yield Span(answer, True, "answer")
    if record.context:
        yield Span(record.context, False, "context")
    yield Span(record.question, False, "question")
    yield Span(record.answer, True, "answer")
