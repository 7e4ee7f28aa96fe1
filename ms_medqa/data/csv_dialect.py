"""How the fields of a CSV file are separated and quoted, found from its first lines."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# A text may hold any of these, a header hardly: the earlier wins where they are equal.
_DELIMITERS = (",", "\t", ";", "|")
_WORDS = {",": "CSV", "\t": "TSV", ";": "CSV (semicolons)", "|": "CSV (bars)", ":": "CSV (colons)"}
_NO_DELIMITER = "\x1f"


@dataclass(frozen=True, slots=True)
class Dialect:
    """What the csv module needs to know.

    Attributes:
        delimiter: between fields.
        quote: around fields.
        escape: before a quote inside a field; None where the quote is doubled.
    """

    delimiter: str = ","
    quote: str = '"'
    escape: str | None = None

    @property
    def words(self) -> str:
        """The layout for people."""
        return _WORDS.get(self.delimiter, "CSV (one column)")

    def reader(self, lines: Iterator[str], *, strict: bool) -> Iterator[list[str]]:
        """The csv module's reader.

        Args:
            lines: with their line ends.
            strict: a stray quote is an error of its row and does not silently join it with the rows below.
        """
        return csv.reader(
            lines,
            delimiter=self.delimiter,
            quotechar=self.quote,
            escapechar=self.escape,
            doublequote=self.escape is None,
            strict=strict,
        )


def find_dialect(lines: Sequence[str], *, tabs: bool) -> Dialect:
    """The dialect by which most rows have as many fields as the header.

    Args:
        lines: the first lines of the file, with their line ends; blank ones before the header are left out.
        tabs: the file's name says that tabs separate.
    """
    quotes = _quotes(lines)
    found = [(Dialect(mark, *quote), *_fit(lines, Dialect(mark, *quote))) for mark in _DELIMITERS for quote in quotes]
    found = [item for item in found if item[1] > 1]
    if tabs and (tabbed := [item for item in found if item[0].delimiter == "\t"]):
        found = tabbed
    if not found:
        # A colon is common inside texts, so it counts only where nothing else separates.
        found = [(Dialect(":", *quote), *_fit(lines, Dialect(":", *quote))) for quote in quotes]
        found = [item for item in found if item[1] > 1 and item[2] > 0.9]
    if not found:
        return Dialect() if _fit(lines, Dialect())[1] == 1.0 else Dialect(_NO_DELIMITER)
    return max(found, key=lambda item: (round(item[2], 1), item[1]))[0]


def _quotes(lines: Sequence[str]) -> list[tuple[str, str | None]]:
    """The ways of quoting that the lines may use; the usual one comes first, and wins where others are no better."""
    text = "".join(lines)
    ways: list[tuple[str, str | None]] = [('"', None)]
    if '\\"' in text:
        ways.append(('"', "\\"))
    starts = sum(line.lstrip().startswith("'") for line in lines)
    ends = sum(line.rstrip().endswith("'") for line in lines)
    if '"' not in lines[0] and min(starts, ends) * 2 > len(lines):
        ways.insert(0, ("'", None))
    elif "'" in text and '"' not in text:
        ways.append(("'", None))
    return ways


def _fit(lines: Sequence[str], dialect: Dialect) -> tuple[int, float]:
    """Fields of the header, and the share of the other rows that have as many."""
    reader = dialect.reader(iter(lines), strict=True)
    counts = []
    while True:
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error:
            counts.append(0)
            continue
        if any(cell.strip() for cell in row):
            counts.append(len(row))
    if not counts:
        return 0, 0.0
    header, *rows = counts
    if len(rows) > 1 and rows[-1] != header:
        rows.pop()  # the sample may end inside a row
    return header, sum(count == header for count in rows) / len(rows) if rows else 1.0
