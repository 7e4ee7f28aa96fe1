"""Tell by its columns what a raw record is, and make an Example or a PlainText of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ms_medqa.config.schema import Columns
from ms_medqa.data.columns import FormatError, Row, UnknownColumnsError, kind_of
from ms_medqa.data.example import PlainText, Record
from ms_medqa.data.shapes.common import identity, refuse_undesirable
from ms_medqa.data.shapes.dialogue import dialogue_column, is_bare_dialogue, read_dialogue
from ms_medqa.data.shapes.exam import NO_HINTS, FileHints, exam_columns, hints_of, read_exam
from ms_medqa.data.shapes.names import DESIRABLE, TEXT, TEXT_BY_WISH
from ms_medqa.data.shapes.qa import read_alpaca, read_pair

__all__ = [
    "KNOWN_FORMATS",
    "SHAPES",
    "FileHints",
    "FormatError",
    "UnknownColumnsError",
    "hints_of",
    "parse_record",
]

SHAPES = ("auto", "qa", "alpaca", "dialogue", "exam", "text")
KNOWN_FORMATS = (
    "question + answer (+ context), instruction + output (+ input, history), conversations, messages, "
    "question + options + answer, text; or name the columns: data.columns.question=NAME data.columns.answer=NAME"
)
_NEEDS = {
    "qa": "a question and an answer",
    "alpaca": "instruction and output",
    "dialogue": "conversations or messages",
    "exam": "a question, options and the right answer",
    "text": "text",
}


def parse_record(
    value: Any,
    columns: Columns,
    *,
    name: str,
    source: str,
    shape: str = "auto",
    nfkc: bool = False,
    hints: FileHints = NO_HINTS,
) -> tuple[Record, str]:
    """The record behind a raw value, and its format in words.

    Of the shapes that its columns allow, a record has the first of: dialogue, alpaca, exam, qa, text. Where the user
    names the column of the question or of the answer, only exam and qa are left.

    Args:
        value: column → value; or the turns of a dialogue.
        columns: the user's column names; an empty one is found by itself.
        name: id for a record that brings none.
        source: name of the file.
        shape: one of `SHAPES`; any but `auto` is the only one that is tried.
        nfkc: texts are also brought to NFKC, see `text.normalize`.
        hints: what `hints_of` has found out about the file.

    Raises:
        FormatError: the value fits no format, or not its own, or its answer is marked as undesirable.
    """
    assert shape in SHAPES, shape
    if is_bare_dialogue(value):
        value = {"conversation": value}
    if not isinstance(value, Mapping):
        raise FormatError(f"a record must be an object, not {kind_of(value)}")
    row = Row(value, columns, nfkc)
    found = _read(row, shape, identity(row, name, source), hints)
    if found is None and shape == "auto":
        raise UnknownColumnsError(f"unknown columns: {row.list_names()}")
    if found is None:
        raise UnknownColumnsError(f"data.shape={shape} needs {_NEEDS[shape]}; columns: {row.list_names()}")
    refuse_undesirable(row, DESIRABLE)
    record, words = found
    if row.notes:
        record = replace(record, notes=tuple(row.notes))
    return record, words


def _read(row: Row, shape: str, common: dict[str, Any], hints: FileHints) -> tuple[Record, str] | None:
    guess = shape == "auto"
    named = row.named("question") or row.named("answer")
    if (shape == "dialogue" or (guess and not named)) and (column := dialogue_column(row)) is not None:
        return read_dialogue(row, column, common)
    alpaca = row.has("instruction") and row.has("output")
    if alpaca and (shape == "alpaca" or (guess and not named)):
        return read_alpaca(row, common)
    if (guess or shape == "exam") and (columns := exam_columns(row)) is not None:
        return read_exam(row, *columns, common, hints)
    if (guess or shape == "qa") and (pair := read_pair(row, common)) is not None:
        return pair
    if shape == "text" or (guess and not named):
        column = row.find("text", TEXT if guess else TEXT_BY_WISH)
        if column is not None:
            return PlainText(text=row.text(column), **common), f"plain text ({column})"
    return None
