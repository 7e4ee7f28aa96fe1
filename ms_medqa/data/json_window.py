"""A window that moves over a JSON text of any length, and the values in it."""

from __future__ import annotations

import json
import re
from typing import Any

from ms_medqa.data.text_stream import LONGEST, TextStream

_SPACE = re.compile(r"[ \t\n\r]*")
# A string, a bracket, or a quote that opens no string on this line.
_TOKEN = re.compile(r'"[^"\\\n]*(?:\\.[^"\\\n]*)*"|[\[\]{}"]')
_BLOCK = 1 << 18
# A fault this near to the end of the window may come from the cut: no escape and no word of JSON is longer.
_EDGE = 64
# No record needs so many levels. Python's own limit depends on its version and on what else is loaded, and what is read
# just below it cannot be written to `rejected.jsonl`, one level deeper.
_DEEPEST = 100
TOO_DEEP = ("broken_json", "nested too deeply")


class Decoder:
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
            error = TOO_DEEP
        return (value if error is None else text[start:end]), end, error

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            self._twice = next((key for key, value in pairs if result[key] != value), self._twice)
        return result


def _is_deeper(value: Any, levels: int) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return children is not None and (levels == 0 or any(_is_deeper(child, levels - 1) for child in children))


class Window:
    """The part of the text that is in memory.

    Attributes:
        text: that part.
        at: where the reading stands in it.
        line: line of the file there, from 1.
        ended: nothing follows it.
    """

    def __init__(self, stream: TextStream) -> None:
        self.text = ""
        self.at = 0
        self.line = 1
        self.ended = False
        self._stream = stream
        self._base = 0  # place of `text` in the whole text

    @property
    def position(self) -> int:
        """Bytes of the file on disk read so far."""
        return self._stream.position

    def more(self) -> None:
        """Drop what was read, and take in at least as much again."""
        pieces = [self.text[self.at :]]
        self._base += self.at
        self.at = 0
        wanted = max(_BLOCK, len(pieces[0]))
        while wanted > 0:
            pieces.append(self._stream.read())
            wanted -= len(pieces[-1])
            if not pieces[-1]:
                self.ended = True
                break
        self.text = "".join(pieces)

    def advance(self, to: int) -> None:
        """Move on to a place in `text`."""
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def character(self) -> str:
        """The next character that is no white space, which is skipped; empty at the end."""
        while True:
            self.advance(skip_space(self.text, self.at))
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def take(self, end: int) -> tuple[str, str | None]:
        """The text as far as `end`, moving there, and where it holds a wrong byte."""
        piece = self.text[self.at : end]
        self.advance(end)
        return piece, self.take_fault()

    def take_fault(self) -> str | None:
        """Where the text before this place holds a byte that is no text."""
        return self._stream.take_fault(self._base + self.at)

    def take_rest(self, most: int) -> tuple[str, int]:
        """The first characters of all that is left, moving to the end, and how many they were."""
        pieces: list[str] = []
        kept = total = 0
        while True:
            piece = self.text[self.at :]
            total += len(piece)
            pieces.append(piece[: most - kept])
            kept += len(pieces[-1])
            self.advance(len(self.text))
            if self.ended:
                self.take_fault()
                return "".join(pieces).rstrip(), total
            self.more()

    def value(self, decoder: Decoder) -> tuple[Any, int, tuple[str, str] | None]:
        """The value that begins here, its end in `text`, and (reason, detail) where it has a fault.

        Raises:
            ValueError: no value begins here; a JSONDecodeError tells the place in `text`.
            RecursionError: it is nested too deeply.
        """
        while True:
            try:
                value, end, error = decoder.read(self.text, self.at)
            except json.JSONDecodeError as fault:
                near = fault.pos >= len(self.text) - _EDGE or fault.msg.startswith("Unterminated")
                if self.ended or not near or len(self.text) - self.at > LONGEST:
                    raise
            else:
                if self.ended or end < len(self.text) - _EDGE:
                    return value, end, error
            self.more()

    def find(self, mark: str) -> int | None:
        """The next place of `mark` behind this one, None where there is none as far as any record reaches."""
        start = 1
        while True:
            found = self.text.find(mark, self.at + start)
            if found >= 0:
                return found
            if self.ended or len(self.text) - self.at > LONGEST:
                return None
            start = max(1, len(self.text) - self.at - len(mark))
            self.more()

    def closing(self, within: int | None = None) -> int | None:
        """The end of the list or object that begins here, by its brackets alone; None where they tell no end.

        Args:
            within: characters from here that are looked at, all of them in the window; None for all that follow.
        """
        while True:
            depth = 0
            for token in _TOKEN.finditer(self.text, self.at, len(self.text) if within is None else self.at + within):
                if token[0] in ("{", "["):
                    depth += 1
                elif token[0] in ("}", "]"):
                    depth -= 1
                elif token[0] == '"':
                    if self.text.find("\n", token.start()) >= 0:
                        return None  # a string never goes over the end of a line
                    break
                if depth <= 0:
                    return self._if_followed(token.end()) if depth == 0 and token[0] in ("}", "]") else None
            if within is not None or self.ended or len(self.text) - self.at > LONGEST:
                return None
            self.more()

    def _if_followed(self, end: int) -> int | None:
        if end > len(self.text) - _EDGE and not self.ended:
            length = end - self.at
            self.more()
            end = self.at + length
        after = skip_space(self.text, end)
        return end if self.text[after : after + 1] in (",", "]", "}", "") else None


def skip_space(text: str, position: int) -> int:
    """The place of the next character that is no white space."""
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()
