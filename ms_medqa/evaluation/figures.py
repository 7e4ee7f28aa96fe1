"""Figures as functions of sums over items, so that one bootstrap serves them all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Figure:
    """One figure of one model on one task.

    Attributes:
        name: such as `accuracy`.
        stats: float64 (n, k), what each item adds; zeros where the item is not counted.
        counted: bool (n,), the items that the figure is over.
        of: the figure of sums, float64 (..., k) -> (...); NaN where they are of nothing.
        proportion: True where it is the share of the counted items that have something: k is 2, each item adds
            0 or 1, and 1.
    """

    name: str
    stats: Array
    counted: NDArray[np.bool_]
    of: Callable[[Array], Array]
    proportion: bool = False

    def __post_init__(self) -> None:
        assert self.stats.ndim == 2
        assert self.counted.shape == self.stats.shape[:1]

    @property
    def value(self) -> float:
        """The figure over all counted items; NaN where there is none."""
        return float(self.of(self.stats.sum(axis=0))) if self.n else float("nan")

    @property
    def n(self) -> int:
        """The number of counted items."""
        return int(np.count_nonzero(self.counted))

    def over(self, items: NDArray[np.bool_]) -> Figure:
        """The same over those of its items alone that are among these, bool (n,)."""
        counted = self.counted & items
        return replace(self, stats=np.where(counted[:, None], self.stats, 0.0), counted=counted)


def mean_figure(name: str, values: Sequence[float | None]) -> Figure:
    """The arithmetic mean of one value an item; None: the item is not counted."""
    counted = _given(values)
    stats = np.array([(0.0, 0.0) if value is None else (value, 1.0) for value in values], np.float64)
    return Figure(name, stats.reshape(-1, 2), counted, _ratio)


def share_figure(name: str, values: Sequence[bool | None]) -> Figure:
    """The share of items whose value is True; None: the item is not counted."""
    mean = mean_figure(name, values)
    assert np.isin(mean.stats, (0.0, 1.0)).all(), f"{name} is no share"
    return Figure(name, mean.stats, mean.counted, mean.of, proportion=True)


def ratio_figure(
    name: str, tops: Sequence[float], bottoms: Sequence[float], transform: Callable[[Array], Array] | None = None
) -> Figure:
    """The ratio of two sums, such as the loss of a token; an item whose bottom is 0 is not counted.

    Args:
        name: of the figure.
        tops, bottoms: what each item adds to either sum.
        transform: what the ratio goes through, element by element: `np.exp` makes a perplexity of a mean loss in nats.
    """
    stats = np.stack([np.asarray(tops, np.float64), np.asarray(bottoms, np.float64)], axis=1)
    counted = stats[:, 1] != 0
    stats[~counted] = 0

    def of(sums: Array) -> Array:
        with np.errstate(over="ignore"):
            return _ratio(sums) if transform is None else transform(_ratio(sums))

    return Figure(name, stats, counted, of)


def macro_f1_figure(name: str, picks: Sequence[int | None], golds: Sequence[int | None], classes: int) -> Figure:
    """The mean of the classes' F1, over the classes that are the right one of some counted item.

    It is scikit-learn's `f1_score(labels=classes among the golds, average="macro", zero_division=0)`. The classes are
    those of the golds alone, so that they are the same for all models; a pick outside them is a wrong answer and no
    class of its own. In a subset, such as a group or a resample, a class without any item is left out of the mean: its
    recall is undefined, and a score of 0 for it would say more of what was drawn than of the model. The classes of a
    subset are those of its golds too, and so the same for all models.

    Args:
        name: of the figure.
        picks: the class given to each item; None: none could be told, which is wrong.
        golds: the right class of each item, 0 to classes - 1; None: the item is not counted.
        classes: how many there are.
    """
    counted = _given(golds)
    columns = {gold: column for column, gold in enumerate(sorted({gold for gold in golds if gold is not None}))}
    assert all(0 <= gold < classes for gold in columns)
    hits, given, right = (np.zeros((len(golds), len(columns))) for _ in range(3))
    for item, (pick, gold) in enumerate(zip(picks, golds, strict=True)):
        if gold is None:
            continue
        right[item, columns[gold]] = 1
        if pick in columns:
            given[item, columns[pick]] = 1
            hits[item, columns[gold]] = pick == gold

    def of(sums: Array) -> Array:
        # 2PR / (P + R) = 2 · hits / (times given + times right).
        hit, times_given, times_right = (
            sums[..., start * len(columns) : (start + 1) * len(columns)] for start in range(3)
        )
        present = times_right > 0
        scores = np.divide(2 * hit, times_given + times_right, out=np.zeros_like(hit), where=present)
        return _ratio(np.stack([scores.sum(axis=-1), present.sum(axis=-1)], axis=-1))

    return Figure(name, np.concatenate([hits, given, right], axis=1), counted, of)


def _given(values: Sequence[float | None]) -> NDArray[np.bool_]:
    return np.array([value is not None for value in values], np.bool_)


def _ratio(sums: Array) -> Array:
    """Top over bottom, (..., 2) -> (...); NaN over 0."""
    tops, bottoms = sums[..., 0], sums[..., 1]
    return np.divide(tops, bottoms, out=np.full(np.shape(tops), np.nan), where=bottoms != 0)
