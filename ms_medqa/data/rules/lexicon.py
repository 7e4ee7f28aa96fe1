"""Medical names from files of the user, and how many records name one."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.data.text import to_nfkc

# What columns of names are called; in other tables the column with the most text is taken.
_COLUMNS = ("name", "names", "term", "disease", "drug", "diagnosis", "generic_name", "名称", "名字", "术语", "疾病")
_COLUMNS += ("疾病名称", "诊断名称", "药品名称", "药名", "通用名", "通用名称", "药品通用名")
# Code columns such as A00.0.
_CODE = re.compile(r"[A-Za-z]?[\d.*+†-]+[A-Za-z]?[\d.]*")


class Lexicon:
    """Finds names in texts.

    Args:
        paths: text files (a name a line), CSV or TSV files (a column of names, found by its header or as the column
            with the most text). UTF-8 or GB18030. Letter case and full-width forms do not matter. Names of one
            character, and of two where they are ASCII, are left out: they are found everywhere.

    Attributes:
        names: the entries, without repeats, in the order of the files.

    Raises:
        UserError: a file is absent, not text, or holds no name.
    """

    def __init__(self, paths: Sequence[str | Path]) -> None:
        self.names: list[str] = []
        numbers: dict[str, int] = {}
        for path in (user_path(path) for path in paths):
            before = len(numbers)
            found = False
            for name in _read(path):
                key = _normalise(name).strip()
                if len(key) < 2 or (len(key) == 2 and key.isascii()):
                    continue
                found = True
                if key not in numbers:
                    numbers[key] = len(numbers)
                    self.names.append(name)
            if not found and before == len(numbers):
                raise UserError(f"lexicon {path}: no name in it", "one name a line, or a table with a column of names")
        self._numbers = numbers
        lengths: defaultdict[str, set[int]] = defaultdict(set)
        for key in numbers:
            lengths[key[:2]].add(len(key))
        # By its first two characters: how long a name may be, the longest first.
        self._lengths = {start: tuple(sorted(sizes, reverse=True)) for start, sizes in lengths.items()}

    def find(self, texts: Iterable[str]) -> tuple[int, ...]:
        """Numbers of the names in the texts, rising. At each place the longest name counts; names do not overlap."""
        found: set[int] = set()
        for text in texts:
            self._find(_normalise(text), found)
        return tuple(sorted(found))

    def _find(self, text: str, found: set[int]) -> None:
        lengths, numbers, done = self._lengths, self._numbers, 0
        for place, start in enumerate(map("".join, itertools.pairwise(text))):
            if start not in lengths or place < done:
                continue
            for length in lengths[start]:
                end = place + length
                number = numbers.get(text[place:end])
                if number is not None and end <= len(text) and _is_word(text, place, end):
                    found.add(number)
                    done = end
                    break


class Coverage:
    """Counts over the records of a conversion: `add` the `terms` of each kept record."""

    def __init__(self) -> None:
        self.records = 0
        self.naming = 0
        self._seen: set[int] = set()

    def add(self, terms: Sequence[int]) -> None:
        """Count a record."""
        self.records += 1
        self.naming += bool(terms)
        self._seen.update(terms)

    def to_dict(self, entries: int) -> dict[str, Any]:
        """For the report: `entries` of the lexicon, `seen` of them, `records` that name one, and their `share`."""
        share = self.naming / self.records if self.records else 0.0
        return {"entries": entries, "seen": len(self._seen), "records": self.naming, "share": round(share, 4)}


def _is_word(text: str, start: int, end: int) -> bool:
    """False where a Latin name is only a part of a word."""
    return not (
        (_latin(text[start]) and start > 0 and _latin(text[start - 1]))
        or (_latin(text[end - 1]) and end < len(text) and _latin(text[end]))
    )


def _latin(character: str) -> bool:
    return character.isascii() and character.isalnum()


def _normalise(text: str) -> str:
    return to_nfkc(text).lower()


def _read(path: Path) -> Iterator[str]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"lexicon {path}: no such file") from None
    except OSError as error:
        raise UserError(f"lexicon {path}: {error.strerror}") from None
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            text = content.decode(encoding)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise UserError(f"lexicon {path}: neither UTF-8 nor GB18030 text")
    if "\0" in text:
        raise UserError(f"lexicon {path}: not a text file", "give a text, CSV or TSV file")
    if path.suffix.lower() not in (".csv", ".tsv"):
        return (line for line in map(str.strip, text.splitlines()) if line)
    head = text.split("\n", 1)[0]
    # Some files called .csv hold tabs.
    delimiter = max("\t,;|", key=head.count)
    try:
        rows = [row for row in csv.reader(io.StringIO(text), delimiter=delimiter) if row]
    except csv.Error as error:
        raise UserError(f"lexicon {path}: not readable as a table ({error})") from None
    return _column(rows)


def _column(rows: list[list[str]]) -> Iterator[str]:
    if not rows:
        return iter(())
    header = [cell.strip().lower() for cell in rows[0]]
    column = next((header.index(name) for name in _COLUMNS if name in header), None)
    body = rows if column is None else rows[1:]
    if column is None:
        sizes = [0] * max(map(len, rows))
        for row in rows:
            for i, cell in enumerate(row):
                sizes[i] += 0 if _CODE.fullmatch(cell.strip()) else len(cell)
        column = sizes.index(max(sizes))
    return (row[column].strip() for row in body if len(row) > column and row[column].strip())
