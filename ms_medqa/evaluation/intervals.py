"""How sure a figure is: 95 % intervals, and whether two models differ on the same items."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from ms_medqa.evaluation.figures import Array, Figure

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
# How often each item was drawn, for some resamples at a time: at 8 bytes each, 32 MiB.
_BLOCK = 2**22


def interval(figure: Figure) -> tuple[float, float]:
    """The 95 % interval of a figure.

    Of a proportion it is Wilson's (1927), which holds near 0 and 1 and for few items; of anything else the percentile
    interval of the bootstrap over items (Efron & Tibshirani 1993, chapter 13), equal for equal figures.

    Returns:
        Low and high; NaN where the figure has no value, or where one item leaves the bootstrap nothing to vary.
    """
    if figure.proportion and figure.n:
        hits = int(figure.stats[:, 0].sum())
        bounds = binomtest(hits, figure.n).proportion_ci(LEVEL, method="wilson")
        return float(bounds.low), float(bounds.high)
    if not math.isfinite(figure.value):
        return math.nan, math.nan
    return _percentiles(*_resampled([figure], figure.counted))


def difference(base: Figure, tuned: Figure) -> tuple[float, float, float]:
    """How much larger a figure is of the tuned model than of its base, over the same items.

    Both are resampled together, so that what makes an item hard for both does not widen the interval.

    Returns:
        tuned - base, and the low and high end of its 95 % interval (percentiles of the paired bootstrap); NaN as in
        `interval`.
    """
    assert len(base.counted) == len(tuned.counted), "figures over different items"
    value = tuned.value - base.value
    if not math.isfinite(value):
        return math.nan, math.nan, math.nan
    before, after = _resampled([base, tuned], base.counted | tuned.counted)
    return value, *_percentiles(after - before)


def mcnemar(base_right: Sequence[bool], tuned_right: Sequence[bool]) -> dict[str, int | float]:
    """McNemar's exact test of two models on the same items (1947; two-sided, binomial over the items they differ in).

    Returns:
        `only_base` and `only_tuned`, the items that only the one model has right, and `p`: how likely such a difference
        or a larger one is where both are equally good.
    """
    base, tuned = np.asarray(base_right, np.bool_), np.asarray(tuned_right, np.bool_)
    assert base.shape == tuned.shape, "answers to different items"
    only_base, only_tuned = int(np.count_nonzero(base & ~tuned)), int(np.count_nonzero(tuned & ~base))
    differ = only_base + only_tuned
    p = float(binomtest(only_tuned, differ).pvalue) if differ else 1.0
    return {"only_base": only_base, "only_tuned": only_tuned, "p": p}


def _resampled(figures: Sequence[Figure], counted: NDArray[np.bool_]) -> list[Array]:
    """Each figure, (RESAMPLES,), over items drawn with replacement from the counted ones; the same for all figures."""
    tables = [figure.stats[counted] for figure in figures]
    n = len(tables[0])
    if n < 2:
        return [np.full(RESAMPLES, np.nan) for _ in figures]
    random = np.random.default_rng(SEED)
    found: list[list[Array]] = [[] for _ in figures]
    rows = max(1, min(RESAMPLES, _BLOCK // n))
    for start in range(0, RESAMPLES, rows):
        size = min(rows, RESAMPLES - start)
        draws = random.integers(n, size=(size, n))
        # Each resample counts in a row of its own.
        draws += n * np.arange(size)[:, None]
        times = np.bincount(draws.ravel(), minlength=size * n).reshape(size, n).astype(np.float64)
        for figure, table, values in zip(figures, tables, found, strict=True):
            values.append(figure.of(times @ table))
    return [np.concatenate(values) for values in found]


def _percentiles(values: Array) -> tuple[float, float]:
    # A resample may hold no item of a class, or none that the other model is counted on.
    finite = values[np.isfinite(values)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.percentile(finite, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return float(low), float(high)
