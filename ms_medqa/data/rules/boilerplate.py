"""Answers that say nothing, from a list of wordings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.data.text import to_nfkc
from ms_medqa.data.user_yaml import read_list

SHIPPED = Path(__file__).with_name("boilerplate_zh_en.yaml")
# Characters by which most answers are told from all entries.
_HEAD = 6
# The stroke stays: N/A is no answer, Na is sodium.
_REST = re.compile(r"[^\w/]+")


class BoilerplateList:
    """The shipped wordings and those of the user's files.

    Args:
        paths: YAML files, each a list of whole answers or of `{starts: …}` mappings.

    Raises:
        UserError: a file is absent or not such a list.
    """

    def __init__(self, paths: Sequence[str | Path] = ()) -> None:
        self._whole: dict[str, str] = {}
        self._starts: dict[str, str] = {}
        for path in (SHIPPED, *paths):
            path = user_path(path)
            entries = read_list(path, "boilerplate answers", "one phrase a line, such as `- 请咨询医生`")
            for number, entry in enumerate(entries, start=1):
                starts = isinstance(entry, dict) and set(entry) == {"starts"}
                text: Any = entry["starts"] if starts else entry
                if not isinstance(text, str) or not _letters(text):
                    raise UserError(
                        f"boilerplate answers {path}: entry {number} is not a text",
                        "write `- ANSWER` or `- {starts: BEGINNING}`, a number or a word such as null in quotes",
                    )
                (self._starts if starts else self._whole).setdefault(_letters(text), text)
        # All beginnings in one pattern; its longest first, so that the match names the closest one.
        options = "|".join(map(re.escape, sorted(self._starts, key=len, reverse=True)))
        self._start = re.compile(options) if options else None
        # Two letters of each: nearly all answers begin otherwise, and need not be looked at further.
        self._beginnings = {letters[:2] for letters in (*self._whole, *self._starts)}
        # Twice the length leaves room for punctuation and for forms that NFKC changes.
        self._enough = 2 * max(map(len, (*self._whole, *self._starts))) + 32

    def find(self, answer: str) -> str | None:
        """The entry that `answer` is or begins with, as its author wrote it, or None."""
        letters = _letters(answer[:_HEAD])
        # Where there is a third letter, nothing behind the head can be composed with the first two.
        if len(letters) > 2 and letters[:2] not in self._beginnings and letters[0] not in self._beginnings:
            return None
        letters = _letters(answer[: self._enough])
        if len(answer) <= self._enough and letters in self._whole:
            return self._whole[letters]
        match = self._start.match(letters) if self._start else None
        return self._starts[match[0]] if match else None


def _letters(text: str) -> str:
    # The underscore apart: a class alone is searched faster than two alternatives.
    return _REST.sub("", to_nfkc(text)).replace("_", "").casefold()
