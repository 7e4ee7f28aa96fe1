"""Figures of a report by group, such as the subject of a question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ms_medqa.evaluation.report.numbers import NOTHING, counted, mapping, number, text
from ms_medqa.evaluation.report.rows import Cell, Change, Row, bases_of, headline, rows_of

_LONG = 40


@dataclass(frozen=True, slots=True)
class Group:
    """A row of the table.

    Attributes:
        name: of the group.
        n: its items.
        cells: of each column.
        changes: tuned model -> how the headline's figure differs.
    """

    name: str
    n: str
    cells: Sequence[Cell]
    changes: Mapping[str, Change] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Groups:
    """A table of groups.

    Attributes:
        headline: the figure that stands for a group in a chart, and in how models differ.
        label: its name.
        models: those that have figures of groups.
        columns: (label of a figure, model) of each column.
        bases: tuned model -> the model it is compared with.
        rows: large groups first.
    """

    headline: str
    label: str
    models: Sequence[str]
    columns: Sequence[tuple[str, str]]
    bases: Mapping[str, str]
    rows: Sequence[Group]

    @property
    def is_long(self) -> bool:
        """Whether the table is to be opened first."""
        return len(self.rows) > _LONG

    @property
    def is_unsure(self) -> bool:
        """Whether a value has nothing that tells how sure it is."""
        return any(each.unsure for row in self.rows for each in (*row.cells, *row.changes.values()))


def groups_of(task: Mapping[str, Any], models: Sequence[str], language: str) -> Groups | None:
    """The groups of a task; None where it has none with a figure."""
    groups = mapping(task.get("groups"))
    rows = {
        name: {
            row.figure: row
            for row in rows_of(
                mapping(mapping(group).get("figures")),
                models,
                language,
                n=_n(group),
                differences=mapping(mapping(group).get("differences")),
            )
        }
        for name, group in groups.items()
    }
    every = {row.figure: row for group in rows.values() for row in group.values()}
    # A figure may be of none of these items, as the likelihood of questions with several right options is.
    valued = {name for group in rows.values() for name, row in group.items() if _has_value(row)}
    first = headline([row for name, row in every.items() if name in valued])
    if first is None:
        return None
    # A model that was not asked by group has no column of its own.
    present = [
        model for model in models if any(mapping(mapping(group).get("figures")).get(model) for group in groups.values())
    ]
    columns = [(figure, model) for figure in every for model in present]
    names = sorted(rows, key=lambda name: (-(_n(groups[name]) or 0), name))
    changes = {name: rows[name][first.figure].changes if first.figure in rows[name] else {} for name in names}
    known = {tuned for each in changes.values() for tuned, change in each.items() if change.verdict or change.unsure}
    bases = {tuned: base for name in names for tuned, base in bases_of(mapping(groups[name])).items() if tuned in known}
    return Groups(
        first.figure,
        first.label,
        present,
        [(every[figure].label, model) for figure, model in columns],
        bases,
        [
            Group(
                text(name),
                counted(_n(groups[name])),
                [rows[name][figure].cells[model] if figure in rows[name] else Cell() for figure, model in columns],
                {tuned: changes[name].get(tuned, Change()) for tuned in bases},
            )
            for name in names
        ],
    )


def _has_value(row: Row) -> bool:
    return any(cell.value != NOTHING for cell in row.cells.values())


def _n(group: Any) -> float | None:
    return number(mapping(group).get("n"))
