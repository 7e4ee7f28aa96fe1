"""Examples of a report: where a model lost most against another, and where it gained most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ms_medqa.evaluation.contestants import Contestant
from ms_medqa.evaluation.outcome import Outcome

EXAMPLES = 20


def examples_of(outcome: Outcome, models: Sequence[Contestant]) -> dict[str, Any]:
    """Up to twenty items, worst first: of the last model against its base, of one alone by its score.

    Where it neither lost nor gained, there is nothing to show.
    """
    task, pairs = outcome.task, outcome.pairs
    last = models[-1]
    scores = {name: [task.score(item, one) for item, one in each] for name, each in pairs.items()}
    gains = []
    for place, score in enumerate(scores[last.name]):
        before = 0.0 if last.base is None else scores[last.base][place]
        if score is not None and before is not None and (last.base is None or score != before):
            gains.append((score - before, place))
    gains.sort()
    half = EXAMPLES // 2
    chosen = gains if len(gains) <= EXAMPLES else [*gains[:half], *gains[-half:]]
    if not chosen:
        return {}
    found = []
    for gain, place in chosen:
        item = outcome.items[place]
        example = task.reference(item)
        measured = {name: each[place][1] for name, each in pairs.items()}
        example["answers"] = {name: one.answer for name, one in measured.items() if one.answer is not None}
        picks = {name: task.picked(item, one) for name, one in measured.items()}
        if any(picks.values()):
            example["picks"] = {name: pick for name, pick in picks.items() if pick}
        example["scores"] = {name: each[place] for name, each in scores.items()}
        found.append(example | {"gain": None if last.base is None else gain})
    return {
        "score": task.score_is,
        "compared": {"tuned": last.name, "base": last.base},
        "examples": found,
    }
