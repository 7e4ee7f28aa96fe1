"""Tokens and loss mask of a text that a template and users have written in turn."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ms_medqa.data.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Segment:
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
    """An example as tokens: `loss_mask[t]` is 1 where `input_ids[t]` is a target of the training."""

    input_ids: list[int]
    loss_mask: list[int]


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
    encoded = Encoded([], [])
    for run in _runs(tokenizer, segments):
        part = run[0][0] if isinstance(run[0][0], int) else "".join(str(piece) for piece, _ in run)
        ids = tokenizer.encode_part(part, previous)
        encoded.input_ids.extend(ids)
        text, done = "", 0
        for piece, train in run[:-1]:
            text += str(piece)
            # These tokens are the same whatever follows; the others the following text has changed.
            end = max(done, _common(ids, tokenizer.encode_part(text, previous)))
            encoded.loss_mask.extend([int(train)] * (end - done))
            done = end
        encoded.loss_mask.extend([int(run[-1][1])] * (len(ids) - done))
        previous = part
    return encoded, previous


def _runs(tokenizer: Tokenizer, segments: Iterable[Segment]) -> Iterator[list[tuple[str | int, bool]]]:
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


def _common(first: list[int], second: list[int]) -> int:
    """The length of the longest common start."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
