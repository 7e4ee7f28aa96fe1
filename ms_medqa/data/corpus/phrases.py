"""Slots of sentence forms: how a table's record fills `{name}` or `{symptoms:2}`."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import Any

# Lists of things read well with a conjunction before the last one; lists of advice ("少吃甜食") do not.
_THINGS = frozenset({"aka", "causes", "symptoms", "exams", "complications", "side_effects", "shows"})
# Steps that must not change places.
_STEPS = frozenset({"do"})
_CONJUNCTIONS = ("、", "、", "和", "以及", "及")
_USUAL = (2, 4)
_INFECTION = ("感染", "传染", "病毒", "细菌", "真菌", "寄生虫")


@dataclass(frozen=True, slots=True)
class Forms:
    """The sentence forms for one table.

    Attributes:
        statements: sentences by the field they tell of.
        questions: questions by the field they ask for, answered by the statements.
        texts: whole texts that combine several fields.
        pairs: comparisons of two records, whose slots begin with `a_` and `b_`.
        groups: by field, from one `{value}` of it to the `{names}` of the records that share it.
    """

    statements: Mapping[str, tuple[str, ...]]
    questions: Mapping[str, tuple[str, ...]]
    texts: tuple[str, ...]
    pairs: tuple[str, ...]
    groups: Mapping[str, tuple[str, ...]]

    def __len__(self) -> int:
        by_field = (*self.statements.values(), *self.questions.values(), *self.groups.values())
        return sum(map(len, by_field)) + len(self.texts) + len(self.pairs)


class Phrases:
    """A list of short phrases that a form can quote in part.

    Format specs: none takes two to four phrases in random order, a number at most so many, `all` every phrase in the
    table's order. One draw differs from the next, so one form gives many sentences.

    Args:
        field: the table's field; it decides how phrases are joined and whether they may change places.
        phrases: at least one phrase.
        rng: source of the choice.
        whole: every draw is `all`.
    """

    def __init__(self, field: str, phrases: Sequence[str], rng: random.Random, whole: bool = False) -> None:
        assert phrases, field
        self.field = field
        self.phrases = tuple(phrases)
        self.rng = rng
        self.whole = whole

    def __format__(self, spec: str) -> str:
        if self.whole or spec == "all":
            return "、".join(self.phrases)
        count = int(spec) if spec else self.rng.randint(*_USUAL)
        places = self.rng.sample(range(len(self.phrases)), min(count, len(self.phrases)))
        chosen = [self.phrases[place] for place in (sorted(places) if self.field in _STEPS else places)]
        if len(chosen) == 1 or self.field not in _THINGS:
            return "、".join(chosen)
        return "、".join(chosen[:-1]) + self.rng.choice(_CONJUNCTIONS) + chosen[-1]


def slots(record: Mapping[str, Any], rng: random.Random, *, whole: bool = False) -> dict[str, Any]:
    """What the forms may name for one record: its non-empty fields.

    `contagious` becomes the field `infectious` or `harmless_to_others`, since each has forms of its own; it becomes
    neither where an infection plays a part though the disease itself does not spread.
    """
    found: dict[str, Any] = {}
    for field, value in record.items():
        if value is True:
            found["infectious"] = ""
        elif value is False and not any(word in f"{record}" for word in _INFECTION):
            found["harmless_to_others"] = ""
        elif value:
            found[field] = Phrases(field, value, rng, whole) if isinstance(value, list) else str(value)
    return found


def needs(form: str) -> set[str]:
    """Names of the slots in a form."""
    return {name for _, name, _, _ in Formatter().parse(form) if name}


def fillable(forms: Sequence[str], fields: Mapping[str, Any]) -> list[str]:
    """The forms whose slots are all there."""
    return [form for form in forms if needs(form) <= fields.keys()]
