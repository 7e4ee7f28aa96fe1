"""Two texts beside each other on a terminal."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import zip_longest

# Below, columns would be too narrow to read.
_WIDE = 100
_GAP = " │ "
_BLANK = re.compile(r"\s+")


def side_by_side(texts: dict[str, str], width: int) -> str:
    """Texts under their titles: beside each other where there is room, otherwise one below the other.

    Args:
        texts: title -> text.
        width: of the terminal, in cells.
    """
    if width < _WIDE:
        return "\n".join(f"{title}:\n" + "\n".join(_wrap(text, width)) for title, text in texts.items())
    cells = (width - len(_GAP) * (len(texts) - 1)) // len(texts)
    columns = [[title, "─" * cells, *_wrap(text, cells)] for title, text in texts.items()]
    rows = zip_longest(*columns, fillvalue="")
    return "\n".join(_GAP.join(line + " " * (cells - cells_of(line)) for line in row).rstrip() for row in rows)


def cells_of(text: str) -> int:
    """How many cells of a terminal a text takes: a Chinese character two, a mark on a letter none."""
    return sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken at blanks and between Chinese characters."""
    lines = []
    for paragraph in text.strip().splitlines():
        line = ""
        for unit in _units(paragraph, width):
            if line and cells_of(line) + cells_of(unit.rstrip()) > width:
                lines.append(line.rstrip())
                line = ""
            line += unit if line else unit.lstrip()
        lines.append(line.rstrip())
    return lines


def _units(paragraph: str, width: int) -> Iterator[str]:
    """What a line may not be broken within: a word with the blank behind it, a Chinese character."""
    unit = ""
    for character in _BLANK.sub(" ", paragraph):
        # What a terminal would take for a command is not shown.
        if unicodedata.category(character) == "Cc":
            continue
        ends = unit.endswith(" ") or 2 in (_cells(unit[-1:] or " "), _cells(character))
        if _cells(character) and unit and (ends or cells_of(unit) + _cells(character) > width):
            yield unit
            unit = ""
        unit += character
    if unit:
        yield unit
