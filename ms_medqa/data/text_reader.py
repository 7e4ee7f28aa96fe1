"""Plain text for continued pre-training: records between blank lines, or a whole file."""

from __future__ import annotations

from collections.abc import Iterator

from ms_medqa.data.raw import BAD_ENCODING, RawRecord
from ms_medqa.data.text_stream import Line, TextStream

# A text without an end is cut at the next end of a line; training joins the pieces again.
_LONGEST_TEXT = 1 << 20


def open_text(stream: TextStream, suffix: str) -> tuple[str, Iterator[RawRecord]]:
    """The layout (for people) and the records, each `{"text": …}`.

    Args:
        stream: the file, not yet read.
        suffix: of its name. A `.md` file is one text, for a blank line in Markdown ends a heading or a paragraph and no
            more; in a `.txt` file blank lines separate texts.
    """
    if suffix == ".md":
        return "Markdown", _read(stream, between_blank_lines=False)
    return "plain text", _read(stream, between_blank_lines=True)


def _read(stream: TextStream, *, between_blank_lines: bool) -> Iterator[RawRecord]:
    taken: list[Line] = []
    length = number = 0
    for line in stream.lines():
        blank = not line.text.strip()
        if not blank or (taken and not between_blank_lines):
            taken.append(line)
            length += len(line.text)
        if taken and ((blank and between_blank_lines) or length > _LONGEST_TEXT):
            number += 1
            yield _record(taken, number)
            taken, length = [], 0
    if taken:
        yield _record(taken, number + 1)


def _record(lines: list[Line], number: int) -> RawRecord:
    text = "".join(line.text for line in lines).replace("\r\n", "\n").strip("\n")
    wrong = next((line.fault for line in lines if line.fault is not None), None)
    error = None if wrong is None else (BAD_ENCODING, wrong)
    return RawRecord(lines[0].number, number, {"text": text}, error, lines[-1].position)
