"""How numbers of many answers are spread: columns for a chart, and three numbers for a table."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence

# Columns of numbers; shares have one more, for those that are 1.
_COLUMNS = 40
_SHARES = 20


def columns_of(models: Mapping[str, Sequence[float]], *, shares: bool) -> tuple[list[float], dict[str, list[int]]]:
    """Columns that are the same for all models.

    Args:
        models: name -> numbers of 0 or more.
        shares: they are from 0 to 1; else columns are whole numbers wide.

    Returns:
        n + 1 edges, and model -> n counts; column i is from edge i to less than edge i + 1.
    """
    most = max((value for values in models.values() for value in values), default=0.0)
    width = 1 / _SHARES if shares else _round_width((math.floor(most) + 1) / _COLUMNS)
    count = _SHARES + 1 if shares else math.floor(most / width) + 1
    edges = [round(place * width, 2) for place in range(count + 1)]
    counts = {}
    for model, values in models.items():
        counts[model] = [0] * count
        for value in values:
            # 0.15 / 0.05 is a little less than 3.
            counts[model][min(count - 1, max(0, math.floor(value / width + 1e-9)))] += 1
    return edges, counts


def _round_width(least: float) -> int:
    """1, 2 or 5 times a power of ten, at least so much."""
    power = 10 ** max(0, math.floor(math.log10(least)))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= least)


def three_of(values: Sequence[float]) -> tuple[float, float, float]:
    """Least, median and greatest of at least one number."""
    return min(values), statistics.median(values), max(values)
