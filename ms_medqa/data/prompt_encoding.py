"""Tokens and loss mask of a text that a template and users have written in turn."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.data.tokenizer_backend import as_array

# Ids of a part of a text behind what stands before it: see `Tokenizer.encode_part`.
EncodePart = Callable[[str | int, str | int | None], Sequence[int]]
# Pieces between two control tokens, each with its `train`; or one control token.
Run = Sequence[tuple[str | int, bool]]
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
            whole = _whole(run)
            if previous is None or self._anywhere:
                for text in (whole, *_starts(run)):
                    if isinstance(text, str):
                        self.add(text)
            previous = whole

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
    return encode_runs(tokenizer.encode_part, runs, previous), _whole(runs[-1]) if runs else previous


def encode_runs(
    encode_part: EncodePart, runs: Iterable[Run], previous: str | int | None = None, before: Encoded | None = None
) -> Encoded:
    """`encode_segments` of segments that are split already; they are added to `before`, where that is given."""
    encoded = Encoded([], []) if before is None else before
    for run in runs:
        part = _whole(run)
        ids = encode_part(part, previous)
        encoded.input_ids.extend(ids)
        done = 0
        for (_, train), text in zip(run, _starts(run), strict=False):
            # These tokens are the same whatever follows; the others the following text has changed.
            end = max(done, _common(ids, encode_part(text, previous)))
            encoded.loss_mask.extend(_MASKS[train] * (end - done))
            done = end
        encoded.loss_mask.extend(_MASKS[run[-1][1]] * (len(ids) - done))
        previous = part
    return encoded


def split_runs(tokenizer: Tokenizer, segments: Iterable[Segment]) -> Iterator[Run]:
    """Each control token by itself, and the text between two in pieces that are trained or not."""
    run: list[tuple[str | int, bool]] = []
    for segment in segments:
        # A user's text is never searched for control tokens.
        for part in tokenizer.split_control(segment.text) if segment.template else [segment.text]:
            if isinstance(part, int):
                if run:
                    yield run
                run = []
                yield [(part, segment.train)]
            elif run and run[-1][1] == segment.train:
                run[-1] = (f"{run[-1][0]}{part}", segment.train)
            elif part:
                run.append((part, segment.train))
    if run:
        yield run


def last_part(runs: Sequence[Run]) -> str | int | None:
    """What stands before the text that follows these runs."""
    return _whole(runs[-1]) if runs else None


def _whole(run: Run) -> str | int:
    first = run[0][0]
    return first if isinstance(first, int) or len(run) == 1 else "".join(str(piece) for piece, _ in run)


def _starts(run: Run) -> list[str]:
    """Each start of the run that ends where a piece does, but for the whole."""
    if len(run) == 1:
        return []
    return list(itertools.accumulate(str(piece) for piece, _ in run[:-1]))


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """The length of the longest common start."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
