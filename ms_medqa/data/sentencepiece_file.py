"""The file of a SentencePiece model: a protobuf message (sentencepiece_model.proto), read as far as needed here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ms_medqa.config.errors import UserError

# Types of a piece. A text never holds control pieces; user-defined ones are found in it before everything else.
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
# normalizer_spec { add_dummy_prefix: false }, to stand behind a model: of a field that stands twice the last one holds.
NO_DUMMY_PREFIX = b"\x1a\x02\x18\x00"

_PIECE, _TRAINER, _NORMALIZER = 1, 2, 3  # fields of ModelProto
_TEXT, _TYPE = 1, 3  # fields of ModelProto.SentencePiece


class _Field(NamedTuple):
    """A field of a message: where it begins, and its value, from `start` to `end` or, for integers, `value`."""

    number: int
    begin: int
    start: int
    end: int
    value: int


def load(path: Path, content: bytes) -> Any:
    """The `SentencePieceProcessor` of a model file's content.

    Raises:
        UserError: the library cannot read it, or is not installed.
    """
    try:
        from sentencepiece import SentencePieceProcessor
    except ImportError:
        raise UserError(f"{path}: reading this file needs sentencepiece", "pip install sentencepiece") from None
    model = SentencePieceProcessor()
    try:
        model.LoadFromSerializedProto(content)
    except Exception as error:  # which class depends on the version of the library
        reason = "".join(char if char.isprintable() else " " for char in str(error)).strip()
        raise UserError(f"{path}: not a SentencePiece model ({reason})", "copy or download the file anew") from None
    return model


def pieces(path: Path, content: bytes) -> list[tuple[str, int]]:
    """Text and type of each piece by id.

    Raises:
        UserError: not a whole model. The library itself takes a file that ends behind any piece; without the settings
            that follow the pieces it then encodes text in another way.
    """
    result: list[tuple[str, int]] = []
    seen = set()
    try:
        for field in _fields(content, 0, len(content)):
            seen.add(field.number)
            if field.number == _PIECE:
                text, kind = b"", NORMAL
                for inner in _fields(content, field.start, field.end):
                    if inner.number == _TEXT:
                        text = content[inner.start : inner.end]
                    elif inner.number == _TYPE:
                        kind = inner.value
                result.append((text.decode("utf-8"), kind))
    except (ValueError, IndexError):
        seen.clear()
    if not {_PIECE, _TRAINER, _NORMALIZER} <= seen:
        raise UserError(f"{path}: not a whole SentencePiece model", "copy or download the file anew")
    return result


def with_control(content: bytes, control: set[int]) -> bytes:
    """The model with the pieces of the ids `control` made control pieces."""
    parts: list[bytes] = []
    done = number = 0
    for field in _fields(content, 0, len(content)):
        if field.number != _PIECE:
            continue
        if number in control:
            body = content[field.start : field.end] + bytes([_TYPE << 3, CONTROL])
            parts += [content[done : field.begin], bytes([_PIECE << 3 | 2]), _varint(len(body)), body]
            done = field.end
        number += 1
    return b"".join([*parts, content[done:]])


def _fields(content: bytes, start: int, end: int) -> Iterator[_Field]:
    while start < end:
        begin, value = start, 0
        key, start = _read_varint(content, start)
        kind, first = key & 7, start
        if kind == 0:
            value, start = _read_varint(content, start)
        elif kind == 2:
            length, first = _read_varint(content, start)
            start = first + length
        elif kind in (1, 5):
            start += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if start > end:
            raise ValueError("a field ends beyond its message")
        yield _Field(key >> 3, begin, first, start, value)


def _read_varint(content: bytes, start: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = content[start]
        start += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, start
        shift += 7
    raise ValueError("an integer of more than 10 bytes")


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*result, value])
