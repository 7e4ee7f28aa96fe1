"""The files that an evaluation leaves: figures for scripts, a report for people, every answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ms_medqa.config.files import atomic_write, json_line, write_json
from ms_medqa.evaluation.contestants import Contestant
from ms_medqa.evaluation.report.build import kept_items
from ms_medqa.evaluation.report.md import markdown
from ms_medqa.evaluation.report.page import page
from ms_medqa.evaluation.task import Measured, Task

Results = Mapping[str, Mapping[str, Mapping[int, Measured]]]


def answers_file(task: Task) -> str:
    """The name of the file of a task's answers."""
    return "answers.jsonl" if task.spec.name == "qa" else f"answers-{task.spec.name}.jsonl"


def write_outputs(
    folder: Path,
    report: dict[str, Any],
    tasks: Sequence[Task],
    models: Sequence[Contestant],
    results: Results,
    language: str = "en",
) -> None:
    """Write answers, skipped records, `report.html`, `report.md`, `report.json` and, last, `eval.json`."""
    skipped = []
    for task in tasks:
        of_task = {one.name: results[one.name][task.spec.name] for one in models}
        kept, left = kept_items(task, of_task)
        skipped += [{"task": task.spec.name, "id": one.id, "reason": one.reason} for one in left]
        with atomic_write(folder / answers_file(task)) as file:
            for number in kept:
                file.write(json_line(_line(task, number, models, of_task)))
    with atomic_write(folder / "skipped.jsonl") as file:
        file.writelines(map(json_line, skipped))
    for name, text in (("report.html", page(report, language)), ("report.md", markdown(report, language))):
        with atomic_write(folder / name) as file:
            file.write(text)
    write_json(folder / "report.json", report)
    write_json(folder / "eval.json", summary(report))


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


def _line(
    task: Task, number: int, models: Sequence[Contestant], of_task: Mapping[str, Mapping[int, Measured]]
) -> dict[str, Any]:
    """An item with what each model said: of a model and its base, or of one alone, without their names."""
    item = task.items[number]
    rows = {one.name: task.row(item, of_task[one.name][number]) for one in models}
    found = task.reference(item)
    last = models[-1]
    if len(models) > 2:
        return found | {"models": rows}
    found |= rows[last.name]
    if len(models) == 2:
        found |= {f"base_{key}": value for key, value in rows[models[0].name].items()}
    return found
