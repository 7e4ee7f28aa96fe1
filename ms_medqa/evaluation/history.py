"""All evaluations below a folder side by side: what was measured when, and whether one model stands out."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ms_medqa.config.console import is_main_rank
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.config.side_by_side import cells_of
from ms_medqa.data.raw import printable
from ms_medqa.evaluation.past_runs import Measured, NotReadableError, Run, TaskRun, read_run
from ms_medqa.evaluation.report.columns import aligned
from ms_medqa.evaluation.report.numbers import NOTHING, clean, number, shown, span
from ms_medqa.evaluation.report.titles import title_of

_REPORT = "report.json"
# Levels below the folder that is named; results lie a few deep.
_DEEPEST = 8
# Figures that speak for a task, by its kind.
_MAIN = {
    "qa": ("perplexity", "rouge_l", "key_fact_rate"),
    "choice": ("accuracy", "accuracy_norm", "letter_accuracy"),
    "classify": ("accuracy", "macro_f1"),
    "perplexity": ("perplexity", "bits_per_byte"),
}
_LEGEND = (
    "Brackets are 95 % confidence intervals. * is the best, where its interval overlaps that of no other model; of "
    "perplexity and bits per byte, less is better."
)
_LONGEST = 48


@dataclass(frozen=True, slots=True)
class _Line:
    run: Run
    task: TaskRun
    measured: Measured


def history(folder: str | Path) -> list[Run]:
    """The evaluations below a folder, the oldest first; each is named by its folder, relative to this one.

    A `report.json` of something else, such as a conversion, is passed by; one that cannot be read is named on standard
    error. Links to folders and hidden folders are not entered, nor more than 8 levels.

    Args:
        folder: where to look; the folder of a single evaluation will do.

    Raises:
        UserError: no such folder, or no evaluation in it.
    """
    folder = user_path(folder)
    if not folder.is_dir():
        what = "a file, not a folder" if folder.exists() else "no such folder"
        raise UserError(f"history {printable(folder)}: {what}", "name the folder that holds the results of eval")
    runs = []
    for path in _reports(folder):
        try:
            run = read_run(path, printable(path.parent.relative_to(folder)))
        except NotReadableError as error:
            if is_main_rank():
                print(f"note: {_one_line(printable(path))} is left out: {error}", file=sys.stderr)
            continue
        if run is not None:
            runs.append(run)
    if not runs:
        raise UserError(
            f"history {printable(folder)}: no report of an evaluation in it",
            f"make one with `ms-medqa eval … --output {printable(folder / 'NAME')}`",
        )
    return sorted(runs, key=lambda run: (run.created, run.folder))


def history_table(runs: Sequence[Run]) -> str:
    """A block for each task and data: one line for each run and model, the oldest first, with the main figures.

    Runs over different data, with another number of items, or under other settings, stand in different blocks.
    """
    blocks = _blocks(runs)
    return "\n\n".join([*(_block(lines, _differing(lines, blocks)) for lines in blocks), _LEGEND])


def _reports(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        deep = len(Path(root).relative_to(folder).parts)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if deep < _DEEPEST else []
        if _REPORT in names:
            yield Path(root, _REPORT)


def _blocks(runs: Sequence[Run]) -> list[list[_Line]]:
    found: dict[tuple[Any, ...], list[_Line]] = {}
    for run in runs:
        for task in run.tasks:
            settings = json.dumps(task.settings, sort_keys=True)
            # What is not known is like nothing else.
            data = task.sha256 if task.sha256 != "?" else (run.folder,)
            lines = found.setdefault((task.name, task.kind, data, task.n, settings), [])
            lines += [_Line(run, task, measured) for measured in task.models]
    return [lines for lines in found.values() if lines]


def _differing(block: Sequence[_Line], blocks: Sequence[Sequence[_Line]]) -> dict[str, Any]:
    """The settings of a block that other blocks of the same task and data do not share."""
    task = block[0].task
    others = [
        other[0].task.settings
        for other in blocks
        if (other[0].task.name, other[0].task.kind, other[0].task.sha256) == (task.name, task.kind, task.sha256)
    ]
    names = dict.fromkeys(name for settings in others for name in settings)
    return {
        name: task.settings.get(name)
        for name in names
        if any(other.get(name) != task.settings.get(name) for other in others)
    }


def _block(lines: Sequence[_Line], settings: dict[str, Any]) -> str:
    # The data may have been moved: the last place is the likeliest to be there still.
    task = lines[-1].task
    kind = "" if task.name == task.kind else f" ({task.kind})"
    parts = [f"{task.name}{kind}: {task.path}", f"n = {task.n:,}", f"sha256 {task.sha256[:8]}"]
    parts += [f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in settings.items()]
    named = _MAIN.get(task.kind) or tuple(dict.fromkeys(name for line in lines for name in line.measured.figures))
    figures = [name for name in named if any(name in line.measured.figures for line in lines)]
    several = len({line.measured.prompt for line in lines}) > 1
    columns = [
        ["date (UTC)", *(line.run.created.strftime("%Y-%m-%d %H:%M") for line in lines)],
        ["run", *(_short(line.run.folder) for line in lines)],
        ["model", *(_name(line.measured, several) for line in lines)],
        ["n", *(f"{line.task.n:,}" for line in lines)],
    ]
    # A blank above the stars.
    columns += [[title_of(name).en + " ", *_values(lines, name)] for name in figures]
    return "\n".join([_one_line(", ".join(parts)), *aligned(list(zip(*columns, strict=True)), left=3)])


def _name(measured: Measured, with_prompt: bool) -> str:
    adapter = "" if measured.adapter is None else f" + {_short(measured.adapter)}"
    prompt = f" (prompt {_short(measured.prompt or '?')})" if with_prompt else ""
    return f"{_short(measured.model)}{adapter}{prompt}"


def _values(lines: Sequence[_Line], figure: str) -> list[str]:
    form = title_of(figure).form
    best = _best([line.measured for line in lines], figure)
    cells = []
    for line in lines:
        found = line.measured.figures.get(figure, {})
        interval = span(found.get("low"), found.get("high"), form)
        cell = " ".join(filter(None, [shown(found.get("value"), form), interval])) if found else NOTHING
        cells.append(cell + ("*" if line.measured in best else " "))
    return cells


def _best(models: Sequence[Measured], figure: str) -> list[Measured]:
    """The model that is better than all others beyond doubt, as often as it was measured; none where there is doubt."""
    better = title_of(figure).better
    sign = {"higher": 1.0, "lower": -1.0}.get(better or "", 0.0)
    ranked: list[tuple[float, float, float, Measured]] = []
    for model in models:
        found = model.figures.get(figure, {})
        value, low, high = (number(found.get(name)) for name in ("value", "low", "high"))
        if value is not None:
            # Without an interval it stands in the way of others, and is never the best itself.
            ends = (-math.inf, sign * value) if low is None or high is None else sorted((sign * low, sign * high))
            # Turned round so that more is better.
            ranked.append((sign * value, *ends, model))
    if not ranked or not sign:
        return []
    first = max(ranked, key=lambda entry: entry[0])[3]
    own = [entry for entry in ranked if entry[3] is first or first.is_same(entry[3])]
    others = [entry for entry in ranked if entry not in own]
    if not others:
        return []
    bound = max(high for _, _, high, _ in others)
    return [entry[3] for entry in own if entry[1] > bound]


def _short(text: str) -> str:
    """The end of a long name, by which folders differ."""
    text = _one_line(text)
    while cells_of(text) > _LONGEST:
        text = "…" + text.removeprefix("…")[1:]
    return text


def _one_line(text: str) -> str:
    return " ".join(clean(text).split())
