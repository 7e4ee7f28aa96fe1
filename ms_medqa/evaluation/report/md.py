"""The report of an evaluation as Markdown: the sections of the page, with tables where that has charts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ms_medqa.evaluation.report.charts import thin
from ms_medqa.evaluation.report.examples import Example
from ms_medqa.evaluation.report.made import (
    commands_of,
    config_of,
    data_rows,
    made_with,
    model_rows,
    series_of,
    trained_with,
)
from ms_medqa.evaluation.report.markdown_text import block, grid, inline, quote
from ms_medqa.evaluation.report.numbers import counted, mapping, shown, text
from ms_medqa.evaluation.report.parts import Part, parts_of
from ms_medqa.evaluation.report.rows import FEWEST, Cell, Change
from ms_medqa.evaluation.report.sentences import tested
from ms_medqa.evaluation.report.spread import three_of
from ms_medqa.evaluation.report.titles import title_of
from ms_medqa.evaluation.report.words import words_of

# Points of a curve that a table shows.
_MOST_POINTS = 12


def markdown(report: Mapping[str, Any], language: str = "en") -> str:
    """The report's text; arguments and errors as `page.page`."""
    words = words_of(language)
    parts = parts_of(report, language)
    sections = {
        "summary": _summary(parts, words),
        "results": [line for part in parts if not part.general for line in _task(part, words)] or [words["no_results"]],
        "forgetting": [line for part in parts if part.general for line in _task(part, words)] or [words["no_general"]],
        "groups": [line for part in parts for line in _groups(part, words)],
        "training": list(_training(report, words)),
        "answers": [line for part in parts for line in _answers(part, words)],
        "confusion": [line for part in parts for line in _confusion(part, words)],
        "examples": [line for part in parts for line in _examples(part, words)],
        "skipped": [line for part in parts for line in _skipped(part, words)],
        "overlap": [f"- {inline(part.name)}: {_overlap(part)}" for part in parts] + [words["overlap_base"]],
        "data_report": list(_data(report, words)),
        "repeat": list(_repeat(report, words)),
    }
    found = [f"# {inline(text(report.get('title') or words['page']))}", words["disclaimer"]]
    if any(report.get(name) for name in ("created", "seconds")):
        made = {"created": text(report.get("created")), "seconds": shown(report.get("seconds"), ",.1f")}
        found.insert(1, inline(words["created"].format(**made)))
    for name, lines in sections.items():
        found += [f"## {words[name]}", *lines] if lines else []
    return "\n\n".join(found) + "\n"


def _summary(parts: Sequence[Part], words: Mapping[str, str]) -> list[str]:
    found = []
    for part in parts:
        for said in part.said:
            verdict = f"**{words[said.badge]}** – " if said.badge else ""
            also = f" {inline(said.also)}" if said.also else ""
            warning = f" **{inline(part.overlap.words)}**" if part.overlap.kind == "some" else ""
            found.append(f"- {verdict}{inline(said.words)}{also}{warning}")
    lines = ["\n".join(found), words["brackets"]] if found else []
    if any(part.is_compared for part in parts):
        return [*lines, words["judged"].format(fewest=FEWEST), words["points"]]
    return [*lines, words["no_comparison"]]


def _task(part: Part, words: Mapping[str, str]) -> Iterable[str]:
    yield f"### {inline(part.name)} ({inline(part.kind)})"
    yield inline(part.items + (words["semicolon"] + words["data"] + words["colon"] + part.data if part.data else ""))
    yield _overlap(part)
    if part.notes:
        yield " ".join(map(inline, part.notes))
    if not part.rows:
        return
    head = [words["figure"], *map(inline, part.models)]
    head += [f"{inline(tuned)} − {inline(base)}" for tuned, base in part.bases.items()]
    rows = []
    for row in part.rows:
        cells = [inline(row.label) + (f" ({words['lower_is_better']})" if row.better == "lower" else "")]
        cells += [_cell(row.cells[model]) for model in part.models]
        cells += [_change(part, row.changes[tuned], tuned, base, words) for tuned, base in part.bases.items()]
        rows.append(cells)
    yield grid(head, rows)
    if part.is_unsure:
        yield words["no_interval"]


def _change(part: Part, made: Change, tuned: str, base: str, words: Mapping[str, str]) -> str:
    verdict = f" **{words[part.judged(tuned, made.verdict)]}**" if made.verdict else ""
    return f"{made.written}{_dagger(made.unsure)}{verdict} {inline(tested(made, tuned, base, words))}".rstrip()


def _groups(part: Part, words: Mapping[str, str]) -> Iterable[str]:
    groups = part.groups
    if groups is None:
        return
    yield f"### {inline(part.name)}"
    head = [words["group"], "n", *(f"{inline(model)}, {inline(label)}" for label, model in groups.columns)]
    head += [f"{inline(tuned)} − {inline(base)}, {inline(groups.label)}" for tuned, base in groups.bases.items()]
    rows = []
    for row in groups.rows:
        changes = [_change(part, row.changes[tuned], tuned, base, words) for tuned, base in groups.bases.items()]
        rows.append([inline(row.name), row.n, *map(_cell, row.cells), *changes])
    yield grid(head, rows)
    if groups.bases:
        yield words["by_chance"]
    if groups.is_unsure:
        yield words["no_interval"]


def _training(report: Mapping[str, Any], words: Mapping[str, str]) -> Iterable[str]:
    for model, curves in series_of(report).items():
        yield f"### {inline(model)}"
        for name, points in curves.items():
            title = words[name] if name in words else words[f"{name}_loss"]
            form = ".3g" if name == "learning_rate" else ".4f"
            rows = [[counted(step), shown(value, form)] for step, value in thin(points, _MOST_POINTS)]
            yield grid([words["step"], title], rows)


def _answers(part: Part, words: Mapping[str, str]) -> Iterable[str]:
    for name, models in part.charts.items():
        if not models:
            continue
        title = title_of(name)
        yield f"### {inline(part.name)}: {inline(title.name(words['language']))}"
        head = [words["model"], "n", words["least"], words["median"], words["most"]]
        rows = [
            [inline(model), counted(len(values)), *(shown(value, title.form) for value in three_of(values))]
            for model, values in models.items()
        ]
        yield grid(head, rows)


def _confusion(part: Part, words: Mapping[str, str]) -> Iterable[str]:
    for model, matrix in part.confusion.items():
        yield f"### {inline(words['confusion_of'].format(task=part.name, model=text(model)))}"
        head = [words["right_given"], *map(inline, matrix.columns), words["sum"]]
        yield grid(head, [[inline(label), *(count for count, _ in row), total] for label, row, total in matrix.rows])


def _examples(part: Part, words: Mapping[str, str]) -> Iterable[str]:
    for group in part.examples:
        yield f"### {inline(part.name)}: {group.title}"
        if group.about:
            yield inline(group.about)
        for example in group.items:
            yield from _example(example, words)


def _example(example: Example, words: Mapping[str, str]) -> Iterable[str]:
    yield f"#### {inline(example.id)}"
    texts = {"question": example.question, "context": example.context, "reference": example.reference}
    for name, value in texts.items():
        if value is not None:
            yield f"**{words[name]}**"
            yield quote(value)
    for answer in example.answers:
        yield f"**{inline(answer.model)}** · {words['score']} {answer.score}"
        if answer.pick is not None:
            yield inline(answer.pick)
        yield quote(answer.text if answer.text.strip() else words["no_answer"])


def _skipped(part: Part, words: Mapping[str, str]) -> Iterable[str]:
    yield f"### {inline(part.name)}"
    yield inline(part.items)
    if part.reasons:
        rows = [[inline(reason), counted(count)] for reason, count in part.reasons.items()]
        yield grid([words["reason"], words["count"]], rows)
    if part.skipped:
        yield part.listed
        yield grid([words["id"], words["reason"]], [[inline(id_), inline(why)] for id_, why in part.skipped], left=2)
    for said, ids, listed in part.empty:
        yield inline(f"{said} {words['id']}{words['colon']}{listed}{words['colon']}{words['comma'].join(ids)}")


def _data(report: Mapping[str, Any], words: Mapping[str, str]) -> Iterable[str]:
    for model, rows in data_rows(report, words).items():
        yield f"### {inline(model)}"
        yield grid(["", words["count"]], [[inline(name), count] for name, count in rows])


def _repeat(report: Mapping[str, Any], words: Mapping[str, str]) -> Iterable[str]:
    if commands := commands_of(report):
        yield f"### {words['commands']}"
        yield block(commands, "bash")
    head, models = model_rows(report, words)
    if models:
        yield f"### {words['models']}"
        yield grid(head, [list(map(inline, row)) for row in models], left=len(head))
    signatures = [(text(name), text(value)) for name, value in mapping(report.get("signatures")).items()]
    for name, rows in (("made_with", made_with(report, words)), ("signatures", signatures)):
        if rows:
            yield f"### {words[name]}"
            yield grid(["", ""], [[inline(key), inline(value)] for key, value in rows], left=2)
    if config := config_of(report):
        yield f"### {words['config']}"
        yield block(config, "yaml")
    for model, config in trained_with(report).items():
        yield f"### {words['trained_with']}{words['colon']}{inline(model)}"
        yield block(config, "yaml")


def _overlap(part: Part) -> str:
    return inline(f"{part.overlap.words} {part.overlap.also}")


def _dagger(unsure: bool) -> str:
    return " †" if unsure else ""


def _cell(cell: Cell) -> str:
    n = f" (n = {cell.n})" if cell.n else ""
    return f"{cell.value} {cell.interval}".rstrip() + _dagger(cell.unsure) + n
