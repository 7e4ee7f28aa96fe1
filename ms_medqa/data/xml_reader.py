"""Records of an XML file: MedQuAD's question and answer pairs, or any elements that repeat."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from ms_medqa.data.raw import BAD_ENCODING, HALF_WRITTEN, RawRecord
from ms_medqa.data.text_stream import TextStream
from ms_medqa.data.xml_parser import Element, XmlFault, parse

_HEAD = 1 << 20
_QUESTION = ("question", "query", "ask", "title", "instruction", "问题")
_ANSWER = ("answer", "response", "reply", "output", "答案", "回答")
_PAIRS = "qapairs"
# Elements that only lay out a text.
_LAYOUT = frozenset(("p", "br", "div", "span", "b", "i", "u", "em", "strong", "ul", "ol", "li", "sub", "sup", "a"))

Path = tuple[str, ...]


def open_xml(stream: TextStream) -> tuple[str, Iterator[RawRecord]]:
    """The layout (for people) and the records, streamed.

    A record is an element that has a question and an answer in it, else the outermost one that repeats, else each below
    the outermost. Its attributes, the elements in it and their attributes are its columns, and so are the texts beside
    the elements around it that came before it (MedQuAD's `Focus`). MedQuAD's `qid` is the id.

    Entities that the file itself declares are refused, and nothing outside it is read.

    Args:
        stream: the file, not yet read.
    """
    path = _record_path(stream.peek(_HEAD))
    return "XML", _read(stream, path)


def _record_path(head: str) -> Path | None:
    """Tags from the outermost element to the record's; None where the head does not tell."""
    counts: Counter[Path] = Counter()
    children: dict[Path, set[str]] = {}
    # The head ends inside the text.
    with suppress(XmlFault):
        for element, path in parse(iter([head]), keep=lambda _: False):
            counts[path] += 1
            names = children.setdefault(path, set())
            names.update(name.lower() for name in element.attributes)
            children.setdefault(path[:-1], set()).add(path[-1].lower())
    for path, names in children.items():
        if path and names.intersection(_QUESTION) and names.intersection(_ANSWER):
            return path
    for path in counts:
        # MedQuAD has documents whose pairs were withdrawn: they hold no record, whatever else is in them.
        if path[-1].lower() == _PAIRS:
            return (*path, path[-1][:-1])
    repeated = [path for path, count in counts.items() if count > 1 and len(path) > 1]
    return min(repeated, key=lambda path: (len(path), -counts[path]), default=None)


def _read(stream: TextStream, path: Path | None) -> Iterator[RawRecord]:
    number = 0
    around: dict[Path, str] = {}  # texts beside the elements around a record
    line = 1

    def is_record(tags: Path) -> bool:
        return tags == path if path is not None else len(tags) == 2

    try:
        for element, tags in parse(stream.pieces(), keep=is_record):
            line = element.line
            depth = len(path) if path is not None else 2
            if not is_record(tags):
                if len(tags) <= depth and not element.children and element.text().strip():
                    # What stands in another parent than this one is over.
                    around = {p: text for p, text in around.items() if p[:-1] == tags[: len(p) - 1]}
                    around[tags] = element.text().strip()
                continue
            number += 1
            value = {p[-1]: text for p, text in around.items()} | _columns(element)
            wrong = stream.take_fault(element.end)
            error = None if wrong is None else (BAD_ENCODING, wrong)
            yield RawRecord(element.line, number, value, error, stream.position)
    except XmlFault as fault:
        detail = f"XML, line {fault.line}: {fault}"
        if fault.cut:
            detail += f": {HALF_WRITTEN}"
        yield RawRecord(max(line, fault.line), number + 1, fault.rest, ("broken_record", detail), stream.position)


def _columns(element: Element) -> dict[str, object]:
    result: dict[str, object] = dict(element.attributes)
    for child in element.children:
        for name, value in child.attributes.items():
            result.setdefault(name, value)
        value = _value(child)
        if child.tag not in result:
            result[child.tag] = value
        else:
            before = result[child.tag]
            result[child.tag] = [*before, value] if isinstance(before, list) else [before, value]
    if not element.children and element.text().strip():
        result["text"] = element.text().strip()
    if "qid" in result:
        result.setdefault("id", result["qid"])
    return result


def _value(element: Element) -> object:
    if not element.children:
        return element.text().strip()
    mixed = any(isinstance(part, str) and part.strip() for part in element.parts)
    if mixed or all(child.tag.lower() in _LAYOUT for child in element.children):
        return _layout_text(element).strip()
    return _columns(element)


def _layout_text(element: Element) -> str:
    pieces = []
    for part in element.parts:
        if isinstance(part, str):
            pieces.append(part)
            continue
        inline = part.tag.lower() not in ("p", "br", "div", "ul", "ol", "li")
        pieces.append(_layout_text(part) if inline else f"\n{_layout_text(part).strip()}\n")
    return "".join(pieces)
