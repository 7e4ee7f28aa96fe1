"""The records that travel from the readers to prompts, training and evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """One question with its answer.

    Attributes:
        id: unique in one converted folder.
        question: what is asked (in a dialogue: the last question).
        answer: what a good model answers to it.
        context: medical knowledge the answer may rest on.
        system: instruction that stands before the dialogue.
        history: earlier (question, answer) turns, oldest first.
        choices: the options of an exam question, in their order.
        label: the right option's letter, or a class such as `yes`, `no`, `maybe`.
        source: name of the file it was read from.
        key: the fact that a right answer must contain.
        split: the part (`train`, `val`, `test`) it belongs to, where that is fixed.
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
    for field in fields(record):
        value = getattr(record, field.name)
        if field.name == "history":
            value = [list(turn) for turn in value]
        elif isinstance(value, tuple):
            value = list(value)
        if value or field.name in required:
            result[field.name] = value
    return result


def _known(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    return {field.name: values[field.name] for field in fields(cls) if field.name in values}
