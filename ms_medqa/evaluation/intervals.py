"""How sure a figure is: 95 % confidence intervals, and whether two models differ on the same items."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit
from scipy.stats import binomtest

from ms_medqa.evaluation.figures import Array, Figure

LEVEL = 0.95
RESAMPLES = 2000
SEED = 0
# How often each item was drawn, for some resamples at a time: at 8 bytes each, 32 MiB.
_BLOCK = 2**22
# Relative; resamples that differ by less do so by rounding alone.
_EQUAL = 1e-12


def interval(figure: Figure) -> tuple[float, float]:
    """The 95 % confidence interval of a figure.

    Of a proportion it is Wilson's (1927), which holds near 0 and 1 and for few items; of anything else the expanded
    percentile interval of the bootstrap over items (Hesterberg 2015, What teachers should know about the bootstrap, The
    American Statistician 69), equal for equal figures.

    Returns:
        Low and high; NaN where the figure has no value, or where the bootstrap has nothing to vary: there is one item,
        or all resamples have the same value.
    """
    if figure.proportion and figure.n:
        return _wilson(int(figure.stats[:, 0].sum()), figure.n)
    if not math.isfinite(figure.value):
        return math.nan, math.nan
    (values,) = _resampled([figure], figure.counted)
    return _percentiles(values, figure.n)


def difference(base: Figure, tuned: Figure) -> tuple[float, float, float]:
    """How much larger a figure is of the tuned model than of its base, over the items that both are counted on.

    Of proportions over the same items the interval is Newcombe's (1998, Improved confidence intervals for the
    difference between binomial proportions based on paired data, Statistics in Medicine 17, method 10), which holds
    for few items and few that differ. Of anything else both are resampled together, so that what makes an item hard for
    both does not widen the interval, and its ends are percentiles as in `interval`.

    Returns:
        tuned - base, and the low and high end of its 95 % confidence interval; NaN as in `interval`.
    """
    assert len(base.counted) == len(tuned.counted), "figures over different items"
    base, tuned = _over_the_same(base, tuned)
    value = tuned.value - base.value
    if not math.isfinite(value):
        return math.nan, math.nan, math.nan
    if base.proportion and tuned.proportion:
        return value, *_newcombe(*_table(base, tuned))
    before, after = _resampled([base, tuned], base.counted)
    return value, *_percentiles(after - before, base.n)


def in_both(base: Figure, tuned: Figure) -> int:
    """The number of items that a difference is over."""
    return int(np.count_nonzero(base.counted & tuned.counted))


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


def paired_test(base: Figure, tuned: Figure) -> dict[str, int | float] | None:
    """McNemar's test of two proportions over the same items; None of other figures, and where no item is counted."""
    base, tuned = _over_the_same(base, tuned)
    if not (base.proportion and tuned.proportion) or not base.n:
        return None
    return mcnemar(*((figure.stats[figure.counted, 0] > 0).tolist() for figure in (base, tuned)))


def _over_the_same(base: Figure, tuned: Figure) -> tuple[Figure, Figure]:
    return base.over(tuned.counted), tuned.over(base.counted)


def _wilson(hits: int, n: int) -> tuple[float, float]:
    bounds = binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return float(bounds.low), float(bounds.high)


def _table(base: Figure, tuned: Figure) -> tuple[int, int, int, int]:
    """Items that both have, the tuned model alone, the base alone, and neither."""
    before, after = (figure.stats[figure.counted, 0] > 0 for figure in (base, tuned))
    cells = (after & before, after & ~before, ~after & before, ~after & ~before)
    both, only_tuned, only_base, neither = (int(np.count_nonzero(cell)) for cell in cells)
    return both, only_tuned, only_base, neither


def _newcombe(both: int, first: int, second: int, neither: int) -> tuple[float, float]:
    """Ends of the interval of p1 - p2, where p1 counts `both` and `first`, p2 `both` and `second`."""
    n = both + first + second + neither
    p1, p2 = (both + first) / n, (both + second) / n
    (low1, high1), (low2, high2) = _wilson(both + first, n), _wilson(both + second, n)
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    product = both * neither - first * second
    # A positive correlation is drawn towards 0, as the difference between two Wilson intervals would else be too sure.
    corrected = max(product - n / 2, 0) if product > 0 else product
    phi = corrected / math.sqrt(margins) if margins else 0.0

    def length(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one**2 - 2 * phi * one * other + other**2))

    gap = p1 - p2
    return gap - length(p1 - low1, high2 - p2), gap + length(high1 - p1, p2 - low2)


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


def _percentiles(values: Array, n: int) -> tuple[float, float]:
    # A resample may hold none of the items that a model is counted on.
    finite = values[np.isfinite(values)]
    if not len(finite) or np.ptp(finite) <= _EQUAL * max(1.0, float(np.abs(finite).max())):
        return math.nan, math.nan
    # Resamples of n items vary as if their variance were divided by n, and as if it were known: too little by a factor
    # of (n - 1) / n, and by what a t interval is wider than a normal one.
    tail = 100 * float(ndtr(stdtrit(n - 1, (1 - LEVEL) / 2) * math.sqrt(n / (n - 1))))
    low, high = np.percentile(finite, [tail, 100 - tail])
    return float(low), float(high)
