"""The report of an evaluation for a terminal: a table for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ms_medqa.evaluation.report.columns import aligned
from ms_medqa.evaluation.report.numbers import counted, mapping, text
from ms_medqa.evaluation.report.rows import Cell, Row, bases_of, models_of, rows_of, tasks_of
from ms_medqa.evaluation.report.sentences import items, overlap, reasons
from ms_medqa.evaluation.report.words import words_of


def table(report: Mapping[str, Any]) -> str:
    """Figures of each task, a column for each model, and how each tuned one differs, with the 95 % confidence
    interval.

    Columns line up where a Chinese character takes two cells. Whatever is absent from the report is left out, and a
    value that is null is "–".

    Args:
        report: the content of `report.json`.
    """
    models = models_of(report)
    blocks = [
        _task(task, [name for name in models if name in mapping(task.get("figures"))]) for task in tasks_of(report)
    ]
    if any(bases_of(task) for task in tasks_of(report)):
        blocks.append("Brackets are 95 % confidence intervals. Differences of percentages are in percentage points.")
    return "\n\n".join(blocks)


def _task(task: Mapping[str, Any], models: Sequence[str]) -> str:
    words = words_of("en")
    bases = bases_of(task)
    rows = rows_of(
        mapping(task.get("figures")), models, "en", n=task.get("n"), differences=mapping(task.get("differences"))
    )
    title = f"{_line(task.get('name'))}: {items(task, words)}"
    why = "; ".join(f"{_line(reason)}: {counted(count)}" for reason, count in reasons(task, words).items())
    lines = [title + (f" ({why})" if why else "")]
    if task.get("general"):
        lines.append("General data: what did the model forget?")
    found = overlap(task, words)
    lines.append(_line(f"{found.words} {found.also}"))
    if not rows:
        return "\n".join(lines)
    tested = [tuned for tuned in bases if any(row.changes[tuned].p for row in rows)]
    head = ["", *map(_line, models)]
    for tuned, base in bases.items():
        head += [f"{_line(tuned)} - {_line(base)}", *(["McNemar's p"] if tuned in tested else [])]
    return "\n".join([*lines, *aligned([head, *(_cells(row, models, bases, tested) for row in rows)])])


def _cells(row: Row, models: Sequence[str], bases: Mapping[str, str], tested: Sequence[str]) -> list[str]:
    found = [_line(row.label) + (" (lower is better)" if row.better == "lower" else "")]
    found += [_value(row.cells[model]) for model in models]
    for tuned in bases:
        found += [row.changes[tuned].written, *([row.changes[tuned].p] if tuned in tested else [])]
    return found


def _value(cell: Cell) -> str:
    return f"{cell.value} (n = {cell.n})" if cell.n else cell.value


def _line(value: Any) -> str:
    """A text on one line."""
    return " ".join(text(value).split())
