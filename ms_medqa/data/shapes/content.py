"""What a turn of a dialogue says, where its content is given in parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.data.columns import FormatError, Row

_TEXTS = ("text", "input_text", "output_text")
_MEDIA = ("image", "picture", "video", "audio", "file")


def text_of_content(row: Row, content: Any) -> str:
    """A text, or the texts of a list of parts, one a line; pictures and other media are left out and noted.

    Raises:
        FormatError: the content is no text, or a part of it is neither text nor media, such as the call of a tool.
    """
    if isinstance(content, list) and content and all(map(_is_part, content)):
        content = [text for part in content if (text := _text_of_part(row, part))]
    return row.to_text(content, "content")


def _is_part(part: Any) -> bool:
    return isinstance(part, Mapping) and isinstance(part.get("type"), str)


def _text_of_part(row: Row, part: Mapping[str, Any]) -> str:
    kind = part["type"]
    if kind in _TEXTS:
        return row.to_text(next((part[key] for key in ("text", "value") if key in part), None), "content")
    if any(word in kind for word in _MEDIA):
        row.note("picture_left_out")
        return ""
    raise FormatError(f"a content part of type {kind[:20]!r}, which is neither text nor a picture")
