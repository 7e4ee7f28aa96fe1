"""A dialogue: earlier turns are part of the next question's prompt."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace

from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import GenerateSection
from ms_medqa.generation.answer import AnswerStream
from ms_medqa.generation.prepared import Cut, Prepared
from ms_medqa.generation.qa import MedicalQA
from ms_medqa.generation.scheduler import Scheduler


@dataclass(frozen=True, slots=True)
class Turn:
    """A question that has been answered.

    Attributes:
        question, answer: what was said.
        context: medical knowledge that the answer could rest on.
        prepared: what the model was given.
        settings: how the answer was sampled.
    """

    question: str
    answer: str
    context: str | None
    prepared: Prepared
    settings: GenerateSection


class Session(AbstractContextManager["Session"]):
    """Asks one model question after question; leaving the context ends it.

    What the model has read of earlier turns stays in its cache, so its weights must not change in between.

    Where a prompt grows too long for the model, the oldest turns are left out of it first, and the context is cut last
    (with `truncate_context`; otherwise that is an error).

    Args:
        qa: the model.
        settings: how answers are sampled.
        context: medical knowledge for every question from here on; may be set anew at any time.
        adapter: one of the model's, None for the model as it is; may be set anew at any time.
        note: is told, before an answer begins, what was left out or cut; once, until that changes.
        load_base: loads the model without the adapter that lies inside `qa`, where one does.

    Attributes:
        turns: so far, oldest first.
    """

    def __init__(
        self,
        qa: MedicalQA,
        settings: GenerateSection,
        context: str | None = None,
        *,
        adapter: str | None = None,
        note: Callable[[str], object],
        load_base: Callable[[], MedicalQA] | None = None,
    ) -> None:
        self.qa = qa
        self.settings = settings
        self.context = context
        self.adapter = adapter
        self.turns: list[Turn] = []
        self._note = note
        self._load_base = load_base
        self._base: MedicalQA | None = None
        self._asked = 0
        self._left_out = 0
        self._cut: Cut | None = None
        self._resources = ExitStack()
        self._scheduler: Scheduler | None = None

    def __exit__(self, *_: object) -> None:
        self._scheduler = None
        self._resources.close()

    def reset(self) -> None:
        """Forget all turns."""
        self.turns.clear()
        self._left_out, self._cut = 0, None

    def ask(self, question: str) -> AnswerStream:
        """The answer piece by piece. The turn counts as said when the last piece has been taken.

        Raises:
            UserError: an empty question, or one that does not fit even without earlier turns.
        """
        settings, context = self.settings, self.context
        if settings.seed is not None:
            # The same draws in every turn would make answers to like questions follow each other.
            settings = settings.model_copy(update={"seed": settings.seed + self._asked})
        history = [(turn.question, turn.answer) for turn in self.turns]
        # The first number of turns without which the question fits; all of them where none does.
        left_out = bisect.bisect_left(
            range(len(history)),
            True,
            key=lambda number: self.qa.fits(question, context, history[number:], self.adapter, settings),
        )
        prepared = self.qa.prepare(
            question, context, history=history[left_out:], adapter=self.adapter, settings=settings
        )
        self._tell(left_out, prepared.cut)

        def end(answer: str) -> None:
            self.turns.append(Turn(question, answer, context, prepared, settings))
            self._asked += 1

        return self._stream(prepared, settings, end)

    def ask_base(self) -> tuple[Turn, AnswerStream]:
        """The last turn, and what the base model answers to the same prompt: the two differ in their weights alone.

        Raises:
            UserError: there is no turn, or the base model gave its answer.
        """
        if not self.turns:
            raise UserError("no question has been answered yet", "ask one first")
        turn = self.turns[-1]
        variant = turn.prepared.variant
        if self.qa.adapter_inside:
            if self._load_base is None:
                raise UserError("the adapter lies in the weights of this model", "load the base model by itself")
            self._base = self._base or self._load_base()
            return turn, self._base.stream_prepared(turn.prepared, turn.settings)
        if variant.adapter is None:
            raise UserError("that answer is the base model's already", "choose an adapter, where there is one")
        prepared = replace(turn.prepared, variant=replace(variant, adapter=None))
        return turn, self._stream(prepared, turn.settings)

    def _stream(
        self, prepared: Prepared, settings: GenerateSection, on_end: Callable[[str], object] = lambda answer: None
    ) -> AnswerStream:
        if self._scheduler is None and settings.num_beams == 1:
            self._scheduler = self._resources.enter_context(self.qa.engine.scheduler(1))
        return self.qa.stream_prepared(prepared, settings, on_end, self._scheduler)

    def _tell(self, left_out: int, cut: Cut | None) -> None:
        if left_out and left_out != self._left_out:
            turns = "the oldest turn is" if left_out == 1 else f"the {left_out} oldest turns are"
            self._note(f"{turns} left out from here on: the model holds no more")
        if cut and cut != self._cut:
            self._note(str(cut))
        self._left_out, self._cut = left_out, cut
