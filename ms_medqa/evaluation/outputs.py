"""The files that an evaluation leaves: figures for scripts, a report for people, every answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ms_medqa.config.files import atomic_write, json_line, write_json
from ms_medqa.evaluation.contestants import Contestant
from ms_medqa.evaluation.outcome import Outcome
from ms_medqa.evaluation.report.md import markdown
from ms_medqa.evaluation.report.page import page

_REPORT = "report.json"


def answers_file(task: str) -> str:
    """The name of the file of a task's answers."""
    return "answers.jsonl" if task == "qa" else f"answers-{task}.jsonl"


def write_outputs(
    folder: Path,
    report: dict[str, Any],
    outcomes: Sequence[Outcome],
    models: Sequence[Contestant],
    language: str = "en",
) -> None:
    """Write answers, skipped records, `report.html`, `report.md`, `report.json` and, last, `eval.json`.

    Answers of tasks of an earlier evaluation in the folder, which the report does not know any more, are removed.
    """
    earlier = _earlier_answers(folder)
    written = {answers_file(outcome.task.spec.name) for outcome in outcomes}
    for outcome in outcomes:
        with atomic_write(folder / answers_file(outcome.task.spec.name)) as file:
            for place in range(len(outcome.items)):
                file.write(json_line(_line(outcome, place, models)))
    with atomic_write(folder / "skipped.jsonl") as file:
        for outcome in outcomes:
            for one in outcome.skipped:
                file.write(json_line({"task": outcome.task.spec.name, "id": one.id, "reason": one.reason}))
    for name, text in (("report.html", page(report, language)), ("report.md", markdown(report, language))):
        with atomic_write(folder / name) as file:
            file.write(text)
    write_json(folder / _REPORT, report)
    write_json(folder / "eval.json", summary(report))
    for name in earlier - written:
        (folder / name).unlink(missing_ok=True)


def _earlier_answers(folder: Path) -> set[str]:
    """Files of answers that the report in the folder tells of."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        tasks = json.loads((folder / _REPORT).read_text(encoding="utf-8"))["tasks"]
        names = {answers_file(str(task["name"])) for task in tasks}
        return {name for name in names if Path(name).name == name}
    return set()


def summary(report: Mapping[str, Any]) -> dict[str, Any]:
    """Figures by task: of the last model, of its base, and, of more than these two, of each."""
    models = report["models"]
    last = models[-1]
    found: dict[str, Any] = {"tasks": _figures(report, last["name"])}
    if last["base"] is not None:
        found["base"] = _figures(report, last["base"])
    if len(models) > 2:
        found["models"] = {one["name"]: _figures(report, one["name"]) for one in models}
    about = {
        "model": last["model"],
        "adapter": last["adapter"],
        "prompt": last["prompt"],
        "data": {task["name"]: task["data"] for task in report["tasks"]},
        "settings": report["config"]["eval"],
        "version": report["versions"]["ms_medqa"],
    }
    return found | about


def _figures(report: Mapping[str, Any], model: str) -> dict[str, Any]:
    found = {}
    for task in report["tasks"]:
        figures = task["figures"][model]
        numbers: dict[str, Any] = {"n": task["n"]}
        for name, figure in figures.items():
            numbers[name] = figure["value"]
            # A figure over fewer items says over how many.
            if figure["n"] != task["n"]:
                numbers[f"n_{name}"] = figure["n"]
        found[task["name"]] = numbers | {"skipped": task["skipped"]["count"]}
    return found


def _line(outcome: Outcome, place: int, models: Sequence[Contestant]) -> dict[str, Any]:
    """An item with what each model said: of a model and its base, or of one alone, without their names."""
    item = outcome.items[place]
    rows = {one.name: outcome.task.row(item, outcome.pairs[one.name][place][1]) for one in models}
    found = outcome.task.reference(item)
    if len(models) > 2:
        return found | {"models": rows}
    found |= rows[models[-1].name]
    if len(models) == 2:
        found |= {f"base_{key}": value for key, value in rows[models[0].name].items()}
    return found
