"""Responses that follow a ticket: whole, or as a stream of server-sent events. Both end where the client leaves."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any, TypeVar

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from ms_medqa.serving.errors import ApiError
from ms_medqa.serving.formats import Format, Json, usage
from ms_medqa.serving.job import Accepted, Piece, Scored, Ticket
from ms_medqa.serving.racing import Overtaken, race
from ms_medqa.serving.service import Service
from ms_medqa.serving.worker import Places

log = logging.getLogger("ms_medqa.serving")
_Result = TypeVar("_Result")
# Beyond the time of a request, for the rest of a stream to be taken. What a slow client has not taken yet waits in
# front of the error that would end it, and in the ticket, where its connection does not see it: without this bound such
# a client would keep its rows beyond its time, and what has been made for it as long as it likes.
_STALL_SECONDS = 5.0
# Of an answer's JSON, how far down its single tokens are.
_TO_TOKENS = 5
_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


class ClientGone(Exception):
    """Nobody is left to answer."""


async def while_connected(receive: Receive, work: Awaitable[_Result], until: float | None = None) -> _Result:
    """The result of `work`, which is broken off where the client leaves.

    Args:
        receive: of the request, whose body has been read.
        work: what is done for it.
        until: on the monotonic clock, when a client that does not take what it is sent counts as gone.

    Raises:
        ClientGone: it has left.
    """
    seconds = None if until is None else max(0.0, until - time.monotonic())
    try:
        return await race(work, gone(receive), seconds=seconds)
    except Overtaken:
        raise ClientGone from None


async def gone(receive: Receive) -> None:
    """Returns when the client of a request, whose body has been read, has left."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Follower:
    """Runs a ticket and puts what it tells into a format.

    Args:
        service: whose worker runs it.
        ticket: not submitted yet.
        places: that it has in the queue.
        form: of the endpoint.
        prompt_tokens: of all its prompts.

    Attributes:
        deadline: on the monotonic clock, when the request must be done.
    """

    def __init__(self, service: Service, ticket: Ticket, places: Places, form: Format, prompt_tokens: int) -> None:
        self._service = service
        self._ticket = ticket
        self._places = places
        self._form = form
        self._prompt_tokens = prompt_tokens
        self.deadline = ticket.began + service.settings.request_seconds
        self._alarm: asyncio.TimerHandle | None = None
        self._made = [0] * len(ticket.jobs)
        self._texts = [""] * len(ticket.jobs)

    async def accept(self) -> None:
        """Submit the ticket and wait until the core has looked at it.

        Raises:
            ApiError: it is refused.
        """
        self._service.check_ready()
        self._service.worker.submit(self._ticket, self._places)
        self._service.tickets.add(self._ticket)
        late = self._service.late()
        # An event like others, because before Python 3.12 `wait_for` may lose the cancellation of a client that leaves.
        self._alarm = self._ticket.loop.call_later(self.deadline - time.monotonic(), self._ticket.put, late)
        try:
            event = await self._next()
        except BaseException:
            self.leave()
            raise
        assert isinstance(event, Accepted)

    def leave(self) -> None:
        """Give the rows back; no harm where the request is over."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._service.tickets.discard(self._ticket)
        self._service.worker.cancel(self._ticket)

    async def whole(self) -> bytes:
        """The whole response, as JSON in UTF-8.

        Raises:
            ApiError: it failed, or took too long.
        """
        scored: list[list[Scored]] = [[] for _ in self._made]
        finish: list[str | None] = [None] * len(self._made)
        try:
            async for piece in self._pieces():
                scored[piece.index] += piece.scored
                finish[piece.index] = piece.finish
        finally:
            self.leave()
        form, closing = self._form, self._service.closing

        def written() -> bytes:
            choices = [form.choice(i, text + closing, scored[i], finish[i]) for i, text in enumerate(self._texts)]
            return "".join(_parts(form.answer(choices, self._usage()), _TO_TOKENS)).encode()

        return await self._service.threads.run_long(form.size(self._texts, scored), written)

    async def chunks(self, usage_wanted: bool) -> AsyncIterator[Json]:
        """The response in chunks.

        Raises:
            ApiError: it failed, or took too long.
        """
        form, closing = self._form, self._service.closing
        try:
            for index in range(len(self._made)):
                if (opening := form.opening(index)) is not None:
                    yield form.part([opening], None, usage_wanted)
            async for piece in self._pieces():
                if piece.text or piece.scored:
                    yield form.part([form.delta(piece.index, piece.text, piece.scored, None)], None, usage_wanted)
                if piece.finish is not None:
                    if closing:
                        yield form.part([form.delta(piece.index, closing, (), None)], None, usage_wanted)
                    yield form.part([form.delta(piece.index, "", (), piece.finish)], None, usage_wanted)
            if usage_wanted:
                yield form.part([], self._usage(), True)
        finally:
            self.leave()

    async def _pieces(self) -> AsyncIterator[Piece]:
        open_answers = len(self._made)
        while open_answers:
            event = await self._next()
            assert isinstance(event, Piece)
            self._made[event.index] = event.made
            self._texts[event.index] += event.text
            open_answers -= event.finish is not None
            yield event
        if self._service.settings.log_text:
            log.info("answers: %s", json.dumps(self._texts, ensure_ascii=False))

    async def _next(self) -> Accepted | Piece:
        event = await self._ticket.next()
        if isinstance(event, ApiError):
            raise event
        return event

    def _usage(self) -> Json:
        return usage(self._prompt_tokens, sum(self._made))


class WholeResponse(Response):
    """A response that is sent when all of it is there. The ticket is accepted."""

    def __init__(self, follower: Follower) -> None:
        super().__init__()
        self._follower = follower

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await while_connected(receive, self._follower.whole())
        except ClientGone:
            return
        except ApiError as error:
            response: Response = error_response(error)
        else:
            response = Response(body, media_type="application/json")
        finally:
            self._follower.leave()
        await response(scope, receive, send)


class StreamedResponse(Response):
    """A stream of server-sent events. The ticket is accepted, so its status is 200; a later error is an event."""

    def __init__(self, follower: Follower, usage_wanted: bool) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        # The length that the empty body would have.
        del self.headers["content-length"]
        self.headers["content-type"] = "text/event-stream; charset=utf-8"
        self._follower = follower
        self._usage_wanted = usage_wanted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await while_connected(receive, self._send(send), self._follower.deadline + _STALL_SECONDS)
        except ClientGone:
            return
        finally:
            self._follower.leave()

    async def _send(self, send: Send) -> None:
        async def event(text: str, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": more})
            # That the client has left is told in the loop's next turn. Until then each write fails, which asyncio logs.
            await asyncio.sleep(0)

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        chunks = self._follower.chunks(self._usage_wanted)
        try:
            async for chunk in chunks:
                await event(_json(chunk))
        except ApiError as error:
            await event(error.to_json())
        finally:
            await chunks.aclose()
        await event("[DONE]", more=False)


def _parts(value: Any, levels: int) -> Iterator[str]:
    """JSON, of which what lies so many levels down is written at one go, in which no other thread gets a turn."""
    if levels and isinstance(value, dict):
        for place, (name, item) in enumerate(value.items()):
            yield f"{',' if place else '{'}{_json(name)}:"
            yield from _parts(item, levels - 1)
        yield "}" if value else "{}"
    elif levels and isinstance(value, list):
        for place, item in enumerate(value):
            yield "," if place else "["
            yield from _parts(item, levels - 1)
        yield "]" if value else "[]"
    else:
        yield _json(value)


def error_response(error: ApiError) -> JSONResponse:
    """An error as a response."""
    return JSONResponse(error.to_dict(), status_code=error.status, headers=error.headers)
