"""One question of the page, to one model or to several side by side."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ms_medqa.serving import intake
from ms_medqa.serving.bodies import ChatBody, check_body
from ms_medqa.serving.errors import ApiError, internal, log_failure
from ms_medqa.serving.front import CLIENT_LEFT
from ms_medqa.serving.service import Service
from ms_medqa.serving.worker import Places

# Between two pictures of the answers: a reader sees no more.
_PICTURE_SECONDS = 0.05

Rounds = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as far as it has come.

    Attributes:
        text: so far.
        finish: `stop`, `length`, or `stopped` by whoever asked; None while it goes on or where it failed.
        error: why it failed.
    """

    text: str = ""
    finish: str | None = None
    error: ApiError | None = None


class PageBody(ChatBody):
    """A question of the page, where a person says how long an answer may be, not how long it must be able to become."""

    limit_must_fit: ClassVar[bool] = False


class Run:
    """A question on its way.

    Args:
        service: answers it, with the limits that hold for all requests.
        question: its text.
        dialogues: model and earlier rounds of each side.
        fields: of the request beside model and messages.
    """

    def __init__(
        self, service: Service, question: str, dialogues: Sequence[tuple[str, Rounds]], fields: Mapping[str, Any]
    ) -> None:
        self._service = service
        self._question = question
        self._dialogues = dialogues
        self._fields = fields
        self._answers = [Answer() for _ in dialogues]
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    def stop(self) -> None:
        """End it here; what has been answered stays."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()

    async def pictures(self) -> AsyncIterator[tuple[Answer, ...]]:
        """The answers of all sides each time that they have grown; in the last ones nothing goes on."""
        if not self._stopped:
            self._tasks = [asyncio.ensure_future(self._follow(side)) for side in range(len(self._dialogues))]
            for task in self._tasks:
                # Of one that is stopped before it begins nothing else would tell.
                task.add_done_callback(lambda task: self._changed.set())
        try:
            while not all(task.done() for task in self._tasks):
                await self._changed.wait()
                self._changed.clear()
                yield tuple(self._answers)
                await asyncio.sleep(_PICTURE_SECONDS)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        yield tuple(
            answer if answer.finish or answer.error else replace(answer, finish="stopped") for answer in self._answers
        )

    async def _follow(self, side: int) -> None:
        status, began = CLIENT_LEFT, time.monotonic()
        try:
            body = check_body(PageBody, self._body(side), self._service.settings.max_messages)
            with Places(self._service.worker) as places:
                follower = await intake.chat(self._service, body, places, began)
                await follower.accept()
            async with contextlib.aclosing(follower.chunks(False)) as chunks:
                async for chunk in chunks:
                    (choice,) = chunk["choices"]
                    text = self._answers[side].text + choice["delta"].get("content", "")
                    self._put(side, Answer(text, choice["finish_reason"]))
            status = 200
        except ApiError as error:
            status = error.status
            self._put(side, replace(self._answers[side], error=error))
        except Exception as error:
            status = 500
            log_failure("a question of the page failed", error)
            self._put(side, replace(self._answers[side], error=internal()))
        finally:
            self._service.metrics.request("page", status)

    def _put(self, side: int, answer: Answer) -> None:
        self._answers[side] = answer
        self._changed.set()

    def _body(self, side: int) -> dict[str, Any]:
        model, rounds = self._dialogues[side]
        texts = [text for question, answer in rounds for text in (question, answer)]
        messages = [
            {"role": "assistant" if place % 2 else "user", "content": text}
            for place, text in enumerate([*texts, self._question])
        ]
        return {**self._fields, "model": model, "messages": messages, "stream": True}


class Runs:
    """What runs for each open page."""

    def __init__(self) -> None:
        self._runs: dict[str, set[Run]] = defaultdict(set)

    @contextlib.asynccontextmanager
    async def running(self, page: str, run: Run) -> AsyncIterator[None]:
        """Hold a run where `stop` finds it."""
        self._runs[page].add(run)
        try:
            yield
        finally:
            self._runs[page].discard(run)
            if not self._runs[page]:
                del self._runs[page]

    def stop(self, page: str) -> None:
        """Stop what runs for a page."""
        for run in self._runs.get(page, ()):
            run.stop()
