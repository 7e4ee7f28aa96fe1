"""Charts of an evaluation as inline SVG: values over steps, and values of groups with whiskers of intervals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from ms_medqa.data.svg_chart import label_at, px, short, shortened, svg
from ms_medqa.evaluation.report.numbers import mapping, number, shown, span

Point = tuple[float, float]

_MOST_POINTS = 400
# With so few points, each is drawn as a dot too.
_DOTTED = 60
_MOST_GROUPS = 40
_WIDTH, _HEIGHT = 760, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 30, 10, 40
# Of a group: its label, its number of items, and a line for each model.
_LABEL, _COUNT, _LINE, _GAP = 214, 70, 13, 9
_LONGEST_LABEL = 26


def thin(points: Sequence[Point], most: int = _MOST_POINTS) -> list[Point]:
    """At most so many points (4 or more) in their order: the ends, and the lowest and highest of each stretch."""
    if len(points) <= most:
        return list(points)
    inner = range(1, len(points) - 1)
    stretches = most // 2 - 1
    kept = {0, len(points) - 1}
    for place in range(stretches):
        stretch = inner[len(inner) * place // stretches : len(inner) * (place + 1) // stretches]
        kept.add(min(stretch, key=lambda i: points[i][1]))
        kept.add(max(stretch, key=lambda i: points[i][1]))
    return [points[i] for i in sorted(kept)]


def lines(
    series: Mapping[str, Sequence[Point]], css: Mapping[str, str], *, axis: str, title: str, zero: bool = False
) -> Markup:
    """A line for each series.

    Args:
        series: name -> (x, y) with rising x, finite; long ones are thinned out.
        css: series -> class of its line.
        axis: what x is.
        title: what it is, for screen readers.
        zero: the scale of y begins at 0.
    """
    series = {name: thin(points) for name, points in series.items() if points}
    every = list(itertools.chain.from_iterable(series.values()))
    x_ticks = _ticks([x for x, _ in every], least=1.0)
    y_ticks = _ticks([y for _, y in every] + ([0.0] if zero else []))
    # Steps are drawn to the last one, not to the next round number.
    x_low, x_high = min((x for x, _ in every), default=0.0), max((x for x, _ in every), default=1.0)
    across = _scale(x_low, x_high, _LEFT, _WIDTH - _RIGHT)
    up = _scale(y_ticks[0], y_ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    parts = []
    for y in y_ticks:
        parts.append(_grid(_LEFT, _WIDTH - _RIGHT, up(y), up(y)))
        parts.append(label_at(_LEFT - 8, up(y) + 4, _tick(y), "end"))
    for x in x_ticks:
        if x_low <= x <= x_high:
            parts.append(label_at(across(x), _HEIGHT - _BOTTOM + 18, short(x), "middle"))
    parts.append(label_at((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 4, axis, "middle"))
    for name, points in series.items():
        colour = escape(css.get(name, ""))
        path = " ".join(f"{px(across(x))},{px(up(y))}" for x, y in points)
        parts.append(f'<polyline class="line {colour}" points="{path}"><title>{escape(name)}</title></polyline>')
        for x, y in points if len(points) <= _DOTTED else ():
            tip = f"<title>{escape(name)}, {escape(short(x))}: {y:.4g}</title>"
            parts.append(f'<circle class="{colour}" cx="{px(across(x))}" cy="{px(up(y))}" r="2.5">{tip}</circle>')
    return svg(_WIDTH, _HEIGHT, title, parts)


def dots(
    groups: Mapping[str, Any], figure: str, css: Mapping[str, str], *, form: str, title: str
) -> tuple[Markup, list[str]]:
    """For each group a dot of each model, with a whisker from end to end of its interval; large groups first.

    Args:
        groups: name -> {"n", "figures": model -> figure -> {"value", "low", "high"}}.
        figure: the one that is drawn.
        css: model -> class of its dots; others are not drawn.
        form: format specification of the figure.
        title: what it is, for screen readers.

    Returns:
        The chart and the names of those groups for which there was no room.
    """
    names = sorted(groups, key=lambda name: (-(number(mapping(groups[name]).get("n")) or 0), name))
    drawn, rest = names[:_MOST_GROUPS], names[_MOST_GROUPS:]
    cells = {name: {model: _of(groups[name], model, figure) for model in css} for name in drawn}
    ends = [end for row in cells.values() for cell in row.values() for end in cell.values() if end is not None]
    # A share has its whole scale, so that charts of several tasks look alike.
    ticks = [0.0, 0.25, 0.5, 0.75, 1.0] if form.endswith("%") and all(0 <= end <= 1 for end in ends) else _ticks(ends)
    across = _scale(ticks[0], ticks[-1], _LABEL, _WIDTH - _COUNT)
    tall = _LINE * max(1, len(css)) + _GAP
    bottom = tall * len(drawn)
    parts = []
    for tick in ticks:
        parts.append(_grid(across(tick), across(tick), 0, bottom))
        written = f"{tick:.0%}" if form.endswith("%") else _tick(tick)
        parts.append(label_at(across(tick), bottom + 16, written, "middle"))
    for row, name in enumerate(drawn):
        top = row * tall + _GAP / 2
        middle = top + (tall - _GAP) / 2 + 4
        parts.append(label_at(_LABEL - 12, middle, shortened(" ".join(name.split()), _LONGEST_LABEL), "end", name))
        n = number(mapping(groups[name]).get("n"))
        parts.append(label_at(_WIDTH - _COUNT + 14, middle, "" if n is None else f"n = {n:,.0f}", "start"))
        for line, (model, colour) in enumerate(css.items()):
            y = top + _LINE * (line + 0.5)
            parts.append(_dot(cells[name][model], across, y, str(escape(colour)), f"{name}, {model}", form))
    return svg(_WIDTH, bottom + 24, title, parts), rest


def _dot(cell: Mapping[str, float | None], across: Any, y: float, colour: str, name: str, form: str) -> str:
    value, low, high = cell["value"], cell["low"], cell["high"]
    if value is None:
        return ""
    tip = f"<title>{escape(name)}: {shown(value, form)} {span(low, high, form)}</title>"
    whisker = ""
    if low is not None and high is not None:
        whisker = (
            f'<line class="line {colour}" x1="{px(across(low))}" x2="{px(across(high))}" y1="{px(y)}" y2="{px(y)}"/>'
        )
    return f'<g>{tip}{whisker}<circle class="{colour}" cx="{px(across(value))}" cy="{px(y)}" r="4"/></g>'


def _of(group: Any, model: str, figure: str) -> dict[str, float | None]:
    found = mapping(mapping(mapping(mapping(group).get("figures")).get(model)).get(figure))
    return {end: number(found.get(end)) for end in ("value", "low", "high")}


def _grid(x1: float, x2: float, y1: float, y2: float) -> str:
    return f'<line class="grid" x1="{px(x1)}" x2="{px(x2)}" y1="{px(y1)}" y2="{px(y2)}"/>'


def _scale(low: float, high: float, start: float, end: float) -> Any:
    """The place of a value between two places; everything is in the middle where there is only one value."""
    wide = high - low
    return lambda value: start + (end - start) * ((value - low) / wide if wide else 0.5)


def _ticks(values: Sequence[float], most: int = 6, least: float = 0.0) -> list[float]:
    """Round numbers, 1, 2 or 5 times a power of ten apart, that enclose the values; `least` apart or more."""
    low, high = min(values, default=0.0), max(values, default=1.0)
    if high == low:
        low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = max(least, next(size * power for size in (1, 2, 5, 10, 20) if (high - low) / (size * power) <= most))
    return [step * place for place in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _tick(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:,.4g}" if abs(value) < 10_000 else short(value)
