"""Texts of users in Markdown: shown as they are, whatever they hold."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ms_medqa.evaluation.report.numbers import clean

_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
# Emphasis, code, links, images, tables, headings, strike-through and formulas.
_MARKS = re.compile(r"[\\`*_\[\]|~#$]")
# Lists, rules, and headings by what stands under them.
_START = re.compile(r"^(?:[-+=]|\d+[.)](?=\s|$))")
_FENCE = re.compile(r"`+")


def inline(text: str) -> str:
    """A text on one line that Markdown leaves as it is, in a table too."""
    line = " ".join(clean(text).split())
    line = "".join(_ENTITIES.get(character, character) for character in line)
    line = _MARKS.sub(r"\\\g<0>", line)
    return _START.sub(lambda found: f"{found[0][:-1]}\\{found[0][-1]}", line)


def block(text: str, language: str = "") -> str:
    """A text as a block of code, with a fence that does not stand in it."""
    text = clean(text)
    fence = "`" * max(3, 1 + max(map(len, _FENCE.findall(text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def quote(text: str) -> str:
    """A text of several lines as a quotation."""
    return "\n".join(f"> {inline(line)}".rstrip() + "  " for line in clean(text).split("\n")).rstrip()


def grid(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A table of finished cells, the first columns to the left, the others to the right."""
    lines = [head, [":--" if place < left else "--:" for place in range(len(head))], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
