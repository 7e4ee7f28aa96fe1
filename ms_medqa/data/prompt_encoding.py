"""Tokens and loss mask of a text that a template and users have written in turn."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.data.tokenizer_backend import as_array

# Ids of a part of a text behind what stands before it: see `Tokenizer.encode_part`.
EncodePart = Callable[[str | int, str | int | None], Sequence[int]]
# A token's place in the loss mask.
_MASKS = {False: b"\0", True: b"\1"}


# Not a dataclass: five of them are made for each record, and this takes a third of the time.
class Segment(NamedTuple):
    """A piece of the text.

    Attributes:
        text: the piece.
        template: written by the template, so control tokens in it are parsed; in a user's text they stay text.
        train: its tokens are targets of the training.
    """

    text: str
    template: bool
    train: bool


class Run(NamedTuple):
    """One control token, or all text between two.

    Attributes:
        whole: the token's id, or the text.
        train: the tokens of its last piece are targets of the training.
        starts: each start of the text after which `train` changes, with the `train` of its own last piece.
    """

    whole: str | int
    train: bool
    starts: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example as tokens: `loss_mask[t]` is 1 where `input_ids[t]` is a target of the training.

    Two lists; of many examples together an array of type `i` and a bytearray, which take a third of the time.
    """

    input_ids: list[int] | array[int]
    loss_mask: list[int] | bytearray

    def as_lists(self) -> Encoded:
        """The same in two lists."""
        return Encoded(list(self.input_ids), list(self.loss_mask))


class TokenBatch:
    """The texts of many examples, each tokenised once and all together.

    `add` and `add_runs` announce what will be asked for; `encode_part` then answers with the same ids as the
    tokenizer's own, whether announced or not.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # Without a space of its own before a text, a vocabulary gives the same ids wherever the text stands.
        self._anywhere = tokenizer.encode_part("a", "a") == tokenizer.encode_part("a", None)
        self._waiting: dict[str, None] = {}
        self._ids: dict[str, Sequence[int]] = {}

    def add(self, text: str) -> None:
        """Announce `encode_part(text, None)`."""
        if text not in self._ids:
            self._waiting[text] = None

    def add_runs(self, runs: Iterable[Run], previous: str | int | None = None) -> None:
        """Announce what `encode_runs` asks for."""
        for run in runs:
            if isinstance(run.whole, str) and (previous is None or self._anywhere):
                self.add(run.whole)
                for text, _ in run.starts:
                    self.add(text)
            previous = run.whole

    def encode_part(self, part: str | int, previous: str | int | None) -> Sequence[int]:
        """`Tokenizer.encode_part`. What is returned is shared; do not change it."""
        if isinstance(part, int) or not (previous is None or self._anywhere):
            return self._tokenizer.encode_part(part, previous)
        if self._waiting:
            texts = list(self._waiting)
            self._ids.update(zip(texts, self._tokenizer.encode_arrays(texts), strict=True))
            self._waiting.clear()
        ids = self._ids.get(part)
        if ids is None:
            ids = self._ids[part] = as_array(self._tokenizer.encode_part(part, None))
        return ids


def encode_segments(
    tokenizer: Tokenizer, segments: Iterable[Segment], previous: str | int | None = None
) -> tuple[Encoded, str | int | None]:
    """Tokens of the segments, and their last part.

    What stands between two control tokens is tokenised as one text. A token that begins in one segment and ends in the
    next counts as one of the next.

    Args:
        tokenizer: of the model.
        segments: the pieces in order.
        previous: the last part of what stands before them, None where they are the beginning.
    """
    runs = list(split_runs(tokenizer, segments))
    return encode_runs(tokenizer.encode_part, runs, previous), runs[-1].whole if runs else previous


def encode_runs(
    encode_part: EncodePart, runs: Iterable[Run], previous: str | int | None = None, before: Encoded | None = None
) -> Encoded:
    """`encode_segments` of segments that are split already; they are added to `before`, where that is given."""
    encoded = Encoded([], []) if before is None else before
    for whole, train, starts in runs:
        ids = encode_part(whole, previous)
        encoded.input_ids.extend(ids)
        done = 0
        for text, train_before in starts:
            # These tokens are the same whatever follows; the others the following text has changed.
            end = max(done, _common(ids, encode_part(text, previous)))
            encoded.loss_mask.extend(_MASKS[train_before] * (end - done))
            done = end
        encoded.loss_mask.extend(_MASKS[train] * (len(ids) - done))
        previous = whole
    return encoded


def split_runs(tokenizer: Tokenizer, segments: Iterable[Segment]) -> Iterator[Run]:
    """Each control token by itself, and the text between two."""
    whole, train, starts = "", False, list[tuple[str, bool]]()
    for segment in segments:
        # A user's text is never searched for control tokens.
        for part in tokenizer.split_control(segment.text) if segment.template else (segment.text,):
            if isinstance(part, int):
                if whole:
                    yield Run(whole, train, tuple(starts))
                    whole, starts = "", []
                yield Run(part, segment.train)
            elif part:
                if whole and train != segment.train:
                    starts.append((whole, train))
                whole, train = whole + part, segment.train
    if whole:
        yield Run(whole, train, tuple(starts))


def last_part(runs: Sequence[Run]) -> str | int | None:
    """What stands before the text that follows these runs."""
    return runs[-1].whole if runs else None


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the longest common start."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
