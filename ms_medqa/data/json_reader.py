"""Records of a JSON file: lines, an array, or an object of records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ms_medqa.config.errors import UserError
from ms_medqa.data.raw import BOM, HALF_WRITTEN, NOT_UTF8, RawRecord, reads_as_gb18030, wrong_encoding

_SPACE = re.compile(r"[ \t\n\r]*")
# No record needs so many levels. Python's own limit depends on its version and on what else is loaded, and what is read
# just below it cannot be written to `rejected.jsonl`, one level deeper.
_DEEPEST = 100
_TOO_DEEP = ("broken_json", "nested too deeply")


class _Decoder:
    """The json module's decoder, which also tells deep nesting, and a key that stands twice: a dict loses a value."""

    def __init__(self) -> None:
        self._json = json.JSONDecoder(object_pairs_hook=self._object)
        self._twice: str | None = None

    def read(self, text: str, start: int) -> tuple[Any, int, tuple[str, str] | None]:
        """The value that begins at `start`, the place after it, and (reason, detail) where it is not whole.

        A value with a fault is the text that it was read from.
        """
        self._twice = None
        value, end = self._json.raw_decode(text, start)
        error = None
        if self._twice is not None:
            error = ("broken_record", f"key {self._twice[:20]!r} stands twice, with two values")
        elif text.count("[", start, end) + text.count("{", start, end) > _DEEPEST and _is_deeper(value, _DEEPEST):
            error = _TOO_DEEP
        return (value if error is None else text[start:end]), end, error

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            self._twice = next((key for key, value in pairs if result[key] != value), self._twice)
        return result


def _is_deeper(value: Any, levels: int) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return children is not None and (levels == 0 or any(_is_deeper(child, levels - 1) for child in children))


def open_json(path: Path) -> tuple[str, Iterator[RawRecord]]:
    """The layout (for people) and the records. Lines are streamed, an array or object is read whole.

    What is inside decides, not the file's name: JSON Lines are often called `.json`.

    Raises:
        UserError: an array that is broken or cut off, a whole document that is not UTF-8.
    """
    with path.open("rb") as file:
        first = next((line for line in _lines_without_bom(file) if line.strip()), b"").strip()
        has_more_lines = any(line.strip() for line in file)
    if not _may_be_document(path, first, has_more_lines):
        return "JSON Lines", _read_lines(path)
    content = path.read_bytes().removeprefix(BOM)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise wrong_encoding(path, line, content[error.start :]) from None
    if first.startswith(b"["):
        return "JSON array", _read_array(path, text)
    try:
        return "JSON object", iter(_read_object(path, text))
    except (ValueError, RecursionError):
        # Neither its first line nor the whole is JSON, so these are lines, of which the first is broken.
        return "JSON Lines", _read_lines(path)


def _may_be_document(path: Path, first: bytes, has_more_lines: bool) -> bool:
    if first.startswith(b"["):
        return True
    if path.suffix.lower() != ".json" or not first.startswith(b"{"):
        return False
    if not has_more_lines:
        return True
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return True
    return False


def _lines_without_bom(file: BinaryIO) -> Iterator[bytes]:
    for number, line in enumerate(file):
        yield line.removeprefix(BOM) if number == 0 else line


def _read_lines(path: Path) -> Iterator[RawRecord]:
    position = 0
    decoder = _Decoder()
    with path.open("rb") as file:
        for number, raw in enumerate(_lines_without_bom(file), start=1):
            position += len(raw)
            if not raw.strip():
                continue
            text = raw.decode("utf-8", errors="replace").rstrip()
            try:
                raw.decode("utf-8")
                value, end, error = decoder.read(text, _skip_space(text, 0))
                if end < len(text):
                    raise json.JSONDecodeError("Extra data", text, end)
            except UnicodeDecodeError as fault:
                guess = ", perhaps GB18030" if reads_as_gb18030(raw) else ""
                value, error = text, ("broken_json", f"{NOT_UTF8} at byte {fault.start + 1} of the line{guess}")
            except RecursionError:
                value, error = text, _TOO_DEEP
            except ValueError as fault:
                value, error = text, ("broken_json", _describe(fault))
            yield RawRecord(number, number, value, error, position)


def _read_array(path: Path, text: str) -> Iterator[RawRecord]:
    decoder = _Decoder()
    bytes_per_character = path.stat().st_size / len(text)
    after = _skip_space(text, _skip_space(text, 0) + 1)
    line = 1 + text.count("\n", 0, after)
    number = 0
    while not text.startswith("]", after):
        number += 1
        position = after
        try:
            value, end, error = decoder.read(text, position)
            yield RawRecord(line, number, value, error, int(end * bytes_per_character))
            after = _skip_space(text, end)
            if text.startswith(",", after):
                after = _skip_space(text, after + 1)
            elif not text.startswith("]", after):
                raise json.JSONDecodeError("Expected ',' or ']'", text, after)
        except RecursionError:
            raise UserError(f"{path} line {line}: nested too deeply") from None
        except ValueError as fault:
            raise _broken_array(path, text, line, number, fault) from None
        line += text.count("\n", position, after)
    if _skip_space(text, after + 1) < len(text):
        raise UserError(f"{path} line {line}: more text after the end of the JSON array", "one array a file")


def _broken_array(path: Path, text: str, line: int, number: int, fault: ValueError) -> UserError:
    cut = False
    if isinstance(fault, json.JSONDecodeError):
        line = fault.lineno
        cut = fault.pos >= len(text.rstrip()) or fault.msg.startswith("Unterminated string")
    what = "the JSON array ends in the middle" if cut else f"not valid JSON ({_describe(fault)})"
    hint = HALF_WRITTEN if cut else "mend this record or take it out"
    return UserError(f"{path} line {line}: {what} (record {number})", hint)


def _read_object(path: Path, text: str) -> list[RawRecord]:
    """The records of an object of records, else the object as the only record.

    Raises:
        ValueError: the text is not one JSON object.
    """
    size = path.stat().st_size
    decoder = _Decoder()
    whole, end, error = decoder.read(text, _skip_space(text, 0))
    if _skip_space(text, end) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)
    members = list(_members(text, decoder))
    # A value with a fault is text here, but it began as an object.
    if not members or not all(text.startswith("{", start) for _, start, *_ in members):
        return [RawRecord(1, 1, whole, error, size)]
    records = []
    line = 1 + text.count("\n", 0, members[0][1])
    for number, (key, start, end, value, error) in enumerate(members, start=1):
        records.append(RawRecord(line, number, value, error, size * end // len(text), key))
        if number < len(members):
            line += text.count("\n", start, members[number][1])
    return records


def _members(text: str, decoder: _Decoder) -> Iterator[tuple[str, int, int, Any, tuple[str, str] | None]]:
    """(key, start, end, value, error) of each member of a text that is one JSON object, those with equal keys too."""
    after = _skip_space(text, text.index("{") + 1)
    while not text.startswith("}", after):
        key, end, _ = decoder.read(text, after)
        start = _skip_space(text, _skip_space(text, end) + 1)  # behind the colon
        value, end, error = decoder.read(text, start)
        yield key, start, end, value, error
        after = _skip_space(text, end)
        if text.startswith(",", after):
            after = _skip_space(text, after + 1)


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()


def _describe(fault: ValueError) -> str:
    if isinstance(fault, json.JSONDecodeError):
        what = fault.msg.removesuffix(" at").removesuffix(" starting")
        return f"{what[0].lower()}{what[1:]}, column {fault.colno}"
    return str(fault).splitlines()[0]
