"""Two kinds of chart as inline SVG: columns of a histogram and stacked bars. Colours are classes of the page's CSS."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from ms_medqa.config.side_by_side import cells_of

# More columns than this are joined.
_MOST_COLUMNS = 40
_WIDTH, _HEIGHT = 360, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 8, 8, 34
_ROW, _BAR, _LABEL, _VALUE, _WIDE = 26, 16, 190, 76, 760
# In cells: a Chinese character takes two.
_LONGEST_LABEL = 28


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    css: str,
    axis: str,
    title: str | None = None,
    span: str = "{} to less than {}",
    most: int = 0,
) -> Markup:
    """Columns of one series, each with its range and count as tooltip.

    Every bin is as wide as any other on the page, so a last bin for all that is longer does not squeeze the rest.

    Args:
        edges: n + 1 rising numbers; bin i is [edge i, edge i + 1).
        counts: n numbers.
        css: class of the columns.
        axis: what the numbers are.
        title: what it is, for screen readers; by default in English, of records.
        span: how the range of a column is written, with the places of its two ends.
        most: the count that the scale reaches at least, so that charts beside each other have the same.
    """
    edges, counts = _joined(list(edges), list(counts))
    top = _axis_end(max([most, *counts]))
    plot, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    slot = plot / max(1, len(counts))
    parts = []
    for share in (0, 0.5, 1):
        y = _TOP + high * (1 - share)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{px(y)}" y2="{px(y)}"/>')
        parts.append(label_at(_LEFT - 6, y + 4, short(top * share), "end"))
    for number, (count, (low, end)) in enumerate(zip(counts, itertools.pairwise(edges), strict=True)):
        if not count:
            continue
        tall = max(1.0, high * count / top)
        gap = min(2.0, slot / 4)
        parts.append(
            f'<rect class="{escape(css)}" x="{px(_LEFT + number * slot + gap / 2)}" y="{px(_TOP + high - tall)}" '
            f'width="{px(slot - gap)}" height="{px(tall)}">'
            f"<title>{escape(_range(low, end, span))}: {count:,}</title></rect>"
        )
    # A wider last bin begins where the scale ends, so its end has no place on it.
    more = len(edges) > 3 and edges[-1] - edges[-2] != edges[1] - edges[0]
    last = len(edges) - (2 if more else 1)
    step = max(1, math.ceil(last / 5))
    for number in range(0, last + 1, step):
        parts.append(label_at(_LEFT + number * slot, _HEIGHT - _BOTTOM + 15, short(edges[number]), "middle"))
    parts.append(label_at(_LEFT + plot / 2, _HEIGHT - 4, axis, "middle"))
    total = sum(counts)
    return svg(_WIDTH, _HEIGHT, title or f"Histogram of {total:,} records by {axis}", parts)


def bars(rows: Mapping[str, Mapping[str, int]], css: Mapping[str, str], *, title: str) -> Markup:
    """A horizontal bar for each row, stacked from its series, with the sum behind it.

    Args:
        rows: label → series → number.
        css: series → class of its pieces; other series are not drawn.
        title: what it is, for screen readers.
    """
    sums = {label: sum(max(0, values.get(name, 0)) for name in css) for label, values in rows.items()}
    most = max(sums.values(), default=0) or 1
    plot = _WIDE - _LABEL - _VALUE
    parts = []
    for number, (label, values) in enumerate(rows.items()):
        y = number * _ROW + (_ROW - _BAR) / 2
        middle = y + _BAR / 2 + 4
        parts.append(label_at(_LABEL - 8, middle, shortened(label, _LONGEST_LABEL), "end", tooltip=label))
        x = float(_LABEL)
        for name, colour in css.items():
            value = values.get(name, 0)
            if value <= 0:
                continue
            wide = max(1.0, plot * value / most)
            # A gap of the page's colour tells neighbours apart without any outline.
            parts.append(
                f'<rect class="{escape(colour)}" x="{px(x)}" y="{px(y)}" width="{px(max(1.0, wide - 2))}" '
                f'height="{_BAR}" rx="2"><title>{escape(label)}, {escape(name)}: {value:,}</title></rect>'
            )
            x += wide
        parts.append(label_at(x + 6, middle, f"{sums[label]:,}", "start"))
    return svg(_WIDE, max(1, len(rows)) * _ROW, title, parts)


def svg(width: int, height: int, title: str, parts: Sequence[str]) -> Markup:
    """A chart from its parts, each of which is finished markup, escaped by whoever made it."""
    head = f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(title)}">'
    return Markup(head + "".join(parts) + "</svg>")  # noqa: S704


def label_at(x: float, y: float, text: str, anchor: str, tooltip: str | None = None) -> str:
    """A text in a chart, escaped; `anchor` is "start", "middle" or "end"."""
    title = f"<title>{escape(tooltip)}</title>" if tooltip is not None else ""
    return f'<text x="{px(x)}" y="{px(y)}" text-anchor="{anchor}">{escape(text)}{title}</text>'


def shortened(text: str, cells: int) -> str:
    """A text of at most so many cells, a Chinese character taking two; a longer one ends in "…"."""
    if cells_of(text) <= cells:
        return text
    text = text[:cells]
    while cells_of(text) > cells - 1:
        text = text[:-1]
    return text + "…"


def short(number: float) -> str:
    """A number on an axis: 12,000 as 12k."""
    if number >= 1_000_000:
        return f"{number / 1_000_000:.4g}M"
    return f"{number / 1000:.4g}k" if number >= 10_000 else f"{number:,.10g}"


def px(number: float) -> str:
    """A coordinate, short and the same on every machine."""
    return f"{number:.1f}".removesuffix(".0")


def _joined(edges: list[float], counts: list[int]) -> tuple[list[float], list[int]]:
    size = math.ceil(len(counts) / _MOST_COLUMNS)
    if size <= 1:
        return edges, counts
    return [*edges[:-1:size], edges[-1]], [sum(counts[i : i + size]) for i in range(0, len(counts), size)]


def _axis_end(most: float) -> int:
    """The next number above that is even and short, so that its half can be written too."""
    power = 10 ** max(0, int(math.log10(max(1, most))) - 1)
    return next(step * power for step in itertools.chain(range(2, 20, 2), range(20, 201, 10)) if step * power >= most)


def _range(low: float, end: float, span: str) -> str:
    return f"{low:,g}" if end == low + 1 else span.format(f"{low:,.10g}", f"{end:,.10g}")
