"""From a request's body to what the worker is given: the same for the routes and for the page."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from starlette.types import Receive

from ms_medqa.serving.bodies import ChatBody, CompletionBody, GenerationBody
from ms_medqa.serving.errors import ApiError, stopping
from ms_medqa.serving.formats import ChatFormat, Format, TextFormat
from ms_medqa.serving.racing import Overtaken, race
from ms_medqa.serving.responses import ClientGone, Follower, gone
from ms_medqa.serving.service import ServedModel, Service
from ms_medqa.serving.worker import Places

log = logging.getLogger("ms_medqa.serving")
_Result = TypeVar("_Result")


async def while_open(
    service: Service, work: Awaitable[_Result], until: float, late: ApiError, receive: Receive | None = None
) -> _Result:
    """The result of what is done for a request before it is accepted.

    Args:
        service: it is broken off where the server begins to stop.
        work: what is done.
        until: on the monotonic clock, when it must be done.
        late: what the client is told then.
        receive: of the request, where its body has been read and the client may leave.

    Raises:
        ApiError: 503, or `late`.
        ClientGone: it has left.
    """
    rivals: list[Awaitable[object]] = [service.stopping.wait()]
    if receive is not None:
        rivals.append(gone(receive))
    try:
        return await race(work, *rivals, seconds=max(0.0, until - time.monotonic()))
    except Overtaken as overtaken:
        if overtaken.by == 1:
            raise ClientGone from None
        raise (late if overtaken.by is None else stopping()) from None


async def chat(service: Service, body: ChatBody, places: Places, began: float) -> Follower:
    """The follower of a dialogue, not accepted yet.

    Args:
        service: answers it.
        body: the request.
        places: that it has in the queue.
        began: when it came, on the monotonic clock.

    Raises:
        ApiError: the request cannot be.
    """
    if body.top_logprobs is not None and not body.logprobs:
        raise ApiError(400, "top_logprobs goes with logprobs: true", param="top_logprobs")
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    limit = (
        ("max_tokens", body.max_tokens)
        if body.max_completion_tokens is None
        else ("max_completion_tokens", body.max_completion_tokens)
    )
    begin = partial(_begin, service, body, places, began)
    return await begin(ChatFormat, limit, logprobs, lambda model: service.encode_chat(model, body), 1)


async def completion(service: Service, body: CompletionBody, places: Places, began: float) -> Follower:
    """The follower of plain texts, not accepted yet; see `chat`.

    Raises:
        ApiError: the request cannot be.
    """
    limit = ("max_tokens", body.max_tokens)
    begin = partial(_begin, service, body, places, began)
    return await begin(
        TextFormat, limit, body.logprobs, lambda model: service.encode_texts(model, body), len(body.prompt)
    )


async def _begin(
    service: Service,
    body: GenerationBody,
    places: Places,
    began: float,
    form_type: type[Format],
    limit: tuple[str, int | None],
    logprobs: int | None,
    encode: Callable[[ServedModel], list[list[int]]],
    prompt_count: int,
) -> Follower:
    model = service.model(body.model)
    max_tokens = service.check_counts(body, prompt_count, limit)
    places.take(prompt_count * (body.n or 1))
    # A long text takes a second, in which others' tokens must go out.
    prompts = await service.threads.run(partial(encode, model))
    if service.settings.log_text:
        log.info("prompts: %s", [model.tokenizer.decode(prompt, skip_special=False) for prompt in prompts])
    form = form_type(model.name, model.token_texts, logprobs is not None, logprobs or 0)
    ticket = service.ticket(model, body, prompts, max_tokens, logprobs, began)
    return Follower(service, ticket, places, form, sum(map(len, prompts)))
