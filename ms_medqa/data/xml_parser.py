"""XML as a stream of elements, by expat, without the features that make XML dangerous."""

from __future__ import annotations

import html.entities
import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from xml.parsers import expat

# No XML parser takes them, and they mean nothing in a text.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff\ud800-\udfff]")
_DEEPEST = 100
_KEPT = 100_000
_CUT = ("no element found", "unclosed token", "unclosed CDATA section")


class XmlFault(ValueError):
    """The place from which an XML text cannot be read.

    Attributes:
        line: of the file.
        rest: the text around that place.
        cut: the text only ends too early.
    """

    def __init__(self, message: str, line: int, rest: str, *, cut: bool = False) -> None:
        super().__init__(message)
        self.line = line
        self.rest = rest
        self.cut = cut


@dataclass(slots=True)
class Element:
    """An element with what is in it, in order.

    Attributes:
        tag: without namespace prefix.
        attributes: name → text.
        line: of the file, where it begins.
        parts: texts and elements.
        end: a place in the text: that of the beginning of the piece in which it ends.
    """

    tag: str
    attributes: dict[str, str]
    line: int
    parts: list[str | Element] = field(default_factory=list)
    end: int = 0

    @property
    def children(self) -> list[Element]:
        """The elements in it."""
        return [part for part in self.parts if isinstance(part, Element)]

    def text(self) -> str:
        """All text in it."""
        return "".join(part if isinstance(part, str) else part.text() for part in self.parts)


def parse(pieces: Iterator[str], keep: Callable[[tuple[str, ...]], bool]) -> Iterator[tuple[Element, tuple[str, ...]]]:
    """Elements, each when it ends, and the tags from the outermost to it.

    Args:
        pieces: the text.
        keep: told the tags of an element: whether all that is in it is to stay in it, rather than be given out by
            itself and be forgotten. Nothing inside such an element is given out.

    Raises:
        XmlFault: the text is not well-formed, ends too early, is nested too deeply or declares entities.
    """
    builder = _Builder(keep)
    rest = ""
    try:
        for piece in pieces:
            rest = piece
            builder.feed(piece)
            builder.length += len(piece)
            while builder.done:
                yield builder.done.popleft()
        rest = ""
        builder.end()
    except expat.ExpatError as fault:
        yield from builder.done
        message = expat.ErrorString(fault.code)
        raise XmlFault(message, fault.lineno, rest[:_KEPT], cut=message in _CUT) from None
    except XmlFault as fault:
        yield from builder.done
        fault.rest = rest[:_KEPT]
        raise
    yield from builder.done


class _Builder:
    def __init__(self, keep: Callable[[tuple[str, ...]], bool]) -> None:
        self.done: deque[tuple[Element, tuple[str, ...]]] = deque()
        self.length = 0  # of the text so far
        self._keep = keep
        self._open: list[Element] = []
        self._tags: list[str] = []
        self._kept = 0  # depth of the element that keeps all
        # The pieces come as UTF-8, whatever the file's declaration says.
        self._parser = parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        if hasattr(parser, "SetReparseDeferralEnabled"):
            # Else an element may be told a piece late, and be blamed for a wrong byte of the next.
            parser.SetReparseDeferralEnabled(False)
        # An entity of HTML is told by name instead of being a fault; the DTD that would declare it is never read.
        parser.UseForeignDTD(True)
        parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        parser.SkippedEntityHandler = self._entity
        parser.EntityDeclHandler = self._declared

    def feed(self, piece: str) -> None:
        self._parser.Parse(_CONTROL.sub("\ufffd", piece).encode(), False)

    def end(self) -> None:
        self._parser.Parse(b"", True)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        tag = name.rpartition(":")[2]
        self._tags.append(tag)
        if len(self._tags) > _DEEPEST:
            raise XmlFault("nested too deeply", self._parser.CurrentLineNumber, "")
        element = Element(tag, attributes, self._parser.CurrentLineNumber)
        if self._kept:
            self._open[-1].parts.append(element)
        elif self._keep(tuple(self._tags)):
            self._kept = len(self._tags)
        self._open.append(element)

    def _end(self, _: str) -> None:
        element, depth = self._open.pop(), len(self._tags)
        element.end = self.length
        if not self._kept or self._kept == depth:
            self.done.append((element, tuple(self._tags)))
            self._kept = 0
        self._tags.pop()

    def _text(self, text: str) -> None:
        if self._open:
            self._open[-1].parts.append(text)

    def _entity(self, name: str, is_parameter: bool) -> None:
        if not is_parameter:
            self._text(html.entities.html5.get(f"{name};", f"&{name};"))

    def _declared(self, *_: object) -> None:
        message = "declares entities, which are refused; write their text where they stand"
        raise XmlFault(message, self._parser.CurrentLineNumber, "")
