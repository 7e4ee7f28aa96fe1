"""A text, and ways in which it may go on: what a likelihood is asked of, and how many of them share one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

# Trees among which those are chosen that fill a pass.
_WINDOW = 512


@dataclass(frozen=True, slots=True)
class Tree:
    """A trunk of tokens and the branches that may follow it.

    Attributes:
        trunk: token ids, at least 1.
        branches: token ids of each, at least 1.
        targets: places in the trunk, from 1 and ascending, whose tokens are scored. In branches all are.
    """

    trunk: Sequence[int]
    branches: Sequence[Sequence[int]] = ()
    targets: Sequence[int] = ()

    def __len__(self) -> int:
        """Tokens in a pass."""
        return len(self.trunk) + sum(map(len, self.branches))

    @property
    def longest(self) -> int:
        """Positions that the model needs."""
        return len(self.trunk) + max(map(len, self.branches), default=0)


@dataclass(frozen=True, slots=True)
class Score:
    """Sums over the scored tokens of a trunk or a branch.

    Attributes:
        loss: negative log-likelihood in nats.
        correct: tokens that were the model's likeliest.
        tokens: how many.
    """

    loss: float = 0.0
    correct: int = 0
    tokens: int = 0

    def __add__(self, other: Score) -> Score:
        return Score(self.loss + other.loss, self.correct + other.correct, self.tokens + other.tokens)


@dataclass(slots=True)
class Flat:
    """Trees one behind the other: int32 (W,) each, and of the targets (K,) each.

    Attributes:
        ids, positions: of the tokens.
        trees: number of a token's tree; those of padding see nothing else.
        branches: 0 in a trunk.
        lengths: of the text that a token is part of, int32 (W, 1).
        places: the tokens that predict a target.
        labels: the targets.
        groups: which of all trunks and branches a target belongs to.
    """

    ids: np.ndarray
    positions: np.ndarray
    trees: np.ndarray
    branches: np.ndarray
    lengths: np.ndarray
    places: list[int] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, trees: Sequence[Tree], width: int) -> Flat:
        """Trees of at most `width` tokens together."""
        zeros = [np.zeros(width, np.int32) for _ in range(4)]
        flat = cls(*zeros, np.ones((width, 1), np.int32))
        flat.trees[:] = -1
        start = group = 0
        for number, tree in enumerate(trees):
            end = start + len(tree.trunk)
            flat._add(start, tree.trunk, 0, number, 0, tree.longest)
            flat._target(
                [start + place - 1 for place in tree.targets], [tree.trunk[place] for place in tree.targets], group
            )
            group += 1
            before = end - 1
            for branch, tokens in enumerate(tree.branches, start=1):
                flat._add(end, tokens, len(tree.trunk), number, branch, tree.longest)
                flat._target([before, *range(end, end + len(tokens) - 1)], tokens, group)
                end += len(tokens)
                group += 1
            start = end
        return flat

    def _add(self, start: int, tokens: Sequence[int], position: int, tree: int, branch: int, length: int) -> None:
        end = start + len(tokens)
        self.ids[start:end] = tokens
        self.positions[start:end] = np.arange(position, position + len(tokens))
        self.trees[start:end], self.branches[start:end], self.lengths[start:end] = tree, branch, length

    def _target(self, places: Sequence[int], labels: Sequence[int], group: int) -> None:
        self.places += places
        self.labels += labels
        self.groups += [group] * len(labels)


def packs(lengths: Sequence[int], width: int) -> Iterator[list[int]]:
    """Which trees share a pass of so many tokens: first fit, the longest first, in windows of the given order.

    A tree that is longer than a pass is alone.
    """
    for start in range(0, len(lengths), _WINDOW):
        window = sorted(range(start, min(start + _WINDOW, len(lengths))), key=lambda one: -lengths[one])
        found: list[list[int]] = []
        room: list[int] = []
        for one in window:
            place = next((place for place, left in enumerate(room) if left >= lengths[one]), None)
            if place is None:
                found.append([one])
                room.append(width - lengths[one])
            else:
                found[place].append(one)
                room[place] -= lengths[one]
        yield from found
