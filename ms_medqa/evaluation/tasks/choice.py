"""Exam questions: which option the model finds likeliest, and which letters it answers."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ms_medqa.config.schema import EvalSection
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.shapes.options import LETTERS
from ms_medqa.evaluation.figures import Figure, macro_f1_figure, share_figure
from ms_medqa.evaluation.items import Item, Items
from ms_medqa.evaluation.labels import parse_label
from ms_medqa.evaluation.letters import parse_letters
from ms_medqa.evaluation.task import Asked, Measured, Spec, Task, continuation
from ms_medqa.evaluation.trees import Tree

# PubMedQA's answers, which its questions do not list.
_VERDICTS = ("yes", "no", "maybe")


class ChoiceTask(Task):
    """`accuracy` takes the option with the largest likelihood, `accuracy_norm` that with the largest over the number of
    its characters (`acc` and `acc_norm` of EleutherAI's harness); both are over the questions with one right answer.
    `letter_accuracy` is over all questions: the letters that the model writes must be just the right ones."""

    kind: ClassVar[str] = "choice"
    score_is = "margin"

    def __init__(self, spec: Spec, data: Items, settings: EvalSection) -> None:
        super().__init__(spec, data, settings)
        if self.items and all(len(_right((item, Measured()))) > 1 for item in self.items):
            self.score_is = "all_letters"

    def unfit(self, item: Item) -> str | None:
        record = item.record
        if not isinstance(record, Example):
            return "plain text has no question"
        if not record.question.strip():
            return "the question is empty"
        if "picture_left_out" in record.notes:
            return "the question comes with a picture, which is not read"
        options = options_of(record)
        if options is None:
            return "no options, and no label yes, no or maybe"
        if not record.label:
            return "the right option is not told"
        if record.choices is not None and not set(record.label) <= set(LETTERS[: len(record.choices)]):
            return f"the right option {record.label!r} is none of A to {LETTERS[len(record.choices) - 1]}"
        if len(right_options(record)) > 1 and not self.settings.generate:
            return "several right options, which only an answer can name: eval.generate is false"
        return None

    def asked(self, item: Item, prompt: Prompt) -> Asked:
        record = item.record
        assert isinstance(record, Example)
        start = prompt.encode_prompt(record)
        trees = []
        if len(right_options(record)) == 1:
            texts = self._texts(record)
            branches = [continuation(prompt, dataclasses.replace(record, answer=text), start) for text in texts]
            trees = [Tree(start, branches)]
        return Asked(trees, start if self.settings.generate else None)

    def figures(self, measured: Sequence[tuple[Item, Measured]]) -> list[Figure]:
        rights = [_right(each) for each in measured]
        one_right = [right[0] if len(right) == 1 else None for right in rights]
        picks, norms = [[self._pick(each, norm) for each in measured] for norm in (False, True)]
        classes = max(len(options_of(item.record) or ()) for item, _ in measured)
        found = [
            share_figure("accuracy", _equal(picks, one_right)),
            share_figure("accuracy_norm", _equal(norms, one_right)),
            macro_f1_figure("macro_f1", picks, one_right, classes),
        ]
        if any(one.answer is None for _, one in measured):
            return found
        chosen = [self._chosen(each) for each in measured]
        single = [pick[0] if pick and len(pick) == 1 else None for pick in chosen]
        return [
            *found,
            share_figure(
                "letter_accuracy", [pick == _right(each) for pick, each in zip(chosen, measured, strict=True)]
            ),
            macro_f1_figure("letter_macro_f1", single, one_right, classes),
            share_figure("parsed_rate", [pick is not None for pick in chosen]),
            share_figure("empty_rate", [not (one.answer or "").strip() for _, one in measured]),
        ]

    def row(self, item: Item, measured: Measured) -> dict[str, Any]:
        each = (item, measured)
        options = options_of(item.record) or ()
        names = LETTERS if isinstance(item.record, Example) and item.record.choices is not None else options
        found: dict[str, Any] = {}
        if measured.scores:
            pick, norm = self._pick(each, False), self._pick(each, True)
            assert pick is not None
            assert norm is not None
            likelihoods = [-score.loss for score in measured.scores[0][1:]]
            found |= {"pick": names[pick], "pick_norm": names[norm], "log_likelihoods": likelihoods}
        if measured.answer is not None:
            chosen = self._chosen(each)
            said = None if chosen is None else "".join(names[number] for number in chosen)
            found |= {"answer": measured.answer, "letters": said}
        return found

    def reference(self, item: Item) -> dict[str, Any]:
        record = item.record
        assert isinstance(record, Example)
        return super().reference(item) | {"choices": options_of(record), "label": record.label}

    def picked(self, item: Item, measured: Measured) -> dict[str, str | None]:
        row = self.row(item, measured)
        return {how: row[name] for how, name in (("likeliest", "pick"), ("written", "letters")) if name in row}

    def score(self, item: Item, measured: Measured) -> float | None:
        """How much likelier the right option is than the likeliest wrong one, in nats; where
        all questions have several right ones, whether just these were written."""
        right = _right((item, measured))
        if not measured.scores:
            # Nats and hits are not put in one order.
            mixed = self.score_is == "margin"
            return None if mixed or measured.answer is None else float(self._chosen((item, measured)) == right)
        likely = [-score.loss for score in measured.scores[0][1:]]
        return likely[right[0]] - max(value for number, value in enumerate(likely) if number != right[0])

    def _texts(self, record: Example) -> list[str]:
        """What is scored of each option."""
        options = options_of(record)
        assert options is not None
        if record.choices is None or self.settings.options == "text":
            return list(options)
        letters = LETTERS[: len(options)]
        if self.settings.options == "letter":
            return list(letters)
        return [f"{letter}. {text}" for letter, text in zip(letters, options, strict=True)]

    def _pick(self, each: tuple[Item, Measured], norm: bool) -> int | None:
        item, measured = each
        if not measured.scores:
            return None
        assert isinstance(item.record, Example)
        likely = np.array([-score.loss for score in measured.scores[0][1:]])
        sizes = np.array([float(len(text)) for text in self._texts(item.record)])
        return int(np.argmax(likely / sizes if norm else likely))

    def _chosen(self, each: tuple[Item, Measured]) -> list[int] | None:
        item, measured = each
        record = item.record
        assert isinstance(record, Example)
        if record.choices is None:
            pick = parse_label(measured.answer or "", _VERDICTS)
            return None if pick is None else [pick]
        several = len(right_options(record)) > 1
        letters = parse_letters(measured.answer or "", record.choices, several=several, finished=measured.finished)
        return None if letters is None else [LETTERS.index(letter) for letter in letters]


def options_of(record: object) -> tuple[str, ...] | None:
    """The options of a question; those of PubMedQA where it has a verdict for a label; None where it has none."""
    assert isinstance(record, Example)
    if record.choices is not None:
        return record.choices
    return _VERDICTS if record.label in _VERDICTS else None


def right_options(record: Example) -> list[int]:
    """Numbers of the right options, ascending."""
    assert record.label
    if record.choices is None:
        return [_VERDICTS.index(record.label)]
    return sorted(LETTERS.index(letter) for letter in record.label)


def _right(each: tuple[Item, Measured]) -> list[int]:
    assert isinstance(each[0].record, Example)
    return right_options(each[0].record)


def _equal(picks: Sequence[int | None], golds: Sequence[int | None]) -> list[bool | None]:
    return [None if gold is None else pick == gold for pick, gold in zip(picks, golds, strict=True)]
