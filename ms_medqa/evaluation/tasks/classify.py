"""Questions that belong to one of some classes, such as the department that a patient should see."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import EvalSection
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.evaluation.figures import Figure, macro_f1_figure, share_figure
from ms_medqa.evaluation.items import Item, Items
from ms_medqa.evaluation.labels import parse_label
from ms_medqa.evaluation.task import Asked, Measured, Spec, Task, continuation
from ms_medqa.evaluation.trees import Tree

# Each class is scored behind each question.
_MOST_CLASSES = 200


class ClassifyTask(Task):
    """The classes are those that the items have. `accuracy` and `macro_f1` take the class whose name, as the answer,
    has the largest likelihood over the number of its characters; `generated_accuracy` takes the class that the model's
    own answer names."""

    kind: ClassVar[str] = "classify"
    score_is: ClassVar[str] = "margin_per_character"

    def __init__(self, spec: Spec, data: Items, settings: EvalSection) -> None:
        super().__init__(spec, data, settings)
        # Of all items, not of the first few: a limit must not change what is asked.
        names = {class_of(item) for item in data.items if self.unfit(item) is None}
        self.classes = sorted(name for name in names if name is not None)
        if self.items and not 2 <= len(self.classes) <= _MOST_CLASSES:
            raise UserError(
                f"{data.path}: {len(self.classes)} classes, and a task `classify` needs 2 to {_MOST_CLASSES}",
                "is data.columns.label the column of the class?",
            )

    def unfit(self, item: Item) -> str | None:
        record = item.record
        if not isinstance(record, Example):
            return "plain text has no question"
        if not record.question.strip():
            return "the question is empty"
        return None if class_of(item) else "no class"

    def asks(self) -> Any:
        return self.classes

    def asked(self, item: Item, prompt: Prompt) -> Asked:
        record = item.record
        assert isinstance(record, Example)
        start = prompt.encode_prompt(record)
        branches = [continuation(prompt, dataclasses.replace(record, answer=name), start) for name in self.classes]
        return Asked([Tree(start, branches)], start if self.settings.generate else None)

    def figures(self, measured: Sequence[tuple[Item, Measured]]) -> list[Figure]:
        golds: list[int | None] = [self._right(item) for item, _ in measured]
        picks: list[int | None] = [self._pick(one) for _, one in measured]
        found = [
            share_figure("accuracy", [pick == gold for pick, gold in zip(picks, golds, strict=True)]),
            macro_f1_figure("macro_f1", picks, golds, len(self.classes)),
        ]
        if any(one.answer is None for _, one in measured):
            return found
        said = [parse_label(one.answer or "", self.classes) for _, one in measured]
        return [
            *found,
            share_figure("generated_accuracy", [pick == gold for pick, gold in zip(said, golds, strict=True)]),
            macro_f1_figure("generated_macro_f1", said, golds, len(self.classes)),
            share_figure("parsed_rate", [pick is not None for pick in said]),
            share_figure("empty_rate", [not (one.answer or "").strip() for _, one in measured]),
        ]

    def row(self, item: Item, measured: Measured) -> dict[str, Any]:
        found: dict[str, Any] = {"pick": self.classes[self._pick(measured)]}
        if measured.answer is not None:
            said = parse_label(measured.answer, self.classes)
            found |= {"answer": measured.answer, "class": None if said is None else self.classes[said]}
        return found

    def reference(self, item: Item) -> dict[str, Any]:
        return super().reference(item) | {"label": class_of(item)}

    def picked(self, item: Item, measured: Measured) -> dict[str, str | None]:
        row = self.row(item, measured)
        return {how: row[name] for how, name in (("likeliest", "pick"), ("written", "class")) if name in row}

    def score(self, item: Item, measured: Measured) -> float | None:
        """How much likelier (a character) the right class is than the likeliest wrong one, in nats."""
        likely, right = self._likely(measured), self._right(item)
        return float(likely[right] - np.delete(likely, right).max())

    def right_label(self, item: Item) -> str | None:
        return class_of(item)

    def given_label(self, item: Item, measured: Measured) -> str | None:
        return self.classes[self._pick(measured)]

    def _right(self, item: Item) -> int:
        name = class_of(item)
        assert name is not None
        return self.classes.index(name)

    def _likely(self, measured: Measured) -> np.ndarray:
        losses = np.array([score.loss for score in measured.scores[0][1:]])
        return -losses / np.array([float(len(name)) for name in self.classes])

    def _pick(self, measured: Measured) -> int:
        return int(np.argmax(self._likely(measured)))


def class_of(item: Item) -> str | None:
    """The class of an item: its label, or its answer where it has none."""
    assert isinstance(item.record, Example)
    return (item.record.label or item.record.answer).strip() or None
