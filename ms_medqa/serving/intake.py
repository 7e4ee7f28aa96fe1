"""From a request's body to what the worker is given: the same for the routes and for the page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from ms_medqa.serving.bodies import ChatBody, CompletionBody, GenerationBody
from ms_medqa.serving.errors import ApiError
from ms_medqa.serving.formats import ChatFormat, Format, TextFormat
from ms_medqa.serving.responses import Follower
from ms_medqa.serving.service import ServedModel, Service

log = logging.getLogger("ms_medqa.serving")


async def chat(service: Service, body: ChatBody) -> Follower:
    """The follower of a dialogue, not accepted yet.

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
    return await _follower(
        service, body, ChatFormat, limit, logprobs, lambda model: service.encode_chat(model, body), 1
    )


async def completion(service: Service, body: CompletionBody) -> Follower:
    """The follower of plain texts, not accepted yet.

    Raises:
        ApiError: the request cannot be.
    """
    return await _follower(
        service,
        body,
        TextFormat,
        ("max_tokens", body.max_tokens),
        body.logprobs,
        lambda model: service.encode_texts(model, body),
        len(body.prompt),
    )


async def _follower(
    service: Service,
    body: GenerationBody,
    form_type: type[Format],
    limit: tuple[str, int | None],
    logprobs: int | None,
    encode: Callable[[ServedModel], list[list[int]]],
    prompt_count: int,
) -> Follower:
    model = service.model(body.model)
    max_tokens = service.check_counts(body, prompt_count, limit)
    # A long text takes a second, in which others' tokens must go out.
    prompts = await asyncio.to_thread(encode, model)
    if service.settings.log_text:
        log.info("prompts: %s", [model.tokenizer.decode(prompt, skip_special=False) for prompt in prompts])
    form = form_type(model.name, model.tokenizer, logprobs is not None, logprobs or 0)
    ticket = service.ticket(model, body, prompts, max_tokens, logprobs)
    return Follower(service, ticket, form, sum(map(len, prompts)))
