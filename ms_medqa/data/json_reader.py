"""Records of a JSON file: lines, an array, or an object of records."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from ms_medqa.config.errors import UserError
from ms_medqa.data.raw import BOM, RawRecord, reads_as_gb18030, wrong_encoding

_SPACE = re.compile(r"[ \t\n\r]*")


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
        return "JSON object", _read_object(path, json.loads(text))
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
    with path.open("rb") as file:
        for number, raw in enumerate(_lines_without_bom(file), start=1):
            position += len(raw)
            if not raw.strip():
                continue
            text = raw.decode("utf-8", errors="replace").rstrip("\r\n")
            try:
                value, error = json.loads(raw.decode("utf-8")), None
            except UnicodeDecodeError as fault:
                guess = ", perhaps GB18030" if reads_as_gb18030(raw) else ""
                value, error = text, ("broken_json", f"not UTF-8 text at byte {fault.start + 1} of the line{guess}")
            except RecursionError:
                value, error = text, ("broken_json", "nested too deeply")
            except ValueError as fault:
                value, error = text, ("broken_json", _describe(fault))
            yield RawRecord(number, number, value, error, position)


def _read_array(path: Path, text: str) -> Iterator[RawRecord]:
    decoder = json.JSONDecoder()
    bytes_per_character = path.stat().st_size / len(text)
    after = _skip_space(text, _skip_space(text, 0) + 1)
    line = 1 + text.count("\n", 0, after)
    number = 0
    while not text.startswith("]", after):
        number += 1
        position = after
        try:
            value, end = decoder.raw_decode(text, position)
            yield RawRecord(line, number, value, None, int(end * bytes_per_character))
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
    hint = "the file looks half-written, copy it again" if cut else "mend this record or take it out"
    return UserError(f"{path} line {line}: {what} (record {number})", hint)


def _read_object(path: Path, document: dict[str, Any]) -> Iterator[RawRecord]:
    size = path.stat().st_size
    if not document or not all(isinstance(value, dict) for value in document.values()):
        yield RawRecord(1, 1, document, None, size)
        return
    for number, (key, value) in enumerate(document.items(), start=1):
        yield RawRecord(number, number, value, None, size * number // len(document), key)


def _skip_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()


def _describe(fault: ValueError) -> str:
    if isinstance(fault, json.JSONDecodeError):
        return f"{fault.msg[0].lower()}{fault.msg[1:]}, column {fault.colno}"
    return str(fault).splitlines()[0]
