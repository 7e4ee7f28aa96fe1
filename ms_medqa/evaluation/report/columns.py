"""Columns of a terminal, where a Chinese character takes two cells."""

from __future__ import annotations

from collections.abc import Sequence

from ms_medqa.config.side_by_side import cells_of


def aligned(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """A line for each row, the first `left` columns flush left and the others flush right."""
    widths = [max(map(cells_of, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        blanks = [" " * (width - cells_of(cell)) for cell, width in zip(row, widths, strict=True)]
        pairs = enumerate(zip(row, blanks, strict=True))
        lines.append(
            "  ".join(cell + blank if place < left else blank + cell for place, (cell, blank) in pairs).rstrip()
        )
    return lines
