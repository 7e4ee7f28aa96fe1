"""Exam questions: MedQA, MedMCQA, CMB, CMExam, MMLU, C-Eval, ScienceQA and their like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ms_medqa.config.schema import Columns
from ms_medqa.data.columns import FormatError, Row
from ms_medqa.data.example import Example
from ms_medqa.data.shapes.common import extras, is_blank, leave_out_pictures
from ms_medqa.data.shapes.names import EXAM_ANSWER, EXPLANATION, HINT, LABEL, RIGHT_OPTION, STEM
from ms_medqa.data.shapes.options import Options, option_columns, read_options

# MMLU's files name no columns.
MMLU_COLUMNS = ("question", "A", "B", "C", "D", "answer")
# MedMCQA counts from 1; ScienceQA, MMLU and nearly all others count from 0, as Python does.
_FIRST = {"cop": 1}


@dataclass(frozen=True, slots=True)
class FileHints:
    """What only several records of a file tell.

    Attributes:
        first: column → the number of the first option, where the options are counted.
    """

    first: Mapping[str, int] = field(default_factory=dict)


NO_HINTS = FileHints()


def hints_of(values: Iterable[Any], columns: Columns | None = None) -> FileHints:
    """Find out by the first records of a file from which number its options are counted.

    A 0 tells that they are counted from 0, the number of options that they are counted from 1. Where neither is seen
    `cop` is counted from 1, as its authors do, and any other column from 0.

    Args:
        values: raw records; a few hundred are enough.
        columns: the user's column names.
    """
    first: dict[str, int] = {}
    for value in values:
        if not isinstance(value, Mapping):
            continue
        row = Row(value, columns or Columns())
        try:
            found = option_columns(row)
            count = len(read_options(row, found).texts) if found else 0
        except FormatError:
            continue
        for column in (*RIGHT_OPTION, *EXAM_ANSWER, *LABEL):
            number = _whole_number(row.raw(column)) if row.has(column) else None
            if count and number in (0, count):
                first.setdefault(column, 0 if number == 0 else 1)
    return FileHints(first)


def implied_header(row: Sequence[str]) -> tuple[str, ...] | None:
    """The columns of a CSV file whose first row is already a record, as in MMLU's files; None where it is a header."""
    cells = [cell.strip() for cell in row]
    if len(cells) != len(MMLU_COLUMNS) or not re.fullmatch("[A-D]", cells[-1]) or not all(cells):
        return None
    # `question,A,B,C,D,answer` ends otherwise, but a header may well name a last column `D`.
    header = {"question", "问题", "题目", "a", "b", "c"} & {cell.lower() for cell in cells[:4]}
    return None if len(header) > 1 else MMLU_COLUMNS


def exam_columns(row: Row) -> tuple[str, tuple[str, ...], str] | None:
    """The columns of the stem, of the options, and the one that tells the right option; None where one is missing."""
    options = option_columns(row)
    if not options:
        return None
    stem, answer = row.find("question", STEM), _answer_column(row, options)
    return (stem, options, answer) if stem is not None and answer is not None else None


def read_exam(
    row: Row, stem: str, option_names: Sequence[str], answer: str, common: dict[str, Any], hints: FileHints
) -> tuple[Example, str]:
    """An exam question as the model shall see it.

    The question is the stem and below it each option on a line of its own, `A. text`. The answer is each right option
    in the same form, then, on a new line, the explanation where there is one. Options are lettered from A in the
    record's order whatever the record calls them. ScienceQA's hint is the context; its lecture goes before the
    solution, as in the chain of thought of its authors (https://arxiv.org/abs/2209.09513, QCM → ALE).

    Raises:
        FormatError: no two options, the answer is none of them, or two columns name different ones.
    """
    leave_out_pictures(row)
    options = read_options(row, option_names)
    label = _label(row, options, answer, hints)
    block = options.block()
    question = row.text(stem)
    # A record that convert has written shows its options already.
    if not question.endswith(f"\n{block}"):
        question = f"{question}\n{block}" if question else ""
    example = Example(
        question=question,
        answer=_answer(row, options, label) if label else "",
        choices=options.texts,
        label=label,
        **extras(row, HINT),
        **common,
    )
    shown = option_names[0] if len(option_names) == 1 else f"{option_names[0]} to {option_names[-1]}"
    return example, f"exam question ({stem}, {shown}, {answer})"


def _answer_column(row: Row, options: Sequence[str]) -> str | None:
    if row.named("answer"):
        return row.find("answer", ())
    # `label` may be a class of something else, so it goes last; an empty cell tells nothing.
    candidates = [name for name in (*RIGHT_OPTION, *EXAM_ANSWER, *LABEL) if row.has(name) and name not in options]
    return next((name for name in candidates if not is_blank(row.raw(name))), candidates[0] if candidates else None)


def _label(row: Row, options: Options, column: str, hints: FileHints) -> str | None:
    """The right letters; None where the record does not tell them, as in a test set whose answers are secret."""
    value = row.raw(column)
    if (own := _own_label(row, options)) is not None:
        return own
    if is_blank(value) or _whole_number(value) == -1:
        return None
    first = hints.first.get(column, _FIRST.get(column, 0))
    label = options.right(value, first)
    if label is None and column not in RIGHT_OPTION and row.has("label"):
        label = options.right(row.raw("label"), hints.first.get("label", 0))
    if label is None:
        raise FormatError(
            f"column {row.original(column)!r}: {str(value)[:40]!r} is none of the options A to {options.letters[-1]}"
        )
    if column in RIGHT_OPTION and row.has("answer") and isinstance(row.raw("answer"), str):
        said = options.right(row.raw("answer"), hints.first.get("answer", 0))
        # By their texts: two options may say the same, and an option may say nothing but a letter.
        right = set(map(options.text, label))
        if said is not None and set(map(options.text, said)) != right and row.text("answer") not in right:
            raise FormatError(f"column 'answer' says {said}, column {row.original(column)!r} says {label}")
    return label


def _own_label(row: Row, options: Options) -> str | None:
    """The label of a record that convert has written: its answer begins with the very options that it names."""
    label, answer = (row.raw(name) if row.has(name) else None for name in ("label", "answer"))
    if not isinstance(label, str) or not isinstance(answer, str) or not label or not set(label) <= set(options.letters):
        return None
    lines = "\n".join(map(options.line, label))
    return label if answer == lines or answer.startswith(f"{lines}\n") else None


def _answer(row: Row, options: Options, label: str) -> str:
    lines = "\n".join(map(options.line, label))
    # Convert's own records hold answer and explanation in one.
    own = row.text("answer") if row.has("answer") and isinstance(row.raw("answer"), str) else ""
    if own == lines or own.startswith(f"{lines}\n"):
        return own
    explanation = [row.optional("explanation", EXPLANATION)]
    if row.has("lecture") and not row.named("explanation"):
        explanation.insert(0, row.text("lecture"))
    return "\n".join([lines, *(text for text in explanation if text)])


def _whole_number(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return int(value) if isinstance(value, str) and re.fullmatch(r"\s*-?\d{1,3}\s*", value) else None
