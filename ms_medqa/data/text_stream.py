"""A file as text, in pieces or lines, with the places of bytes that are no text."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ms_medqa.data.encoding import Encoding, detect
from ms_medqa.data.streams import ByteStream

# No record is longer. A quote that is never closed must not bring a whole file into memory.
LONGEST = 1 << 26


@dataclass(slots=True)
class Line:
    """A line of a file.

    Attributes:
        number: from 1.
        text: with its line end.
        fault: None, or where it holds a byte that is no text.
        position: bytes of the file on disk read so far.
    """

    number: int
    text: str
    fault: str | None
    position: int


class TextStream:
    """Reads a text file of any known encoding from its start, once.

    Attributes:
        path: the file.
        encoding: found from the bytes.
        gzipped: whether it is unpacked on the way.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with ByteStream(path) as sample:
            self.encoding: Encoding = detect(iter(sample.read, b""))
        self._bytes = ByteStream(path)
        self.gzipped = self._bytes.gzipped
        self._undecoded = b""
        self._offset = 0  # of the undecoded bytes in the unpacked file
        self._skip = self.encoding.bom
        self._length = 0  # characters decoded so far
        self._ahead: deque[str] = deque()
        self._faults: deque[tuple[int, str]] = deque()

    @property
    def position(self) -> int:
        """Bytes of the file on disk read so far."""
        return self._bytes.position

    @property
    def gzip_fault(self) -> str | None:
        """What is wrong with the gzip data, once the end was reached."""
        return self._bytes.fault

    def close(self) -> None:
        self._bytes.close()

    def read(self) -> str:
        """The next piece of text, empty at the end."""
        return self._ahead.popleft() if self._ahead else self._decode_next()

    def peek(self, characters: int) -> str:
        """At least so many characters, less only where the file ends; the next `read` begins with them."""
        pieces = list(self._ahead)
        while sum(map(len, pieces)) < characters and (piece := self._decode_next()):
            pieces.append(piece)
        self._ahead = deque(filter(None, ["".join(pieces)]))
        return self._ahead[0] if self._ahead else ""

    def take_fault(self, end: int) -> str | None:
        """Where the first wrong byte before the character `end` of the text stands; those before it are forgotten."""
        first = None
        while self._faults and self._faults[0][0] < end:
            what = self._faults.popleft()[1]
            first = first or what
        return first

    def pieces(self) -> Iterator[str]:
        """All text, cut behind each character that stands for a wrong byte."""
        start = 0
        while piece := self.read():
            at = 0
            for place in [place - start + 1 for place, _ in self._faults]:
                if at < place < len(piece):
                    yield piece[at:place]
                    at = place
            yield piece[at:]
            start += len(piece)

    def lines(self, newline: str = "\n") -> Iterator[Line]:
        """All lines; one that is longer than any record is given in several pieces of the same number."""
        started: list[str] = []
        waiting = number = end = 0
        while piece := self.read():
            *whole, rest = piece.split(newline)
            for text in whole:
                if started:
                    text = "".join([*started, text])
                    started, waiting = [], 0
                number += 1
                text += newline
                end += len(text)
                yield Line(number, text, self.take_fault(end) if self._faults else None, self.position)
            if rest:
                started.append(rest)
                waiting += len(rest)
            if waiting > LONGEST:
                end += waiting
                yield Line(number + 1, "".join(started), self.take_fault(end), self.position)
                started, waiting = [], 0
        if started:
            yield Line(number + 1, "".join(started), self.take_fault(end + waiting), self.position)

    def _decode_next(self) -> str:
        text = ""
        while not text:
            data = self._bytes.read()
            while self._skip and data:
                data, self._skip = data[self._skip :], max(0, self._skip - len(data))
                data = data or self._bytes.read()
            self._undecoded += data
            if not self._undecoded:
                return ""
            end = self.encoding.cut(self._undecoded) if data else len(self._undecoded)
            text, faults = self.encoding.decode(self._undecoded[:end])
            for place, byte in faults:
                self._faults.append((self._length + place, self._describe(byte, cut_off=not data)))
            self._undecoded = self._undecoded[end:]
            self._offset += end
            self._length += len(text)
        return text

    def _describe(self, byte: int, *, cut_off: bool) -> str:
        value = self._undecoded[byte]
        what = f"not {self.encoding.words} text at byte {self.encoding.bom + self._offset + byte:,} (0x{value:02x})"
        if cut_off and len(self._undecoded) - byte < 4:
            what += ", where the file ends in the middle of a character"
        return what
