"""Confusion matrices of a report, small enough to be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ms_medqa.evaluation.report.numbers import NOTHING, counted, listing, number, text

# More classes than this are joined, those with the fewest items.
_MOST_LABELS = 40
# Steps of the shading.
SHADES = 10


@dataclass(frozen=True, slots=True)
class Confusion:
    """How often items of one class were given another.

    Attributes:
        columns: the classes that were given.
        rows: for each right class its name, the (count, shade) of each column, and the sum of the row. The shade is the
            share of the row, from 0 to `SHADES`.
    """

    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[tuple[str, int]], str]]


def confusion_of(matrix: Mapping[str, Any], words: Mapping[str, str]) -> Confusion:
    """The table of {"labels": n names, "counts": n rows (right class) of columns (given class)}.

    Columns without a label keep their counts. Of more than 40 classes, those with the fewest items are summed up.
    """
    counts = [[int(number(value) or 0) for value in listing(row)] for row in listing(matrix.get("counts"))]
    labels = [text(label) for label in listing(matrix.get("labels"))]
    wide = max([len(labels), len(counts), *map(len, counts)])
    labels += [NOTHING] * (wide - len(labels))
    square = [row + [0] * (wide - len(row)) for row in counts]
    square += [[0] * wide for _ in range(wide - len(square))]
    if wide > _MOST_LABELS:
        labels, square = _joined(labels, square, words)
    return Confusion(
        labels, [_row(label, row) for label, row in zip(labels, square, strict=True) if label != NOTHING or any(row)]
    )


def _row(label: str, row: Sequence[int]) -> tuple[str, Sequence[tuple[str, int]], str]:
    total = sum(row)
    return label, [(counted(count), round(SHADES * count / total) if total else 0) for count in row], counted(total)


def _joined(labels: list[str], square: list[list[int]], words: Mapping[str, str]) -> tuple[list[str], list[list[int]]]:
    """The largest classes, and one more for all the others."""
    sizes = [sum(row) + sum(column) for row, column in zip(square, zip(*square, strict=True), strict=True)]
    largest = sorted(range(len(labels)), key=lambda i: (-sizes[i], i))[: _MOST_LABELS - 1]
    kept = sorted(largest)
    rest = [i for i in range(len(labels)) if i not in set(kept)]

    def joined(row: Sequence[int]) -> list[int]:
        return [*(row[i] for i in kept), sum(row[i] for i in rest)]

    other = [sum(column) for column in zip(*(square[i] for i in rest), strict=True)]
    name = words["other_labels"].format(count=len(rest))
    return [*(labels[i] for i in kept), name], [*(joined(square[i]) for i in kept), joined(other)]
