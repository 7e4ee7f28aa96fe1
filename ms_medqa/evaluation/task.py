"""What all tasks have in common: an item becomes texts to score and a prompt to answer; measurements become figures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import EvalSection
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.evaluation.figures import Figure
from ms_medqa.evaluation.items import Item, Items, Skipped
from ms_medqa.evaluation.trees import Score, Tree


@dataclass(frozen=True, slots=True)
class Asked:
    """What a model is given for one item.

    Attributes:
        trees: whose likelihoods are wanted.
        prompt: tokens of what it is to answer; None: nothing.
    """

    trees: Sequence[Tree]
    prompt: Sequence[int] | None = None


@dataclass(slots=True)
class Measured:
    """What came of one item.

    Attributes:
        scores: of trunk and branches of each tree.
        answer: the model's own; None where it was not asked.
        answer_tokens: of that, without the end token.
        finished: it ended by itself.
        repeated: share of its 4-grams of tokens that repeat an earlier one; None where it is shorter.
        error: why there is nothing.
    """

    scores: list[list[Score]] = field(default_factory=list)
    answer: str | None = None
    answer_tokens: int = 0
    finished: bool = False
    repeated: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Spec:
    """A task as it is named on the command line.

    Attributes:
        name: under which its figures stand.
        kind: of `tasks.KINDS`.
        path: of its data.
        general: its data is not what the models were tuned for: what did they forget?
    """

    name: str
    kind: str
    path: str
    general: bool = False


class Task(ABC):
    """One kind of measurement on one set of items.

    Attributes:
        spec: how it was named.
        data: where the items come from.
        items: those that any model can be asked, in their order, of the first `eval.limit` records.
        skipped: the others of these, with the reason.
        signatures: figure -> how a library names just what it has computed.
    """

    kind: ClassVar[str]
    # What `score` is: the report has words for it.
    score_is: str = ""
    # Models answer its items, unless `eval.generate` says otherwise.
    generates: ClassVar[bool] = True

    def __init__(self, spec: Spec, data: Items, settings: EvalSection) -> None:
        self.spec, self.data, self.settings = spec, data, settings
        self.items: list[Item] = []
        self.signatures: dict[str, str] = {}
        most = data.read if settings.limit is None else settings.limit
        # Of the first records, whether they can be used or not: what was read is measured, skipped or behind the limit.
        self.skipped = [one for one in data.skipped if one.place < most]
        for item in data.items:
            if item.place >= most:
                break
            reason = self.unfit(item)
            if reason is None:
                self.items.append(item)
            else:
                self.skipped.append(Skipped(item.id, reason, place=item.place))

    def check_some(self) -> None:
        """Raise UserError where there is nothing to measure."""
        if not self.items:
            reason = f" ({self.skipped[0].reason})" if self.skipped else ""
            raise UserError(f"{self.data.path}: none of {len(self.skipped)} records can be evaluated{reason}")

    @abstractmethod
    def unfit(self, item: Item) -> str | None:
        """Why an item is none for this task, whatever the model; None where it is one."""

    @abstractmethod
    def asked(self, item: Item, prompt: Prompt) -> Asked:
        """What a model with this prompt is given."""

    @abstractmethod
    def figures(self, measured: Sequence[tuple[Item, Measured]]) -> list[Figure]:
        """Figures over items, all with the same items in the same order."""

    def asks(self) -> Any:
        """What models are asked beside the items, as plain JSON values."""
        return None

    def row(self, item: Item, measured: Measured) -> dict[str, Any]:
        """What the file of answers tells of one model's answer."""
        return {} if measured.answer is None else {"answer": measured.answer}

    def picked(self, item: Item, measured: Measured) -> dict[str, str | None]:
        """What a model found `likeliest`, and what its answer names (`written`; None: nothing that could be told)."""
        return {}

    def score(self, item: Item, measured: Measured) -> float | None:
        """One number by which examples are put in order, better ones higher; None: there are no examples."""
        return None

    def reference(self, item: Item) -> dict[str, Any]:
        """What the file of answers tells of the item."""
        record = item.record
        assert isinstance(record, Example)
        found: dict[str, Any] = {"id": item.id, "question": record.question}
        if record.history:
            found["history"] = [list(turn) for turn in record.history]
        if record.context:
            found["context"] = record.context
        found["reference"] = record.answer
        return found | ({"group": item.group} if item.group else {})

    def right_label(self, item: Item) -> str | None:
        """The class that is right; None where the task has none. For the confusion matrix."""
        return None

    def given_label(self, item: Item, measured: Measured) -> str | None:
        """The class that a model has chosen."""
        return None


def continuation(prompt: Prompt, example: Example, start: Sequence[int]) -> list[int]:
    """Tokens of an example's answer without what ends it, behind those of its prompt."""
    return list(prompt.encode(example, end=False).input_ids[len(start) :])
