"""A request on its way: the rows it takes, and what they tell it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ms_medqa.data.tokenizer import TextStream, Tokenizer
from ms_medqa.generation.request import Output, Request
from ms_medqa.generation.sampling import Choice
from ms_medqa.generation.stops import AnswerText
from ms_medqa.serving.errors import ApiError


@dataclass(frozen=True, slots=True)
class Scored:
    """A token with its log-probability.

    Attributes:
        choice: the token.
        start: where in the answer's text it begins.
        first: it is the answer's first token.
    """

    choice: Choice
    start: int
    first: bool


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of an answer.

    Attributes:
        index: which of the request's answers.
        text: of this part, may be empty.
        scored: the tokens that begin in what has been told so far, where log-probabilities were asked for.
        made: tokens of the whole answer so far.
        finish: why the answer is over, None while it goes on.
    """

    index: int
    text: str
    scored: tuple[Scored, ...]
    made: int
    finish: str | None


@dataclass(frozen=True, slots=True)
class Accepted:
    """The core has nothing against the request."""


Event = Accepted | Piece | ApiError


class Job:
    """One answer of a request. After it is submitted it belongs to the worker's thread.

    Args:
        request: what the core is given.
        tokenizer: of the answer.
        stops: texts before which the answer ends.
        index: its number in the request.
    """

    def __init__(self, request: Request, tokenizer: Tokenizer, stops: Sequence[str], index: int) -> None:
        self.request = request
        self.index = index
        self.running: Any = None
        self.made = 0
        self.last_token: float | None = None
        self._answer = AnswerText(tokenizer, stops)
        # Beside the answer's own text, which lags behind where it may have to end at a stop string.
        self._raw = None if request.logprobs is None else TextStream(tokenizer)
        self._raw_length = 0
        self._told = 0
        self._waiting: list[Scored] = []

    def take(self, output: Output) -> Piece:
        """The part of the answer that a step has made."""
        text, finish = "", output.finish
        if output.choice is not None:
            self.made += 1
            if self._raw is not None:
                self._waiting.append(Scored(output.choice, self._raw_length, first=self.made == 1))
                self._raw_length += len(self._raw.push(output.choice.token))
            text = self._answer.push(output.choice.token)
        if finish is not None:
            text += self._answer.flush()
        if self._answer.stopped:
            finish = "stop"
        self._told += len(text)
        return Piece(self.index, text, self._scored(finish), self.made, finish)

    def _scored(self, finish: str | None) -> tuple[Scored, ...]:
        # Of a stop string nothing is told, so neither are its tokens.
        everything = finish is not None and not self._answer.stopped
        told = [scored for scored in self._waiting if everything or scored.start < self._told]
        self._waiting = [] if finish is not None else self._waiting[len(told) :]
        return tuple(told)


class Ticket:
    """A request's jobs, and the queue in which their events come back to the event loop that made it.

    Args:
        jobs: its answers.
        began: when the request came, on the monotonic clock.
    """

    def __init__(self, jobs: Sequence[Job], began: float) -> None:
        self.jobs = tuple(jobs)
        self.loop = asyncio.get_running_loop()
        self.began = began
        # Of the worker's thread: a ticket that is over gets no more events.
        self.left = len(self.jobs)
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def put(self, event: Event) -> None:
        """Add an event; on the ticket's own loop."""
        self._events.put_nowait(event)

    async def next(self) -> Event:
        """The next event."""
        return await self._events.get()
