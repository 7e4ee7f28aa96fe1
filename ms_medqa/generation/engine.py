"""`Engine`: what has been compiled for a model, shared by all who ask it."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from ms_medqa.backend.interrupt import check_interrupt
from ms_medqa.config.errors import UserError
from ms_medqa.generation.reading import bucket
from ms_medqa.generation.request import Output, Request
from ms_medqa.generation.scheduler import Scheduler, check_prompt
from ms_medqa.generation.weights import Snapshot, snapshot, unchanged
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.row_adapters import RowAdapters

MAX_IDLE = 3


class Engine:
    """Lends schedulers of one model. `Engine.of(model)` gives a model's own.

    A scheduler serves one caller at a time, so answers that are streamed side by side take one each.

    Args:
        model: what answers.
        adapters: beside it, of which each request may take one.
    """

    def __init__(self, model: CausalLM, adapters: RowAdapters | None = None) -> None:
        self.model = model
        self.adapters = adapters
        self._idle: list[_Compiled] = []
        # An answer that nobody takes any more gives its scheduler back when the garbage collector finds it, which may
        # be in this thread and while it holds the lock.
        self._lock = threading.RLock()

    @classmethod
    def of(cls, model: CausalLM) -> Engine:
        """The engine that all callers of a model by itself share, so that nothing is compiled twice."""
        # Kept on the model and not in a table beside it: decoders refer to the model, and both should go together.
        engine = model.__dict__.get("_generation_engine")
        if engine is None:
            engine = model.__dict__["_generation_engine"] = cls(model)
        return engine

    def check(self, prompt: Sequence[int], max_new_tokens: int) -> None:
        """Raise UserError where a prompt cannot be answered: empty, too long, or of another vocabulary."""
        check_prompt(self.model, prompt, max_new_tokens)

    def check_all(self, prompts: Sequence[Sequence[int]], max_new_tokens: Sequence[int]) -> None:
        """`check` of each; the error says which cannot be answered, where there are several."""
        for number, (prompt, new) in enumerate(zip(prompts, max_new_tokens, strict=True), start=1):
            try:
                self.check(prompt, new)
            except UserError as error:
                if len(prompts) == 1:
                    raise
                raise UserError(f"prompt {number}: {error.message}", error.hint) from None

    def stream(self, request: Request, scheduler: Scheduler | None = None) -> Generator[Output, None, None]:
        """Answer one request, token by token; the last output has a `finish`.

        Args:
            request: what is asked.
            scheduler: one of this engine's, which may remember earlier prompts; by default one that does not.

        Raises:
            UserError: the prompt cannot be answered.
            RunError: the model gave logits that are not finite.
            KeyboardInterrupt: Ctrl-C, where `hold_interrupt` lets it wait.
        """
        with self.scheduler(1) if scheduler is None else nullcontext(scheduler) as scheduler:
            running = scheduler.add(request)
            try:
                while running.finish is None:
                    check_interrupt()
                    for output in scheduler.step():
                        if output.error is not None:
                            raise output.error
                        yield output
            finally:
                scheduler.remove(running)

    @contextmanager
    def scheduler(self, max_rows: int) -> Iterator[Scheduler]:
        """A scheduler for up to `max_rows` requests at a time, which remembers nothing of earlier callers."""
        rows = bucket(max_rows)
        with self._lock:
            # What comes back meanwhile comes into the new list.
            idle, self._idle = self._idle, []
            idle = [one for one in idle if unchanged(self.model, one.weights)]
            found = [one for one in idle if one.rows == rows]
            taken = found[-1] if found else None
            self._idle = [*(one for one in idle if one is not taken), *self._idle]
        if taken is None:
            taken = _Compiled(Scheduler(self.model, rows, self.adapters), rows)
        taken.scheduler.max_rows = max_rows
        try:
            yield taken.scheduler
        finally:
            # Weights may have new values by the next time. So what rows hold would be of no use, or wrong.
            taken.scheduler.forget()
            # Taken after the first run, which may have moved the weights to the device.
            taken.weights = snapshot(self.model)
            with self._lock:
                self._idle.append(taken)
                del self._idle[:-MAX_IDLE]


@dataclass(eq=False, slots=True)
class _Compiled:
    """A scheduler, the rows it was made for, and the weights that its last run was seen to compute with."""

    scheduler: Scheduler
    rows: int
    weights: Snapshot | None = None
