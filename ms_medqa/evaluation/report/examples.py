"""Examples of a report: under what heading an item stands, and how much of its texts is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ms_medqa.evaluation.report.numbers import counted, listing, mapping, number, shown, text
from ms_medqa.evaluation.report.words import plural

_MOST_EXAMPLES = 20
# Of one text; the files of answers hold the whole of it.
_MOST_CHARACTERS = 5000


@dataclass(frozen=True, slots=True)
class Answer:
    """What one model said to an item; `pick`, which option that is, is None where that is not told."""

    model: str
    text: str
    score: str
    pick: str | None


@dataclass(frozen=True, slots=True)
class Example:
    """One item; a context or reference that is not there is None."""

    id: str
    question: str
    context: str | None
    reference: str | None
    answers: Sequence[Answer]


@dataclass(frozen=True, slots=True)
class Examples:
    """Examples of one kind.

    Attributes:
        title: such as "lost most".
        about: whose they are and what their score is; may be empty.
        items: the clearest first.
    """

    title: str
    about: str
    items: Sequence[Example]


def examples_of(task: Mapping[str, Any], models: Sequence[str], words: Mapping[str, str]) -> list[Examples]:
    """Items that the model lost and gained most on against its base; without a base, of its lowest and highest score.

    An item on which nothing was lost or gained is left out.
    """
    compared = mapping(task.get("compared"))
    found: dict[str, list[Mapping[str, Any]]] = {"lost_most": [], "gained_most": []}
    alone = []
    for example in map(mapping, listing(task.get("examples"))[:_MOST_EXAMPLES]):
        gain = number(example.get("gain"))
        if gain is None:
            alone.append(example)
        elif gain:
            found["lost_most" if gain < 0 else "gained_most"].append(example)
    own = text(compared["tuned"]) if compared.get("tuned") is not None else models[-1] if models else ""
    low, high = _halves(alone, own)
    found |= {"lowest_score": low, "highest_score": high}
    about = _about(task, compared, words)
    return [
        Examples(words[name], about, [_example(each, models, words) for each in examples])
        for name, examples in found.items()
        if examples
    ]


def _halves(examples: list[Mapping[str, Any]], model: str) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    scored = [(number(mapping(each.get("scores")).get(model)), each) for each in examples]
    half = (len(scored) + 1) // 2
    if any(score is None for score, _ in scored):
        return examples[:half], examples[half:]
    ordered = [each for _, each in sorted(scored, key=lambda pair: pair[0] or 0.0)]
    return ordered[:half], ordered[half:][::-1]


def _about(task: Mapping[str, Any], compared: Mapping[str, Any], words: Mapping[str, str]) -> str:
    said = []
    if compared.get("tuned") is not None:
        name = "examples_of" if compared.get("base") is None else "examples_against"
        said.append(words[name].format(tuned=text(compared["tuned"]), base=text(compared.get("base"))))
    if task.get("score"):
        score = text(task["score"])
        said.append(words["score_is"].format(score=words.get(f"score_{score}", score)))
    return words["semicolon"].join(said)


def _example(example: Mapping[str, Any], models: Sequence[str], words: Mapping[str, str]) -> Example:
    answers, scores, picks = (mapping(example.get(key)) for key in ("answers", "scores", "picks"))
    names = list(dict.fromkeys([*models, *answers, *picks]))
    context, reference = (
        None if example.get(key) is None else _cut(example[key], words) for key in ("context", "reference")
    )
    return Example(
        text(example.get("id")),
        _cut(example.get("question"), words),
        context or None,
        reference,
        [
            Answer(
                name,
                _cut(answers.get(name, ""), words),
                shown(scores.get(name), ".3f"),
                _pick(mapping(picks.get(name)), words),
            )
            for name in names
            if name in answers or name in picks
        ],
    )


def _pick(pick: Mapping[str, Any], words: Mapping[str, str]) -> str | None:
    """What a model found likeliest, and what its answer names."""
    said = [words[f"pick_{how}"].format(pick=_cut(pick[how], words)) for how in ("likeliest", "written") if how in pick]
    return words["semicolon"].join(said) or None


def _cut(value: Any, words: Mapping[str, str]) -> str:
    whole = text(value)
    rest = len(whole) - _MOST_CHARACTERS
    return whole if rest <= 0 else whole[:_MOST_CHARACTERS] + plural(words, "cut", rest).format(n=counted(rest))
