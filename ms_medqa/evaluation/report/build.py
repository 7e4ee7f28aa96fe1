"""From what models said to the figures that are told of them: `report.json`."""

from __future__ import annotations

import dataclasses
import math
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from ms_medqa.config.files import user_path
from ms_medqa.config.schema import Config
from ms_medqa.evaluation.contestants import Contestant
from ms_medqa.evaluation.figures import Figure
from ms_medqa.evaluation.intervals import difference, interval, mcnemar
from ms_medqa.evaluation.items import Item, Skipped
from ms_medqa.evaluation.overlap_check import overlap_of
from ms_medqa.evaluation.provenance import commands_of, versions
from ms_medqa.evaluation.task import Measured, Task
from ms_medqa.evaluation.training_log import data_report_of, training_log_of

if TYPE_CHECKING:
    from ms_medqa.evaluation.run import ModelFacts

FORMAT = 1
EXAMPLES = 20
MOST_SKIPPED = 1000
# Groups of which each has its own figures; a column of ids is no group.
MOST_GROUPS = 200
# Of a right or a wrong item; pairs of these are what McNemar's test is about.
_PAIRED = ("accuracy", "letter_accuracy", "generated_accuracy")
_BY_GROUP = ("accuracy", "accuracy_norm", "macro_f1", "letter_accuracy", "letter_macro_f1")
SEED = 0

Pairs = list[tuple[Item, Measured]]


@dataclass(frozen=True, slots=True)
class About:
    """What the report tells of the run.

    Attributes:
        command: that repeats it.
        began: when, in seconds since 1970.
        config: resolved.
        device: on which it ran.
        ranks: processes that shared the work.
        train_data: data that items might have been taken from; None: what the adapters say.
    """

    command: str
    began: float
    config: Config
    device: str
    ranks: int
    train_data: str | None = None


def build_report(
    tasks: Sequence[Task],
    models: Sequence[Contestant],
    facts: Mapping[str, ModelFacts],
    results: Mapping[str, Mapping[str, Mapping[int, Measured]]],
    about: About,
) -> dict[str, Any]:
    """The whole report, as plain JSON values."""
    adapters = {one.name: user_path(one.adapter) for one in models if one.adapter is not None}
    built = []
    for task in tasks:
        of_task = {one.name: results[one.name][task.spec.name] for one in models}
        kept, _ = kept_items(task, of_task)
        records = [task.items[number].record for number in kept]
        overlap = overlap_of(records, adapters, about.config.data, about.train_data)
        built.append(_task(task, models, of_task) | {"overlap": overlap})
    logs = {name: training_log_of(adapter) for name, adapter in adapters.items()}
    data = {name: data_report_of(adapter) for name, adapter in adapters.items()}
    signatures = {name: text for task in tasks for name, text in task.signatures.items()}
    return {
        "format": FORMAT,
        "created": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "seconds": round(time.time() - about.began, 1),
        "title": ", ".join(one.name for one in models),
        "commands": commands_of(adapters.values(), about.command),
        "versions": versions(),
        "signatures": signatures,
        "device": about.device,
        "seed": SEED,
        "ranks": about.ranks,
        "config": about.config.model_dump(mode="json"),
        "models": [
            {
                "name": one.name,
                "model": one.model,
                "adapter": one.adapter,
                "base": one.base,
                "prompt": facts[one.name].prompt,
                "digest": facts[one.name].digest,
            }
            for one in models
        ],
        "tasks": built,
        "training": {name: log for name, log in logs.items() if log},
        "data_report": {name: report for name, report in data.items() if report},
    }


def kept_items(task: Task, of_task: Mapping[str, Mapping[int, Measured]]) -> tuple[list[int], list[Skipped]]:
    """Numbers of the items that every model was measured on, and what was skipped, all figures being over the same."""
    kept, skipped = [], list(task.skipped)
    for number, item in enumerate(task.items):
        errors = [(name, measured[number].error) for name, measured in of_task.items() if measured[number].error]
        if errors:
            skipped.append(Skipped(item.id, "; ".join(f"{name}: {error}" for name, error in errors)))
        else:
            kept.append(number)
    return kept, skipped


def _task(task: Task, models: Sequence[Contestant], of_task: Mapping[str, Mapping[int, Measured]]) -> dict[str, Any]:
    kept, skipped = kept_items(task, of_task)
    pairs = {name: [(task.items[number], measured[number]) for number in kept] for name, measured in of_task.items()}
    figures = {name: task.figures(own) if own else [] for name, own in pairs.items()}
    found: dict[str, Any] = {
        "name": task.spec.name,
        "kind": task.kind,
        "general": task.spec.general,
        "data": {"path": str(task.data.path), "sha256": task.data.sha256},
        "read": task.data.read,
        "limit": task.settings.limit,
        "n": len(kept),
        "skipped": _skipped(skipped, of_task),
        "figures": {name: {one.name: _figure(one) for one in own} for name, own in figures.items()},
        "differences": {one.name: _differences(one, figures) for one in models if one.base is not None},
    }
    if groups := _groups(kept, task, figures):
        found["groups"] = groups
    if confusion := {name: matrix for name, own in pairs.items() if (matrix := _confusion(task, own))}:
        found["confusion"] = confusion
    if charts := _charts(pairs):
        found["charts"] = charts
    if examples := _examples(task, models, pairs):
        found["examples"] = examples
    return found


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _figure(figure: Figure) -> dict[str, Any]:
    low, high = interval(figure)
    return {"value": _number(figure.value), "low": _number(low), "high": _number(high), "n": figure.n}


def _differences(one: Contestant, figures: Mapping[str, Sequence[Figure]]) -> dict[str, Any]:
    assert one.base is not None
    base = {figure.name: figure for figure in figures[one.base]}
    found: dict[str, Any] = {"base": one.base, "figures": {}}
    tests: dict[str, Any] = {}
    for figure in figures[one.name]:
        other = base.get(figure.name)
        if other is None:
            continue
        value, low, high = difference(other, figure)
        found["figures"][figure.name] = {"value": _number(value), "low": _number(low), "high": _number(high)}
        if figure.name in _PAIRED and figure.n:
            both = figure.counted & other.counted
            right = [each.stats[both, 0] > 0 for each in (other, figure)]
            tests[figure.name] = mcnemar(*(each.tolist() for each in right))
    return found | ({"mcnemar": tests} if tests else {})


def _skipped(skipped: Sequence[Skipped], of_task: Mapping[str, Any]) -> dict[str, Any]:
    # "line 7: …" and numbers differ from record to record; what is counted is the kind of fault.
    reasons = Counter(_kind_of(one.reason) for one in skipped)
    items = [dataclasses.asdict(one) for one in skipped[:MOST_SKIPPED]]
    return {"count": len(skipped), "reasons": dict(reasons.most_common()), "items": items}


def _kind_of(reason: str) -> str:
    head, _, rest = reason.partition(": ")
    reason = rest if rest and head.removeprefix("line ").isdecimal() else reason
    return re.sub(r"\bneeds \d+ positions", "needs more positions", reason)


def _groups(kept: Sequence[int], task: Task, figures: Mapping[str, Sequence[Figure]]) -> dict[str, Any]:
    names = [task.items[number].group for number in kept]
    wanted = sorted({name for name in names if name is not None})
    if not wanted or len(wanted) > MOST_GROUPS:
        return {}
    found = {}
    for name in wanted:
        mask = np.array([own == name for own in names])
        found[name] = {
            "n": int(mask.sum()),
            "figures": {
                model: {
                    one.name: _figure(dataclasses.replace(one, stats=one.stats[mask], counted=one.counted[mask]))
                    for one in own
                    if one.name in _BY_GROUP
                }
                for model, own in figures.items()
            },
        }
    return found


def _confusion(task: Task, pairs: Pairs) -> dict[str, Any] | None:
    labels = sorted({label for item, _ in pairs if (label := task.right_label(item)) is not None})
    if not labels:
        return None
    given = [(task.right_label(item), task.given_label(item, one)) for item, one in pairs]
    labels = sorted({*labels, *(label for _, label in given if label is not None)})
    counts = [[0] * len(labels) for _ in labels]
    for right, label in given:
        if right is not None and label is not None:
            counts[labels.index(right)][labels.index(label)] += 1
    return {"labels": labels, "counts": counts}


def _charts(pairs: Mapping[str, Pairs]) -> dict[str, Any]:
    answered = {name: [one for _, one in own if one.answer is not None] for name, own in pairs.items()}
    if not any(answered.values()):
        return {}
    return {
        "answer_tokens": {name: [one.answer_tokens for one in own] for name, own in answered.items()},
        "repeated_4grams": {name: [round(one.repeated, 4) for one in own] for name, own in answered.items()},
    }


def _examples(task: Task, models: Sequence[Contestant], pairs: Mapping[str, Pairs]) -> list[dict[str, Any]]:
    """Where the last model lost most against its base, then where it gained most; alone, its worst and its best."""
    last = models[-1]
    own = pairs[last.name]
    scores = {name: [task.score(item, one) for item, one in each] for name, each in pairs.items()}
    gains = []
    for place, score in enumerate(scores[last.name]):
        before = scores[last.base][place] if last.base is not None else 0.0
        if score is not None and before is not None:
            gains.append((score - before, place))
    gains.sort()
    half = EXAMPLES // 2
    chosen = gains if len(gains) <= EXAMPLES else [*gains[:half], *gains[-half:][::-1]]
    found = []
    for _, place in chosen:
        reference = task.reference(own[place][0])
        answers = {}
        for name, each in pairs.items():
            row = task.row(*each[place])
            shown = row.get("answer") if row.get("answer") is not None else row.get("pick")
            answers[name] = "" if shown is None else str(shown)
        numbers = {name: each[place] for name, each in scores.items()}
        found.append(reference | {"answers": answers, "scores": numbers})
    return found
