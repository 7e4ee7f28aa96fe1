"""What stands in the tables of a report: for each figure a value of each model, and how a tuned one differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ms_medqa.evaluation.report.numbers import (
    NOTHING,
    change,
    counted,
    listing,
    mapping,
    number,
    p_value,
    shown,
    sign_of,
    span,
)
from ms_medqa.evaluation.report.titles import HEADLINES, TITLES, title_of

# Below, intervals of the bootstrap are too narrow to call a model better or worse by.
FEWEST = 30
_SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of one model.

    Attributes:
        value: as it is written.
        interval: such as "[7.90, 8.30]", empty where there is none.
        n: the items it is over, where these are fewer than all; else empty.
        over: the items it is over.
        unsure: it has a value, but nothing tells how sure that is.
    """

    value: str = NOTHING
    interval: str = ""
    n: str = ""
    over: str = NOTHING
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """How one figure of a tuned model differs from that of its base.

    Attributes:
        written: the difference and its interval.
        verdict: "better", "worse", "changed" (neither way is better), "same", "few" (too few items to say), or "" where
            there is no interval.
        n: the items it is over.
        unsure: it has a value, but nothing tells how sure that is.
        p: McNemar's, empty where there is none.
        only_base: items that the base alone has right.
        only_tuned: items that the tuned model alone has right.
    """

    written: str = NOTHING
    verdict: str = ""
    n: str = NOTHING
    unsure: bool = False
    p: str = ""
    only_base: str = ""
    only_tuned: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One figure.

    Attributes:
        figure: its key in the report.
        label: its name in the language of the report.
        better: "higher", "lower" or None.
        cells: model -> its value.
        changes: tuned model -> its difference.
    """

    figure: str
    label: str
    better: str | None
    cells: dict[str, Cell]
    changes: dict[str, Change]


def tasks_of(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The tasks of a report that are mappings."""
    return [task for task in listing(report.get("tasks")) if isinstance(task, Mapping)]


def models_of(report: Mapping[str, Any]) -> list[str]:
    """Names of all models in the order of their columns, those that only a task knows behind the others."""
    names = [mapping(model).get("name") for model in listing(report.get("models"))]
    names += [name for task in tasks_of(report) for name in mapping(task.get("figures"))]
    return list(dict.fromkeys(name for name in names if isinstance(name, str)))


def rows_of(
    values: Mapping[str, Any],
    models: Sequence[str],
    language: str,
    *,
    n: Any = None,
    differences: Mapping[str, Any] | None = None,
) -> list[Row]:
    """Rows in the order of `TITLES`, figures without a title behind them.

    Args:
        values: model -> figure -> {"value", "low", "high", "n"}, as a task or a group has them.
        models: the columns.
        language: of the labels.
        n: items of the task or group.
        differences: tuned model -> what a task tells of it.
    """
    differences = mapping(differences)
    found = [name for model in values.values() for name in mapping(model)]
    found += [name for each in differences.values() for name in mapping(mapping(each).get("figures"))]
    order = list(TITLES)
    names = sorted(dict.fromkeys(found), key=lambda name: order.index(name) if name in TITLES else len(order))
    return [
        Row(
            name,
            title_of(name).name(language),
            title_of(name).better,
            {model: _cell(mapping(values.get(model)).get(name), name, n) for model in models},
            {
                tuned: _change(mapping(each), name, _over(values, tuned, each, name, n))
                for tuned, each in differences.items()
            },
        )
        for name in names
    ]


def headline(rows: Sequence[Row]) -> Row | None:
    """The row that speaks for a task: the first of `HEADLINES`, else the first with a better way, else the first."""
    by_name = {row.figure: row for row in rows}
    found = [by_name[name] for name in HEADLINES if name in by_name] or [row for row in rows if row.better]
    return next(iter(found or rows), None)


def bases_of(task: Mapping[str, Any]) -> dict[str, str]:
    """Tuned model -> the model it is compared with."""
    return {
        tuned: str(mapping(each).get("base") or NOTHING) for tuned, each in mapping(task.get("differences")).items()
    }


def judged(kind: str, difference: Any) -> str:
    """The key of the word for a verdict: only a model that was made of the one it is compared with can have changed."""
    same = mapping(difference).get("same_weights") is True
    return kind if same or kind not in ("better", "worse") else f"{kind}_other"


def _cell(figure: Any, name: str, n: Any) -> Cell:
    figure, form = mapping(figure), title_of(name).form
    own = number(figure.get("n"))
    return Cell(
        shown(figure.get("value"), form),
        span(figure.get("low"), figure.get("high"), form),
        "" if own is None or own == number(n) else counted(own),
        counted(number(n) if own is None else own),
        _is_unsure(figure),
    )


def _over(values: Mapping[str, Any], tuned: str, difference: Any, name: str, n: Any) -> float | None:
    """How many items a difference is over, as far as it is known."""
    figures = [mapping(mapping(values.get(model)).get(name)) for model in (mapping(difference).get("base"), tuned)]
    own = mapping(mapping(mapping(difference).get("figures")).get(name)).get("n")
    counts = [count for count in (number(own), *(number(figure.get("n")) for figure in figures)) if count is not None]
    return min(counts, default=number(n))


def _is_unsure(figure: Mapping[str, Any]) -> bool:
    ends = [figure[end] for end in ("low", "high") if end in figure]
    return number(figure.get("value")) is not None and bool(ends) and None in map(number, ends)


def _change(difference: Mapping[str, Any], name: str, n: float | None) -> Change:
    figure = mapping(mapping(difference.get("figures")).get(name))
    test = mapping(mapping(difference.get("mcnemar")).get(name))
    value, low, high = figure.get("value"), figure.get("low"), figure.get("high")
    title = title_of(name)
    known = None not in (number(value), number(low), number(high))
    return Change(
        change(value, low, high, title.form),
        _verdict(sign_of(low, high), title.better, number(test.get("p")), n) if known else "",
        counted(n),
        _is_unsure(figure),
        p_value(test.get("p")) if test else "",
        counted(test.get("only_base")) if test else "",
        counted(test.get("only_tuned")) if test else "",
    )


def _verdict(sign: int, better: str | None, p: float | None, n: float | None) -> str:
    # McNemar's test is exact, however few the items are.
    if p is None and n is not None and n < FEWEST:
        return "few"
    if not sign or (p is not None and p >= _SIGNIFICANT):
        return "same"
    if better is None:
        return "changed"
    return "better" if (sign > 0) == (better == "higher") else "worse"
