"""Examples of a report: where a model lost most against another, and where it gained most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ms_medqa.evaluation.contestants import Contestant
from ms_medqa.evaluation.outcome import Outcome

EXAMPLES = 20


def examples_of(outcome: Outcome, models: Sequence[Contestant]) -> dict[str, Any]:
    """Up to twenty items: of the last model against its base, of one alone by its score.

    Half of them are those on which it lost most, the most first, and half those on which it gained most, likewise;
    where there are fewer of the one, there are more of the other. Where it neither lost nor gained, there are none.
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
    # Without a base the lowest scores are what is worst, whatever their sign.
    least = half if last.base is None else sum(gain < 0 for gain, _ in gains)
    low, high = gains[:least], gains[least:][::-1]
    low = low[: max(half, EXAMPLES - len(high))]
    chosen = [*low, *high[: EXAMPLES - len(low)]]
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
