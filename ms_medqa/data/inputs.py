"""What the user names as input: files, folders and patterns, each with a weight → files."""

from __future__ import annotations

import glob
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.data.raw import printable

KNOWN_SUFFIXES = (
    ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xlsx", ".xlsm", ".parquet", ".xml", ".txt", ".md",
)  # fmt: skip
# Texts about a folder's records, which are none themselves. A file that is named is read whatever it is called.
_ABOUT = ("readme", "license", "licence", "notice", "changelog", "citation", "requirements")


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to be read.

    Attributes:
        path: the file.
        weight: how often each of its records is to be taken on average; 0.5 is half of them, 2 each twice.
        name: the shortest end of its path that tells it from the others, for reports.
    """

    path: Path
    weight: float = 1.0
    name: str = ""


def expand_inputs(inputs: Sequence[str | Path]) -> list[InputFile]:
    """The files behind the inputs, in the order of the inputs; those of a folder or pattern sorted by path.

    An input is a file, a folder (read with all folders in it: files of known kinds, gzipped or not, without hidden ones
    and without such as `README.md`), or a pattern with `*`, `?`, `[…]` and `**`. `PATH@WEIGHT` gives its files a
    weight, unless a file of just this name exists.

    Raises:
        UserError: an input is absent, matches nothing, holds no file of a known kind or is named twice; a weight is not
            a number above 0.
    """
    found: list[tuple[Path, float]] = []
    for item in inputs:
        path, weight = _split_weight(item)
        found += [(file, weight) for file in _files(path)]
    if not found:
        raise UserError("no input file")
    for real, count in Counter(os.path.realpath(path) for path, _ in found).items():
        if count > 1:
            path = next(path for path, _ in found if os.path.realpath(path) == real)
            raise UserError(f"{printable(path)}: named {count} times")
    names = _short_names([path for path, _ in found])
    return [InputFile(path, weight, name) for (path, weight), name in zip(found, names, strict=True)]


def suffix_of(path: Path) -> str:
    """What kind of file its name says it is, in small letters, without `.gz`."""
    return Path(_unpacked_name(path)).suffix.lower()


def stem_of(path: Path) -> str:
    """Its name without that suffix and without `.gz`."""
    return Path(_unpacked_name(path)).stem


def _unpacked_name(path: Path) -> str:
    return path.name[:-3] if path.name.lower().endswith(".gz") and len(path.name) > 3 else path.name


def _split_weight(item: str | Path) -> tuple[Path, float]:
    path = user_path(item)
    before, mark, number = str(path).rpartition("@")
    if not mark or not before or os.path.lexists(path):
        return path, 1.0
    try:
        weight = float(number)
    except ValueError:
        if os.path.lexists(before):
            raise UserError(f"{printable(item)}: the weight {number!r} is no number", "such as PATH@0.5") from None
        return path, 1.0
    if not math.isfinite(weight) or weight <= 0:
        raise UserError(f"{printable(item)}: a weight must be above 0", "such as PATH@0.5; leave the file out for 0")
    return Path(before), weight


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        files = _folder(path)
        if not files:
            raise UserError(f"{printable(path)}: no file of a known kind in this folder", _known())
        return files
    if os.path.lexists(path) or not glob.has_magic(str(path)):
        return [path]
    matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
    files = []
    for match in matches:
        if match.is_file():
            files += [match] if suffix_of(match) in KNOWN_SUFFIXES and not match.name.startswith("~$") else []
        elif "**" not in path.parts:  # which reaches into folders by itself
            files += _folder(match)
    if not files:
        what = "no file of a known kind" if matches else "nothing"
        raise UserError(f"{printable(path)}: {what} matches this pattern", _known() if matches else None)
    return files


def _folder(folder: Path) -> list[Path]:
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        files += [Path(root, name) for name in names if _is_record_file(name)]
    return sorted(files)


def _is_record_file(name: str) -> bool:
    # Excel leaves `~$NAME.xlsx` beside a workbook that is open.
    if name.startswith((".", "~")) or suffix_of(Path(name)) not in KNOWN_SUFFIXES:
        return False
    return not (suffix_of(Path(name)) in (".txt", ".md") and name.lower().startswith(_ABOUT))


def _known() -> str:
    return f"known are {' '.join(KNOWN_SUFFIXES)}, each also with .gz behind it"


def _short_names(paths: Sequence[Path]) -> list[str]:
    # A link keeps its own name: what it leads to may be called by a hash, as in the caches of download tools.
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    names = [""] * len(parts)
    length, left = 1, list(range(len(parts)))
    while left:
        counts = Counter(parts[i][-length:] for i in left)
        for i in left:
            if counts[parts[i][-length:]] == 1 or length >= len(parts[i]):
                names[i] = printable("/".join(parts[i][-length:]))
        left = [i for i in left if not names[i]]
        length += 1
    return names
