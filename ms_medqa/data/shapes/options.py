"""The options of an exam question, in whatever layout, and which of them are right."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ms_medqa.data.columns import FormatError, Row, from_json_cell, is_nothing, kind_of
from ms_medqa.data.shapes.common import is_blank
from ms_medqa.data.shapes.names import OPTIONS
from ms_medqa.data.text import normalize

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# One column for each option: MedMCQA's; C-Eval's and MMLU's; and their like.
_FAMILIES = tuple(
    tuple(pattern.format(letter) for letter in letters)
    for pattern, letters in (
        ("op{}", "abcdefgh"),
        ("{}", "abcdefgh"),
        ("option_{}", "abcdefgh"),
        ("option{}", "abcdefgh"),
        ("option {}", "abcdefgh"),
        ("选项{}", "abcdefgh"),
        ("option_{}", "12345678"),
        ("option{}", "12345678"),
    )
)
_ITEM_KEYS = ("key", "label", "id", "letter", "no")
_ITEM_TEXTS = ("value", "text", "content", "option")
# `A. text`, `(A) text`, `A、text`, `A：text`.
_LETTERED = re.compile(r"\s*[(（]?([A-Za-z])[)）.．、:：]\s*(.*)", re.DOTALL)
_LINE_MARK = r"(?:^|\n)[ \t]*[(（]?{}(?:[)）.．、:：]|[ \t])[ \t]*"
_BARE_MARK = r"(?:^|\n)[ \t]*{}(?=[^\x00-\x7f])"
# Line breaks that were written as the two characters of a program's text.
_ESCAPED_BREAK = r"\n"
_ESCAPED_MARK = r"(?:^|\\n)[ \t]*[(（]?{}(?:[)）.．、:：]|[ \t]|(?=[^\x00-\x7f]))[ \t]*"
_INLINE_MARK = r"(?:^|[\s;；,，])[(（]?{}[)）.．、:：][ \t]*"
_SEPARATORS = re.compile(r"[\s,，、;；|/&和]+|and")
_ANNOUNCED = re.compile(r"(?:(?:正确)?答案|(?:the )?(?:correct )?answer)\s*(?:is|是|为)?\s*[:：]?\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Options:
    """Options in their order.

    Attributes:
        keys: how the record calls them, such as `A` or `1`.
        texts: what they say, without letters.
    """

    keys: tuple[str, ...]
    texts: tuple[str, ...]

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.texts)]

    def text(self, letter: str) -> str:
        return self.texts[LETTERS.index(letter)]

    def line(self, letter: str) -> str:
        """An option as it is shown and answered: `B. text`."""
        return f"{letter}. {self.text(letter)}"

    def block(self) -> str:
        """All options, one a line."""
        return "\n".join(map(self.line, self.letters))

    def right(self, value: Any, first: int) -> str | None:
        """The letters of the right options that a cell names, in order; None where it names none of them.

        Known are letters (`B`, `b`, `ABD`, `A,B,D`), the record's own keys, an option's text, `B. text`, `答案：B`, a
        number, and a list of these.

        Args:
            value: of the cell.
            first: the number of the first option where they are counted.
        """
        found: set[str] = set()
        for item in value if isinstance(value, list) else [value]:
            letters = self._one(item, first)
            if letters is None:
                return None
            found |= set(letters)
        return "".join(sorted(found)) or None

    def _one(self, value: Any, first: int) -> str | None:
        if isinstance(value, bool) or is_blank(value):
            return None
        # The record's own numbers go before any counting.
        if str(value).isdigit() and str(value) in self.keys:
            return LETTERS[self.keys.index(str(value))]
        if isinstance(value, int | float):
            return self._counted(value, first)
        text = normalize(str(value))
        folded, texts = _fold(text), [_fold(option) for option in self.texts]
        # One letter is a letter even where an option says just that; more of them may be an abbreviation.
        letters = _SEPARATORS.sub("", text).strip("()（）.．")
        if len(letters) == 1 or (letters.isupper() and folded not in texts):
            letters = letters.upper()
            if len(letters) == 1 and letters in self.keys and not letters.isdigit():
                return LETTERS[self.keys.index(letters)]
            if letters and set(letters) <= set(self.letters) and len(set(letters)) == len(letters):
                return letters
        if folded in texts:
            return LETTERS[texts.index(folded)]
        if re.fullmatch(r"\d{1,2}(?:\.0)?", text):
            return self._counted(float(text), first)
        if (lettered := _LETTERED.match(text)) and lettered[1].upper() in self.letters:
            option = texts[LETTERS.index(lettered[1].upper())]
            # Behind the option an explanation may follow, on lines of its own.
            if (
                not option
                or _fold(lettered[2]) == option
                or _fold(lettered[2].split("\n", 1)[0]) == option.split("\n")[0]
            ):
                return lettered[1].upper()
        if (announced := _ANNOUNCED.match(text)) and announced.end() < len(text):
            return self._one(text[announced.end() :], first)
        return None

    def _counted(self, number: float, first: int) -> str | None:
        place = number - first
        return LETTERS[int(place)] if 0 <= place < len(self.texts) and place == int(place) else None


def option_columns(row: Row) -> tuple[str, ...]:
    """The column of all options, or the columns of one each; empty where there are none."""
    column = row.find("options", OPTIONS)
    if column is not None and not is_blank(row.raw(column)):
        return (column,)
    for family in _FAMILIES:
        if row.has(family[0]) and row.has(family[1]):
            return tuple(name for name in family if row.has(name))
    return ("answers",) if row.has("answers") and _is_lettered(from_json_cell(row.raw("answers"))) else ()


def _is_lettered(value: Any) -> bool:
    """True for `{"a": …, "b": …}`: answers to choose from, unlike the answers to a question."""
    return isinstance(value, Mapping) and len(value) > 1 and all(re.fullmatch("[A-Za-z]", str(key)) for key in value)


def read_options(row: Row, columns: Sequence[str]) -> Options:
    """The options that stand in those columns; empty ones at the end do not count.

    Raises:
        FormatError: fewer than two or more than 26 options, one of them empty, or a cell they cannot be told in.
    """
    if len(columns) > 1:
        items = [(name[-1].upper(), row.raw(name)) for name in columns]
    else:
        items = _items(from_json_cell(row.raw(columns[0])), columns[0])
    named = [(key, row.to_text(text, columns[0])) for key, text in items]
    while named and not named[-1][1]:
        named.pop()
    keys, texts = [key for key, _ in named], _without_letters([text for _, text in named])
    if not 2 <= len(texts) <= len(LETTERS):
        raise FormatError(f"column {columns[0]!r} holds {len(texts)} options, an exam question has 2 to {len(LETTERS)}")
    if "" in texts:
        raise FormatError(f"option {LETTERS[texts.index('')]} is empty")
    return Options(tuple(keys), tuple(texts))


def _items(value: Any, column: str) -> list[tuple[str, Any]]:
    """Key and text of each option in a cell."""
    if isinstance(value, str):
        return _numbered(_split_cell(value, column))
    if isinstance(value, Mapping) and isinstance(value.get("text"), list):
        # ARC's and CommonsenseQA's: texts and labels side by side.
        labels = value.get("label")
        if not isinstance(labels, list) or len(labels) != len(value["text"]):
            return _numbered(value["text"])
        return [(str(key).strip().upper(), text) for key, text in zip(labels, value["text"], strict=True)]
    if isinstance(value, Mapping):
        items = [(str(key).strip().upper(), text) for key, text in value.items()]
        # An object's order means nothing where its keys have one.
        return sorted(items, key=lambda item: item[0]) if all(len(key) == 1 for key, _ in items) else items
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return [_item(item, letter) for letter, item in _numbered(value)]
    if isinstance(value, list):
        return _numbered(value)
    raise FormatError(f"column {column!r} holds {kind_of(value)}, not options")


def _numbered(texts: Sequence[Any]) -> list[tuple[str, Any]]:
    # More options than letters are refused once they are counted.
    return [(LETTERS[i] if i < len(LETTERS) else f"#{i}", text) for i, text in enumerate(texts)]


def _item(item: Mapping[str, Any], letter: str) -> tuple[str, Any]:
    text = next((item[key] for key in _ITEM_TEXTS if key in item), None)
    key = next((item[key] for key in _ITEM_KEYS if not is_nothing(item.get(key))), letter)
    return str(key).strip().upper(), text


def _split_cell(text: str, column: str) -> list[str]:
    """The options of `A …\\nB …`, of `A. … B. …`, or one a line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    escaped = [line for line in text.split(_ESCAPED_BREAK) if line.strip()]
    # `A型`, `B型`, `AB型` on three lines are no letters before options.
    expected = {_BARE_MARK: len(lines), _ESCAPED_MARK: len(escaped)}
    for mark in (_LINE_MARK, _BARE_MARK, _ESCAPED_MARK, _INLINE_MARK):
        parts = _split_at_letters(text.strip(), mark)
        if len(parts) > 1 and len(parts) == expected.get(mark, len(parts)):
            return parts
    if len(lines) < 2:
        raise FormatError(f"column {column!r}: the options cannot be told apart")
    return lines


def _split_at_letters(text: str, mark: str) -> list[str]:
    """What stands behind A, B, C …, each found behind the one before it; empty where the text does not begin so."""
    starts: list[re.Match[str]] = []
    for letter in LETTERS:
        found = re.compile(mark.format(letter)).search(text, starts[-1].end() if starts else 0)
        if found is None or (not starts and found.start()):
            break
        starts.append(found)
    ends = [*(found.start() for found in starts[1:]), len(text)][: len(starts)]
    return [text[found.end() : end].strip(" \t\n;；") for found, end in zip(starts, ends, strict=True)]


def _without_letters(texts: list[str]) -> list[str]:
    """Options that all bring their own letter, without it."""
    found = [_LETTERED.fullmatch(text) for text in texts]
    if all(match and match[1].upper() == letter for match, letter in zip(found, LETTERS, strict=False)):
        return [match[2].strip() for match in found if match]
    return texts


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold()
