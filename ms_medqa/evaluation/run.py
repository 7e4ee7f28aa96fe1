"""A whole evaluation: tasks, models, and the files that it leaves."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ms_medqa import peft
from ms_medqa.backend.distributed import World, check_same_start
from ms_medqa.config.assets import resolve_model
from ms_medqa.config.console import say
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import json_bytes, sha256_file, user_path
from ms_medqa.config.schema import Config, EvalSection
from ms_medqa.data.inputs import expand_inputs
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.raw import check_file
from ms_medqa.evaluation.contestants import Contestant
from ms_medqa.evaluation.items import read_items
from ms_medqa.evaluation.likelihood import Scorer
from ms_medqa.evaluation.measure import Line, Measurer, read_lines
from ms_medqa.evaluation.outcome import Outcome, outcome_of
from ms_medqa.evaluation.outputs import write_outputs
from ms_medqa.evaluation.provenance import versions
from ms_medqa.evaluation.report.build import About, ModelFacts, build_report
from ms_medqa.evaluation.task import Measured, Spec, Task
from ms_medqa.evaluation.tasks import KINDS
from ms_medqa.evaluation.unfinished import Unfinished, items_left
from ms_medqa.generation.generate import adapter_folder, apply_adapter, load_model
from ms_medqa.generation.variant import find_prompt, find_tokenizer
from ms_medqa.generation.weights import digest
from ms_medqa.models.checkpoint import open_checkpoint
from ms_medqa.models.decoder import CausalLM
from ms_medqa.peft.adapter import WEIGHTS_FILE

ALONE = World()

# Measures the tasks with a model that is ready.
_Measure = Callable[[Contestant, CausalLM, Scorer], None]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the results of a model on a task depend on."""

    task: Task
    model: Contestant
    about: Mapping[str, Any]


def run_evaluation(
    specs: Sequence[Spec],
    models: Sequence[Contestant],
    output: str | Path,
    config: Config,
    *,
    command: Sequence[str] = (),
    train_data: str | None = None,
    world: World = ALONE,
    device: str = "CPU",
) -> dict[str, Any]:
    """Measure models on tasks, and write the report.

    What the models say is kept in `OUTPUT/unfinished` as it comes, so that the same command goes on where a run was
    stopped; it is removed when the report is there.

    Args:
        specs: the tasks.
        models: see `contestants`.
        output: folder for the results; of several processes, one that all see.
        config: its sections `eval` and `data`, and `runtime.dtype`, are used.
        command: that repeats it, for the report.
        train_data: data that a model was trained on, beside what adapters say; items that stand in it are counted.
        world: this process among those that share the work.
        device: on which it runs, for the report.

    Returns:
        The report, as `report.json` holds it; of several processes, nothing to all but the first.

    Raises:
        UserError: a file or folder that does not fit, or what an earlier run has left is of something else.
        RunError: no space is left, or results of other processes are missing.
    """
    began = time.time()
    output = user_path(output)
    _check_models(models)
    if train_data is not None:
        for file in expand_inputs([user_path(train_data)]):
            check_file(file.path)
    tasks = [_task(spec, config) for spec in specs]
    output.mkdir(parents=True, exist_ok=True)
    unfinished = Unfinished(output, world)
    if world.size > 1:
        starts = {f"task {task.spec.name}": _digest_of(task) for task in tasks}
        check_same_start(starts | {"models": models, "settings": config.eval}, world)
    results: dict[str, dict[str, dict[int, Measured]]] = {task.spec.name: {} for task in tasks}
    facts: dict[str, ModelFacts] = {}
    asked: list[_Asked] = []

    def measure(one: Contestant, model: CausalLM, scorer: Scorer) -> None:
        prompt = _prompt(one, model)
        facts[one.name] = ModelFacts(
            prompt.name, digest(model, None, whole=True), prompt.tokenizer.fingerprint, prompt.to_dict()
        )
        measurer = Measurer(model, prompt, config.eval, scorer)
        of_model = _about_model(one, prompt, facts[one.name].digest, model)
        # Another device rounds otherwise, and so may another release: what is left of the one is not the other's.
        of_model |= {"device": device, "mindspore": versions()["mindspore"]}
        for task in tasks:
            asked.append(_Asked(task, one, of_model | _about_task(task, config.eval)))
            results[task.spec.name][one.name] = _measure(asked[-1], measurer, unfinished, world)

    _each_model(models, config.runtime.dtype, measure)
    if not unfinished.finish():
        return {}
    try:
        for each in asked if world.size > 1 else ():
            name = each.task.spec.name
            found = unfinished.gathered(name, each.model.name, each.about, len(each.task.items))
            results[name][each.model.name] = found
        outcomes = [outcome_of(task, {one.name: results[task.spec.name][one.name] for one in models}) for task in tasks]
        _check_some_measured(outcomes, unfinished)
        about = About(command, began, config, device, world.size, train_data)
        report = build_report(outcomes, models, facts, about)
        write_outputs(output, report, outcomes, models, config.eval.language)
        unfinished.remove()
    finally:
        unfinished.release()
    return report


def _check_models(models: Sequence[Contestant]) -> None:
    """Raise what is wrong with any of them before time is spent on the first."""
    for one in models:
        if one.adapter is None:
            open_checkpoint(resolve_model(one.model))
        else:
            peft.check_adapter(one.model, adapter_folder(one.adapter))


def _task(spec: Spec, config: Config) -> Task:
    task = KINDS[spec.kind](spec, read_items(spec.path, config.data, config.eval.group_by), config.eval)
    task.check_some()
    return task


def _each_model(models: Sequence[Contestant], dtype: str, measure: _Measure) -> None:
    """Measure each model. One is in memory at a time, and is loaded once for a base and its first adapter."""
    for path in dict.fromkeys(one.model for one in models):
        left = sorted((one for one in models if one.model == path), key=lambda one: one.adapter is not None)
        while left:
            left = _with_one_loading(path, left, dtype, measure)


def _with_one_loading(path: str, left: list[Contestant], dtype: str, measure: _Measure) -> list[Contestant]:
    """Measure up to the first adapter, which is merged into the weights; the others, which need new ones."""
    model = load_model(path, dtype=dtype)
    scorer = Scorer(model)
    for place, one in enumerate(left, start=1):
        if one.adapter is not None:
            apply_adapter(model, one.adapter, merge=True)
        measure(one, model, scorer)
        if one.adapter is not None or place == len(left):
            break
    scorer.close()
    return left[place:]


def _prompt(one: Contestant, model: CausalLM) -> Prompt:
    """A base is asked with its adapter's prompt, so that the two differ in their weights alone."""
    folders = [user_path(folder) for folder in (one.prompt_of, model.folder) if folder is not None]
    return find_prompt(find_tokenizer(model, folders), folders)


def _digest_of(task: Task) -> str:
    """sha256 (hex) of what the items say, however their file was read."""
    found = hashlib.sha256()
    for item in task.items:
        found.update(json_bytes(item.record.to_dict()))
    return found.hexdigest()


def _about_model(one: Contestant, prompt: Prompt, weights: str, model: CausalLM) -> dict[str, Any]:
    """What results depend on of the model."""
    adapter = None if one.adapter is None else user_path(one.adapter) / WEIGHTS_FILE
    return {
        "model": weights,
        "adapter": sha256_file(adapter) if adapter is not None and adapter.is_file() else None,
        "config": repr(model.config),
        "prompt": prompt.to_dict(),
        "tokenizer": prompt.tokenizer.fingerprint,
    }


def _about_task(task: Task, settings: EvalSection) -> dict[str, Any]:
    """And of the task."""
    return {
        "task": task.kind,
        "asked": task.asks(),
        "data": task.data.sha256,
        "read": task.data.settings,
        "settings": settings.model_dump(include={"generate", "max_new_tokens", "options"}),
    }


def _measure(asked: _Asked, measurer: Measurer, unfinished: Unfinished, world: World) -> dict[int, Measured]:
    """Measure what is left of this process's share, and give back what is there."""
    task, one = asked.task, asked.model
    mine = range(world.rank, len(task.items), world.size)
    with unfinished.open(task.spec.name, one.name, asked.about) as kept:
        # Of a run with another number of processes.
        lines = [*kept.left, *unfinished.others(task.spec.name, one.name, asked.about)]
        if count := items_left(kept.left):
            say(f"{kept.path} holds results of {one.name} on {task.spec.name} for {count} items: going on from there")

        def keep(line: Line) -> None:
            kept.add_line(line)
            lines.append(line)

        measurer.run(task, mine, list(lines), keep, f"{one.name}: {task.spec.name}")
    return read_lines(lines)


def _check_some_measured(outcomes: Sequence[Outcome], unfinished: Unfinished) -> None:
    """A report of nothing would look like one, and nothing of it is worth keeping."""
    if any(outcome.items for outcome in outcomes):
        return
    unfinished.remove()
    skipped = [one for outcome in outcomes for one in outcome.skipped]
    raise UserError(f"none of {len(skipped)} records can be evaluated ({skipped[0].reason})")
