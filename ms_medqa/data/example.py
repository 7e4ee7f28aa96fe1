"""The records that travel from the readers to prompts, training and evaluation."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its answer.

    Attributes:
        id: unique in one converted folder.
        question: what is asked (in a dialogue: the last question; in an exam: the stem, and each option on a line of
            its own, `A. text`).
        answer: what a good model answers to it (in an exam: each right option on a line, `B. text`, then the
            explanation where there is one).
        context: medical knowledge the answer may rest on.
        system: instruction that stands before the dialogue.
        history: earlier (question, answer) turns, oldest first.
        choices: the texts of an exam question's options, in their order, without letters.
        label: the right options' letters (`B`, `ABD`), the first option being A; or a class such as `yes`, `no`,
            `maybe`.
        source: name of the file it was read from.
        key: the fact that a right answer must contain.
        split: the part (`train`, `val`, `test`) it belongs to, where that is fixed.
        parent: id of the record of which this is a variant.
        notes: codes of `notes.NOTES`: what was left out when it was read. They belong to the reading, not to the
            record: two records may differ in them and be equal, and they are not written.
    """

    id: str
    question: str
    answer: str
    context: str | None = None
    system: str | None = None
    history: tuple[tuple[str, str], ...] = ()
    choices: tuple[str, ...] | None = None
    label: str | None = None
    source: str = ""
    key: str | None = None
    split: str | None = None
    parent: str | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, in the order of the fields, empty optional ones left out."""
        return _to_dict(self, required=("id", "question", "answer"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Example:
        """The inverse of `to_dict`; keys it does not know are ignored."""
        known = _known(cls, values)
        known["history"] = tuple((question, answer) for question, answer in known.get("history") or ())
        if known.get("choices") is not None:
            known["choices"] = tuple(known["choices"])
        return cls(**known)


@dataclass(frozen=True, slots=True)
class PlainText:
    """A piece of text for pre-training: every token of it is learnt."""

    id: str
    text: str
    source: str = ""
    split: str | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON values, in the order of the fields, empty optional ones left out."""
        return _to_dict(self, required=("id", "text"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PlainText:
        """The inverse of `to_dict`; keys it does not know are ignored."""
        return cls(**_known(cls, values))


Record = Example | PlainText


def _to_dict(record: Any, required: tuple[str, ...]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name in _names(type(record)):
        value = getattr(record, name)
        if name == "history":
            value = [list(turn) for turn in value]
        elif isinstance(value, tuple):
            value = list(value)
        if value or name in required:
            result[name] = value
    return result


def _known(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in _names(cls) if name in values}


@functools.cache
def _names(cls: type) -> tuple[str, ...]:
    """The fields that are written down; kept, because a million records ask for them."""
    return tuple(each.name for each in fields(cls) if each.compare)
