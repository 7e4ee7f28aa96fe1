"""Records of a JSON file: lines, an array, or an object of records; all of them streamed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from ms_medqa.data.json_window import TOO_DEEP, Decoder, Window, skip_space
from ms_medqa.data.raw import BAD_ENCODING, HALF_WRITTEN, RawRecord
from ms_medqa.data.text_stream import LONGEST, TextStream

# What is looked at to tell the layout, and what is kept of a text that is no record.
_HEAD = 1 << 20
_KEPT = 100_000
_FEW_LINES = 20
_KEY = re.compile(r'\{\s*"[^"\\]*"')
_WHITE = " \t\r\n\v\f"


def open_json(stream: TextStream, suffix: str) -> tuple[str, Iterator[RawRecord]]:
    """The layout (for people) and the records.

    What is inside decides, not the file's name: JSON Lines are often called `.json`. A record that is broken costs only
    itself where its end can be told: by the lines on which the others begin, else by its brackets. Otherwise all that
    is left is one broken record.

    Args:
        stream: the file, not yet read.
        suffix: of its name; one object alone in a `.json` file may be an object of records.
    """
    head = stream.peek(_HEAD)
    start = skip_space(head, 0)
    if not _is_document(head[start:], suffix, whole=len(head) < _HEAD):
        return "JSON Lines", _read_lines(stream)
    window = Window(stream)
    if head.startswith("[", start):
        return "JSON array", _read_members(window, "]")
    if _holds_records(head):
        return "JSON object", _read_members(window, "}")
    return "JSON object", _read_objects(window)


def _is_document(head: str, suffix: str, *, whole: bool) -> bool:
    """True for an array or object, False for lines."""
    if not head.startswith("[" if suffix != ".json" else ("[", "{")):
        return False
    lines = [line.strip() for line in head.split("\n", _FEW_LINES + 1) if line.strip()]
    if len(lines) == 1:
        return True
    # The last may be cut, or stand for all that follow it.
    following = lines[1:_FEW_LINES] if whole and len(lines) <= _FEW_LINES else lines[1:-1]
    first = _kind(lines[0])
    if first is dict or (head.startswith("[") and first is None):
        return first is None
    # Inside an array or object, most lines that are whole end with a comma.
    return 2 * sum(_kind(line) is dict for line in following) <= len(following)


def _kind(line: str) -> type | None:
    """dict, list …, None for what is no JSON by itself."""
    try:
        return type(json.loads(line))
    except (ValueError, RecursionError):
        return None


def _holds_records(head: str) -> bool:
    """True where all members of an object, as far as they can be seen, are objects themselves."""
    decoder = json.JSONDecoder()
    at = skip_space(head, head.index("{") + 1)
    found = False
    try:
        while head.startswith('"', at):
            _, end = decoder.raw_decode(head, at)
            at = skip_space(head, skip_space(head, end) + 1)  # behind the colon
            if not head.startswith("{", at):
                return found and at >= len(head)
            found = True
            _, end = decoder.raw_decode(head, at)
            at = skip_space(head, end)
            if head.startswith(",", at):
                at = skip_space(head, at + 1)
    except (ValueError, RecursionError):
        pass
    return found


def _read_lines(stream: TextStream) -> Iterator[RawRecord]:
    decoder = Decoder()
    for line in stream.lines():
        if not line.text.strip(_WHITE):
            continue
        text = line.text.rstrip()
        value: Any = text
        error: tuple[str, str] | None
        if line.fault is not None:
            error = (BAD_ENCODING, line.fault)
        elif len(text) > LONGEST:
            value = text[:_KEPT]
            error = ("broken_json", f"{len(text):,} characters without a line end; the first {_KEPT:,} are kept")
        else:
            try:
                value, end, error = decoder.read(text, skip_space(text, 0))
                if end < len(text):
                    raise json.JSONDecodeError("Extra data", text, end)
            except RecursionError:
                value, error = text, TOO_DEEP
            except ValueError as fault:
                value, error = text, ("broken_json", _describe(fault))
        yield RawRecord(line.number, line.number, value, error, line.position)


def _read_members(window: Window, closing: str) -> Iterator[RawRecord]:
    """The members of an array (`closing` is `]`) or of an object of records."""
    decoder = Decoder()
    what = "JSON array" if closing == "]" else "JSON object"
    window.character()
    window.advance(window.at + 1)
    number = 0
    mark: str | None = None
    while (character := window.character()) != closing:
        if character == ",":
            window.advance(window.at + 1)
            continue
        number += 1
        line, key = window.line, None
        if not character:
            yield RawRecord(line, number, "", ("broken_json", _cut(what)), window.position)
            return
        mark = _line_start(window) if mark is None else mark
        try:
            if closing == "}":
                key = _read_key(window, decoder)
            value, end, error = window.value(decoder)
        except (ValueError, RecursionError) as fault:
            yield _broken(window, fault, what, line, number, mark, key)
            if not window.character():
                return
            continue
        text, wrong = window.take(end)
        if not mark and closing == "]":
            mark = _first_key(text)
        if wrong is not None:
            value, error = text, (BAD_ENCODING, wrong)
        yield RawRecord(line, number, value, error, window.position, key)
    window.advance(window.at + 1)
    if window.character():
        detail = f"more text after the end of the {what}"
        yield _rest(window, detail, window.line, number + 1)


def _read_key(window: Window, decoder: Decoder) -> str:
    if not window.text.startswith('"', window.at):
        raise json.JSONDecodeError("Expecting property name enclosed in double quotes", window.text, window.at)
    key, end, _ = window.value(decoder)
    window.advance(end)
    if window.character() != ":":
        raise json.JSONDecodeError("Expecting ':' delimiter", window.text, window.at)
    window.advance(window.at + 1)
    window.character()
    return str(key)


def _read_objects(window: Window) -> Iterator[RawRecord]:
    """An object as the only record, or several in a row."""
    decoder = Decoder()
    number = 0
    while window.character():
        number += 1
        line = window.line
        try:
            value, end, error = window.value(decoder)
        except (ValueError, RecursionError) as fault:
            yield _broken(window, fault, "JSON object", line, number, "", None)
            continue
        text, wrong = window.take(end)
        if wrong is not None:
            value, error = text, (BAD_ENCODING, wrong)
        yield RawRecord(line, number, value, error, window.position)


def _line_start(window: Window) -> str:
    """How the first record begins, where it begins a line (else empty): others begin so too, and nothing in them."""
    before = window.text[: window.at]
    break_at = before.rfind("\n")
    return before[break_at:] + window.text[window.at] if break_at >= 0 else ""


def _first_key(text: str) -> str:
    """How a record begins where the whole array is one line, up to its first key; empty where more in it does."""
    match = _KEY.match(text)
    return match[0] if match is not None and text.count(match[0]) == 1 else ""


def _broken(
    window: Window, fault: Exception, what: str, line: int, number: int, mark: str, key: str | None
) -> RawRecord:
    """The record in which a fault stands, moving behind it."""
    place = fault.pos if isinstance(fault, json.JSONDecodeError) else None
    detail = TOO_DEEP[1] if isinstance(fault, RecursionError) else _describe(fault)
    if place is not None:
        at_line = window.line + window.text.count("\n", window.at, place)
        detail = f"line {at_line}: {detail}"
        if window.ended and (place >= len(window.text.rstrip()) or fault.msg.startswith("Unterminated")):
            detail = _cut(what)
    end = window.find(mark) if mark else None
    if end is None or not mark.startswith("\n"):
        length = None if end is None else end - window.at
        closed = window.closing(length)
        # The window may have moved.
        end = window.at + length if closed is None and length is not None else closed
    if end is None:
        return _rest(window, detail, line, number, key)
    text, _ = window.take(end)
    return RawRecord(line, number, text.rstrip(" \t\r\n,"), ("broken_json", detail), window.position, key)


def _rest(window: Window, detail: str, line: int, number: int, key: str | None = None) -> RawRecord:
    text, length = window.take_rest(_KEPT)
    if length > _KEPT:
        detail += f"; of the {length:,} characters from here to the end of the file the first {_KEPT:,} are kept"
    return RawRecord(line, number, text, ("broken_json", detail), window.position, key)


def _cut(what: str) -> str:
    return f"the {what} ends in the middle: {HALF_WRITTEN}"


def _describe(fault: ValueError) -> str:
    if isinstance(fault, json.JSONDecodeError):
        what = fault.msg.removesuffix(" at").removesuffix(" starting")
        return f"{what[0].lower()}{what[1:]}, column {fault.colno}"
    return str(fault).splitlines()[0]
