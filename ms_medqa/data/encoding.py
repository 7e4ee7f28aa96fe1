"""Which encoding a text is in, found from its bytes, and reading it where single bytes are wrong."""

from __future__ import annotations

import codecs
import threading
from collections.abc import Iterable
from dataclasses import dataclass

_BOMS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
WORDS = {"utf-8": "UTF-8", "utf-16-le": "UTF-16 LE", "utf-16-be": "UTF-16 BE", "gb18030": "GB18030"}
_SAMPLE = 1 << 20
# Text in UTF-16 has a zero byte beside each ASCII character; other text has none at all.
_MANY_ZEROS = 0.2
_ONE_SIDED = 0.9
_MARK = "ms_medqa_mark"
_wrong_bytes = threading.local()


@dataclass(frozen=True, slots=True)
class Encoding:
    """An encoding.

    Attributes:
        name: what Python calls it: utf-8, utf-16-le, utf-16-be or gb18030.
        bom: bytes of the byte order mark before the text.
    """

    name: str
    bom: int = 0

    @property
    def words(self) -> str:
        """Its name for people."""
        return WORDS[self.name]

    def cut(self, data: bytes) -> int:
        """How many of these bytes can be read by themselves: the last may be the start of a character."""
        if self.name.startswith("utf-16"):
            even = len(data) // 2 * 2
            high = 1 if self.name == "utf-16-le" else 2
            # The first half of a pair waits for the second.
            return even - 2 if even and 0xD8 <= data[even - high] <= 0xDB else even
        # None of these is a part of a longer character, neither in UTF-8 nor in GB18030.
        return max(data.rfind(mark) for mark in (b"\n", b" ", b'"', b",")) + 1

    def decode(self, data: bytes) -> tuple[str, list[tuple[int, int]]]:
        """The text, with U+FFFD for what is no character, and (place in the text, place in the bytes) of each such."""
        try:
            return data.decode(self.name), []
        except UnicodeDecodeError:
            pass
        _wrong_bytes.spans = spans = []
        data.decode(self.name, _MARK)
        pieces, faults, length, after = [], [], 0, 0
        for start, end in spans:
            piece = data[after:start].decode(self.name)
            length += len(piece)
            faults.append((length, start))
            pieces += [piece, "\ufffd"]
            length += 1
            after = end
        pieces.append(data[after:].decode(self.name))
        return "".join(pieces), faults


def _mark(fault: UnicodeError) -> tuple[str, int]:
    assert isinstance(fault, UnicodeDecodeError)
    _wrong_bytes.spans.append((fault.start, fault.end))
    return "\ufffd", fault.end


codecs.register_error(_MARK, _mark)


def detect(blocks: Iterable[bytes]) -> Encoding:
    """The encoding of a text, from its first blocks of bytes and the first of them that are not only ASCII.

    In this order: a byte order mark; zero bytes as UTF-16 has them; UTF-8 without a fault; again zero bytes; GB18030
    (which holds GBK and GB2312) where it explains the bytes much better; else UTF-8, with wrong bytes in it.

    Args:
        blocks: the bytes of the file from its start; no more are taken than are needed.
    """
    sample = b""
    for block in blocks:
        if not sample or not block.isascii():
            sample += block
        if len(sample) > _SAMPLE:
            break
    for mark, name in _BOMS:
        if sample.startswith(mark):
            return Encoding(name, len(mark))
    wide = _utf16(sample)
    if wide is not None and sample.count(0) > _MANY_ZEROS * len(sample):
        return wide
    good, bad = _count(sample, "utf-8")
    if not bad:
        return Encoding("utf-8")
    if wide is not None:
        return wide
    chinese, wrong = _count(sample, "gb18030")
    # A few bytes of GB18030 may by chance be UTF-8; single faults in a text of UTF-8 are few among its characters.
    is_chinese = (bad > good and chinese > 10 * wrong) or (4 * bad > good and chinese and not wrong)
    return Encoding("gb18030" if is_chinese else "utf-8")


def _utf16(sample: bytes) -> Encoding | None:
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if even + odd == 0 or max(even, odd) < _ONE_SIDED * (even + odd):
        return None
    name = "utf-16-le" if odd > even else "utf-16-be"
    good, bad = _count(sample, name)
    return Encoding(name) if bad == 0 or good > 100 * bad else None


def _count(sample: bytes, name: str) -> tuple[int, int]:
    """Characters of Chinese and other writings, and faults. The last character may be cut, which is none."""
    decoder = codecs.getincrementaldecoder(name)
    try:
        text, bad = decoder().decode(sample), 0
    except UnicodeDecodeError:
        text = decoder("replace").decode(sample)
        bad = text.count("\ufffd")
    if name == "gb18030":
        # Any even number of high bytes is something in GB18030; only Chinese speaks for it.
        return sum("\u3000" <= c <= "\u9fff" or "\uff00" <= c <= "\uffef" for c in text), bad
    return sum(not c.isascii() for c in text) - bad, bad
