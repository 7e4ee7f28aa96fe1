"""From what models said to the figures that are told of them: `report.json`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ms_medqa.config.assets import SHIPPED_MODELS, resolve_model
from ms_medqa.config.files import user_path
from ms_medqa.config.schema import Config
from ms_medqa.evaluation.contestants import Contestant
from ms_medqa.evaluation.intervals import SEED
from ms_medqa.evaluation.outcome import Outcome
from ms_medqa.evaluation.overlap_check import overlaps_of
from ms_medqa.evaluation.past_runs import FORMAT
from ms_medqa.evaluation.provenance import commands_of, config_of, is_of_a_run, versions
from ms_medqa.evaluation.report.build_task import task_part
from ms_medqa.evaluation.training_log import data_report_of, training_log_of


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the report tells of a model: the prompt's name, digests of its weights and of its tokenizer; and the prompt
    itself, as plain JSON values, for two may have one name."""

    prompt: str
    digest: str
    tokenizer: str
    asked_as: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class About:
    """What the report tells of the run.

    Attributes:
        command: that repeats it.
        began: when, in seconds since 1970.
        config: resolved.
        device: on which it ran.
        ranks: processes that shared the work.
        train_data: data that items might have been taken from, beside what adapters say.
    """

    command: Sequence[str]
    began: float
    config: Config
    device: str
    ranks: int
    train_data: str | None = None


def build_report(
    outcomes: Sequence[Outcome], models: Sequence[Contestant], facts: Mapping[str, ModelFacts], about: About
) -> dict[str, Any]:
    """The whole report, as plain JSON values."""
    trained = _trained(models)
    overlaps = overlaps_of(
        [[item.record for item in outcome.items] for outcome in outcomes], trained, about.config.data, about.train_data
    )
    known = _known(models, trained, about.train_data is not None)
    parts = [
        task_part(outcome, models, facts) | {"overlap": overlap | ({"models": known} if overlap["checked"] else {})}
        for outcome, overlap in zip(outcomes, overlaps, strict=True)
    ]
    told = {
        "training": {name: training_log_of(folder) for name, folder in trained.items()},
        "data_report": {name: data_report_of(folder) for name, folder in trained.items()},
        "trained_with": {name: config_of(folder) for name, folder in trained.items()},
    }
    report = {
        "format": FORMAT,
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": round(time.time() - about.began, 1),
        "title": f"{', '.join(one.name for one in models)}: {', '.join(part['name'] for part in parts)}",
        "commands": commands_of(trained.values(), about.command, about.ranks),
        "versions": versions(),
        "signatures": _signatures(outcomes),
        "device": about.device,
        "seed": SEED,
        "ranks": about.ranks,
        "config": _used(about.config),
        "models": [
            {
                "name": one.name,
                "model": one.model,
                "adapter": one.adapter,
                "base": one.base,
                "prompt": facts[one.name].prompt,
                "digest": facts[one.name].digest,
                "tokenizer": facts[one.name].tokenizer,
            }
            for one in models
        ],
        "tasks": parts,
        **{key: {name: value for name, value in values.items() if value} for key, values in told.items()},
    }
    return _writable(report)


def _trained(models: Sequence[Contestant]) -> dict[str, Path]:
    """What `train` has made of all that was measured: adapters, whole models, and models that adapters were put on."""
    found: dict[str, Path] = {}
    for one in models:
        if one.adapter is not None:
            found[one.name] = user_path(one.adapter)
        folder = resolve_model(one.model)
        if one.model not in SHIPPED_MODELS and folder not in found.values() and is_of_a_run(folder):
            found[one.name if one.adapter is None else f"{one.name}: {one.model}"] = folder
    return found


def _known(models: Sequence[Contestant], trained: Mapping[str, Path], all_named: bool) -> dict[str, bool]:
    """Of each model whether it is known what it was trained on; what its first makers did is never known.

    A model that adapters were put on here is a base, and no more is asked of it.
    """
    bases = {one.base for one in models}
    return {
        one.name: all_named or one.name in trained
        for one in models
        if one.adapter is not None or one.name in trained or (one.name not in bases and one.model not in SHIPPED_MODELS)
    }


def _signatures(outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Figure → what a library calls just what it has computed; with the task's name where there are several tasks."""
    return {
        name if len(outcomes) == 1 else f"{outcome.task.spec.name}: {name}": text
        for outcome in outcomes
        for name, text in outcome.task.signatures.items()
    }


def _used(config: Config) -> dict[str, Any]:
    """The keys that had a part in it: an evaluation trains nothing, and draws nothing."""
    data = {"columns", "shape", "nfkc", "cluster_similarity", "benchmark_ngram"}
    return config.model_dump(mode="json", include={"eval": True, "data": data, "runtime": {"dtype", "device"}})


def _writable(value: Any) -> Any:
    """The same, with U+FFFD for what is no character: half a surrogate pair, or a byte of a path that is no UTF-8."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_writable(name): _writable(each) for name, each in value.items()}
    return [_writable(each) for each in value] if isinstance(value, list | tuple) else value
