"""The part of `report.json` that tells of one task."""

from __future__ import annotations

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ms_medqa.evaluation.contestants import Contestant
from ms_medqa.evaluation.figures import Figure
from ms_medqa.evaluation.intervals import difference, in_both, interval, paired_test
from ms_medqa.evaluation.items import Skipped
from ms_medqa.evaluation.outcome import Outcome, Pairs
from ms_medqa.evaluation.report.build_examples import examples_of

MOST_SKIPPED = 1000
MOST_EMPTY = 1000
# Groups of which each has its own figures; a column of ids is no group.
MOST_GROUPS = 200
_BY_GROUP = ("accuracy", "accuracy_norm", "macro_f1", "letter_accuracy", "letter_macro_f1")
# Over tokens, which are not the same in another tokenizer.
_OVER_TOKENS = ("perplexity", "token_accuracy", "answer_tokens", "repeated_4grams")


class _Facts(Protocol):
    @property
    def tokenizer(self) -> str: ...

    @property
    def asked_as(self) -> Mapping[str, Any]: ...


def task_part(outcome: Outcome, models: Sequence[Contestant], facts: Mapping[str, _Facts]) -> dict[str, Any]:
    """Figures, differences, groups, examples and what was skipped, as plain JSON values."""
    task, pairs = outcome.task, outcome.pairs
    figures = {name: task.figures(own) if own else [] for name, own in pairs.items()}
    found: dict[str, Any] = {
        "name": task.spec.name,
        "kind": task.kind,
        "general": task.spec.general,
        "data": {"path": str(task.data.path), "sha256": task.data.sha256},
        "read": task.data.read,
        "limit": task.settings.limit,
        "n": len(outcome.items),
        "skipped": _skipped(outcome.skipped),
        "figures": {name: {one.name: _figure(one) for one in own} for name, own in figures.items()},
        "differences": _compared(models, figures, facts),
        **_groups(outcome, models, figures, facts),
        **examples_of(outcome, models),
    }
    if task.generates and task.settings.generate:
        found["decoding"] = {"method": "greedy", "max_new_tokens": task.settings.max_new_tokens}
        found["empty"] = {name: _empty(own) for name, own in pairs.items()}
    if confusion := {name: matrix for name, own in pairs.items() if (matrix := _confusion(outcome, own))}:
        found["confusion"] = confusion
    if charts := _charts(pairs):
        found["charts"] = charts
    return found


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _figure(figure: Figure) -> dict[str, Any]:
    low, high = interval(figure)
    return {"value": _number(figure.value), "low": _number(low), "high": _number(high), "n": figure.n}


def _compared(
    models: Sequence[Contestant], figures: Mapping[str, Sequence[Figure]], facts: Mapping[str, _Facts]
) -> dict[str, Any]:
    return {one.name: _differences(one, models, figures, facts) for one in models if one.base is not None}


def _differences(
    one: Contestant,
    models: Sequence[Contestant],
    figures: Mapping[str, Sequence[Figure]],
    facts: Mapping[str, _Facts],
) -> dict[str, Any]:
    assert one.base is not None
    base = next(other for other in models if other.name == one.base)
    before = {figure.name: figure for figure in figures[one.base]}
    same_tokens = facts[one.name].tokenizer == facts[one.base].tokenizer
    found: dict[str, Any] = {
        "base": one.base,
        "same_weights": one.adapter is not None and base.adapter is None and base.model == one.model,
        "same_prompt": facts[one.name].asked_as == facts[one.base].asked_as,
        "figures": {},
        "incomparable": [],
    }
    tests: dict[str, Any] = {}
    for figure in figures[one.name]:
        other = before.get(figure.name)
        if other is None:
            continue
        if figure.name in _OVER_TOKENS and not same_tokens:
            found["incomparable"].append(figure.name)
            continue
        value, low, high = difference(other, figure)
        ends = {"value": _number(value), "low": _number(low), "high": _number(high)}
        found["figures"][figure.name] = ends | {"n": in_both(other, figure)}
        if (test := paired_test(other, figure)) is not None:
            tests[figure.name] = test
    return found | ({"mcnemar": tests} if tests else {})


def _skipped(skipped: Sequence[Skipped]) -> dict[str, Any]:
    # Numbers and quoted texts differ from record to record; what is counted is the kind of fault.
    kinds = Counter(one.kind or re.sub(r"\bneeds \d+ positions", "needs more positions", one.reason) for one in skipped)
    items = [{"id": one.id, "reason": one.reason} for one in skipped[:MOST_SKIPPED]]
    return {"count": len(skipped), "reasons": dict(kinds.most_common()), "items": items}


def _empty(pairs: Pairs) -> dict[str, Any]:
    ids = [item.id for item, one in pairs if one.answer is not None and not one.answer.strip()]
    return {"count": len(ids), "ids": ids[:MOST_EMPTY]}


def _groups(
    outcome: Outcome,
    models: Sequence[Contestant],
    figures: Mapping[str, Sequence[Figure]],
    facts: Mapping[str, _Facts],
) -> dict[str, Any]:
    names = [item.group for item in outcome.items]
    wanted = sorted({name for name in names if name is not None})
    if not wanted:
        return {}
    if len(wanted) > MOST_GROUPS:
        return {"too_many_groups": len(wanted)}
    found = {}
    for name in wanted:
        mask = np.array([own == name for own in names])
        of_group = {
            model: [
                dataclasses.replace(one, stats=one.stats[mask], counted=one.counted[mask])
                for one in own
                if one.name in _BY_GROUP
            ]
            for model, own in figures.items()
        }
        found[name] = {
            "n": int(mask.sum()),
            "figures": {model: {one.name: _figure(one) for one in own} for model, own in of_group.items()},
            "differences": _compared(models, of_group, facts),
        }
    return {"groups": found, "ungrouped": names.count(None)}


def _confusion(outcome: Outcome, pairs: Pairs) -> dict[str, Any] | None:
    task = outcome.task
    given = [(task.right_label(item), task.given_label(item, one)) for item, one in pairs]
    labels = sorted({label for pair in given for label in pair if label is not None})
    if not labels:
        return None
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
        "repeated_4grams": {
            name: [round(one.repeated, 4) for one in own if one.repeated is not None] for name, own in answered.items()
        },
    }
