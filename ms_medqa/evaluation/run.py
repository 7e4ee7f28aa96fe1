"""A whole evaluation: tasks, models, and the files that it leaves."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ms_medqa import peft
from ms_medqa.backend.distributed import World, any_rank
from ms_medqa.config.assets import resolve_model
from ms_medqa.config.console import say
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.config.kept_lines import KeptLines, read_kept
from ms_medqa.config.schema import Config, EvalSection
from ms_medqa.data.prompt import Prompt
from ms_medqa.evaluation.contestants import Contestant
from ms_medqa.evaluation.items import read_items
from ms_medqa.evaluation.measure import Line, Measurer, read_lines
from ms_medqa.evaluation.outputs import write_outputs
from ms_medqa.evaluation.report.build import About, build_report, kept_items
from ms_medqa.evaluation.task import Measured, Spec, Task
from ms_medqa.evaluation.tasks import KINDS
from ms_medqa.generation.generate import adapter_folder, apply_adapter, load_model
from ms_medqa.generation.variant import find_prompt, find_tokenizer
from ms_medqa.generation.weights import digest
from ms_medqa.models.decoder import CausalLM

PARTS = "parts"
ALONE = World()

# Contestant -> task -> number of an item -> what came of it.
Results = dict[str, dict[str, dict[int, Measured]]]


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the report tells of a model: the prompt's name, and a digest of its weights."""

    prompt: str
    digest: str


def run_evaluation(
    specs: Sequence[Spec],
    models: Sequence[Contestant],
    output: str | Path,
    config: Config,
    *,
    command: str = "",
    train_data: str | None = None,
    world: World = ALONE,
    device: str = "CPU",
) -> dict[str, Any]:
    """Measure models on tasks, and write the report.

    What the models say is kept in `OUTPUT/parts` as it comes, so that the same command goes on where a run was stopped;
    the folder goes when the report is there.

    Args:
        specs: the tasks.
        models: see `contestants`.
        output: folder for the results; of several processes, one that all see.
        config: its sections `eval` and `data`, and `runtime.dtype`, are used.
        command: that repeats it, for the report.
        train_data: data of which it is asked whether it holds items; None: what the adapters say they were trained on.
        world: this process among those that share the work.
        device: on which it runs, for the report.

    Returns:
        The report, as `report.json` holds it (all but the first process: what it is made of, nothing).

    Raises:
        UserError: a file or folder that does not fit, or `parts` holds the results of something else.
        RunError: no space is left.
    """
    began = time.time()
    output = user_path(output)
    for one in models:
        resolve_model(one.model)
        if one.adapter is not None:
            adapter_folder(one.adapter)
    tasks = [
        KINDS[spec.kind](spec, read_items(spec.path, config.data, config.eval.group_by), config.eval) for spec in specs
    ]
    for task in tasks:
        task.check_some()
    (output / PARTS).mkdir(parents=True, exist_ok=True)
    results: Results = {one.name: {} for one in models}
    facts: dict[str, ModelFacts] = {}
    for one, model in _loaded(models, config.runtime.dtype):
        prompt = _prompt(one, model)
        facts[one.name] = ModelFacts(prompt.name, digest(model, None))
        measurer = Measurer(model, prompt, config.eval)
        for task in tasks:
            about = _about(task, prompt, facts[one.name].digest, model, config.eval)
            results[one.name][task.spec.name] = _measure(task, one, measurer, output / PARTS, about, world)
    if world.size > 1:
        any_rank(False, world)
        if not world.is_main:
            return {}
        for one in models:
            for task in tasks:
                results[one.name][task.spec.name] = _gathered(output / PARTS, task, one)
    _check_some_measured(tasks, results, output / PARTS)
    about_run = About(command, began, config, device, world.size, train_data)
    report = build_report(tasks, models, facts, results, about_run)
    write_outputs(output, report, tasks, models, results, config.eval.language)
    shutil.rmtree(output / PARTS, ignore_errors=True)
    return report


def _loaded(models: Sequence[Contestant], dtype: str) -> Iterator[tuple[Contestant, CausalLM]]:
    """Each contestant with its model, whose weights are loaded as seldom as can be: a base serves its first adapter."""
    for path in dict.fromkeys(one.model for one in models):
        own = [one for one in models if one.model == path]
        model, merged = load_model(path, dtype=dtype), False
        for one in own:
            if one.adapter is not None:
                # Before time is spent on the base.
                peft.check_adapter(model, one.adapter)
        for one in sorted(own, key=lambda one: one.adapter is not None):
            if merged:
                del model
                model, merged = load_model(path, dtype=dtype), False
            if one.adapter is not None:
                apply_adapter(model, one.adapter, merge=True)
                merged = True
            yield one, model


def _prompt(one: Contestant, model: CausalLM) -> Prompt:
    """A base is asked with its adapter's prompt, so that the two differ in their weights alone."""
    folders = [user_path(folder) for folder in (one.prompt_of, model.folder) if folder is not None]
    return find_prompt(find_tokenizer(model, folders), folders)


def _check_some_measured(tasks: Sequence[Task], results: Results, parts: Path) -> None:
    """A report of nothing would look like one, and nothing of it is worth keeping."""
    skipped = []
    for task in tasks:
        kept, left = kept_items(task, {name: of_model[task.spec.name] for name, of_model in results.items()})
        if kept:
            return
        skipped += left
    shutil.rmtree(parts, ignore_errors=True)
    raise UserError(f"none of {len(skipped)} records can be evaluated ({skipped[0].reason})")


def _about(task: Task, prompt: Prompt, weights: str, model: CausalLM, settings: EvalSection) -> Mapping[str, Any]:
    """What results depend on."""
    return {
        "model": weights,
        "config": repr(model.config),
        "prompt": prompt.to_dict(),
        "tokenizer": prompt.tokenizer.fingerprint,
        "task": task.kind,
        "data": task.data.sha256,
        "settings": settings.model_dump(exclude={"batch_size", "limit", "language"}),
    }


def _measure(
    task: Task, one: Contestant, measurer: Measurer, folder: Path, about: Mapping[str, Any], world: World
) -> dict[int, Measured]:
    """Measure what is left of this process's share, and give back all that is there."""
    mine = range(world.rank, len(task.items), world.size)
    with _Results(folder / _part(task, one, world.rank), about, "results") as kept:
        lines = list(kept.left)
        # Of a run with another number of processes.
        for path in _parts(folder, task, one):
            if path != kept.path:
                lines += read_kept(path, about)
        if lines:
            say(f"{folder} holds results of {one.name} on {task.spec.name}: going on from there")

        def keep(line: Line) -> None:
            kept.add_line(line)
            lines.append(line)

        measurer.run(task, mine, list(lines), keep, f"{one.name}: {task.spec.name}")
    return read_lines(lines)


class _Results(KeptLines):
    def checked(self, value: Any) -> dict[str, Any]:
        read_lines([value])
        return super().checked(value)


def _part(task: Task, one: Contestant, rank: int | str) -> str:
    return f"{task.spec.name}.{re.sub(r'[^a-zA-Z0-9_-]', '_', one.name)}.rank-{rank}.jsonl"


def _parts(folder: Path, task: Task, one: Contestant) -> list[Path]:
    return sorted(folder.glob(_part(task, one, "*")))


def _gathered(folder: Path, task: Task, one: Contestant) -> dict[int, Measured]:
    """What all processes have found."""
    return read_lines(line for path in _parts(folder, task, one) for line in read_kept(path))
