"""What the routes share: the models by name, the limits, and the way from a request's body to a ticket."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import Config
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.generation.request import Request
from ms_medqa.generation.sampling import SamplingParams, draw_seed
from ms_medqa.serving.bodies import ChatBody, CompletionBody, GenerationBody, Message
from ms_medqa.serving.core import Core
from ms_medqa.serving.errors import ApiError, invalid, stopping
from ms_medqa.serving.job import Job, Ticket
from ms_medqa.serving.metrics import Metrics
from ms_medqa.serving.threads import TextThreads
from ms_medqa.serving.token_texts import TokenTexts
from ms_medqa.serving.worker import Worker

log = logging.getLogger("ms_medqa.serving")
# Between the answer and what is put behind it.
_GAP = "\n\n"
# Of a nucleus of 0 the likeliest token is left, as of any that is small enough.
_LEAST = {"top_p": sys.float_info.min}


@dataclass(frozen=True)
class ServedModel:
    """A model that a request may name.

    Attributes:
        name: in requests.
        adapter: registered name, None for the base model.
        prompt: renders dialogues; its tokenizer is the model's.
        end_ids: tokens that end an answer.
        positions: tokens of prompt and answer together that it holds.
    """

    name: str
    adapter: str | None
    prompt: Prompt
    end_ids: frozenset[int]
    positions: int

    @property
    def tokenizer(self) -> Tokenizer:
        """Of prompt and answer."""
        return self.prompt.tokenizer

    @cached_property
    def token_texts(self) -> TokenTexts:
        """Of its tokens."""
        return TokenTexts(self.tokenizer)


class Service:
    """A server's models and its worker, and the tickets that are not over.

    Args:
        models: the base model first.
        make_core: makes the core, on the thread that will own it.
        config: its sections `serve` (limits) and `generate` (how answers are sampled by default) count.
    """

    def __init__(self, models: Sequence[ServedModel], make_core: Callable[[], Core], config: Config) -> None:
        self.models: Mapping[str, ServedModel] = {model.name: model for model in models}
        if len(self.models) != len(models):
            raise UserError("two models have the same name", "give the adapter another one, or set serve.model_name")
        self.settings = config.serve
        self.defaults = config.generate
        self.created = int(time.time())
        self.metrics = Metrics()
        self.worker = Worker(make_core, self.settings.max_queue, self.metrics)
        self.threads = TextThreads()
        # No more requests are taken; those that run may come to their end.
        self.stopping = asyncio.Event()
        # Nothing runs any more: connections that only wait may be closed.
        self.over = asyncio.Event()
        # Of the event loop alone.
        self.tickets: set[Ticket] = set()
        closing = (self.settings.closing or "").strip()
        self.closing = f"{_GAP}{closing}" if closing else ""

    @property
    def draining(self) -> bool:
        """The server is going down."""
        return self.stopping.is_set()

    @property
    def ready(self) -> bool:
        """Requests are taken."""
        return self.worker.alive and not self.draining

    def stop(self, seconds: float) -> bool:
        """End its threads; False where one still does something after so long."""
        # Each of them, whatever the other does.
        return self.worker.stop(seconds) & self.threads.stop(seconds)

    def break_off(self, error: ApiError) -> None:
        """End all requests with an error, without waiting for the worker, whose step may not end."""
        for ticket in self.tickets:
            ticket.put(error)

    def model(self, name: str) -> ServedModel:
        """The model of that name.

        Raises:
            ApiError: 404, there is none.
        """
        model = self.models.get(name)
        if model is None:
            raise ApiError(
                404, "there is no such model: GET /v1/models lists them", param="model", code="model_not_found"
            )
        return model

    def check_ready(self) -> None:
        """Raise 503 where the server takes no more requests."""
        if not self.ready:
            raise stopping()

    def check_open(self) -> None:
        """The same, and 429 where none may wait."""
        self.check_ready()
        self.worker.check_room()

    def late(self) -> ApiError:
        """A request has had its time."""
        seconds = self.settings.request_seconds
        # OpenAI's clients would ask again, for what takes as long again.
        return ApiError(504, f"not done within {seconds:g} seconds", headers={"X-Should-Retry": "false"})

    def encode_chat(self, model: ServedModel, body: ChatBody) -> list[list[int]]:
        """The one prompt of a dialogue; control tokens in what users wrote stay text. Takes a while for a long text."""
        example = _example(body.messages, body.context, self.closing)
        try:
            tokens = model.prompt.encode_prompt(example)
        except UserError as error:
            # Where the template is, and what helps, is for whoever runs the server. It does not hold what was said.
            log.warning("a dialogue was refused: %s", error)
            raise invalid("this model's template takes no such messages", "messages") from None
        return [self._checked(model, tokens, "messages")]

    def encode_texts(self, model: ServedModel, body: CompletionBody) -> list[list[int]]:
        """Plain prompts, without any template."""
        start = list(model.tokenizer.prefix_ids)
        prompts = []
        for text in body.prompt:
            if not text:
                raise invalid("prompt: a text is empty", "prompt")
            try:
                tokens = start + model.tokenizer.encode(text)
            except UserError as error:
                raise invalid(str(error), "prompt") from None
            prompts.append(self._checked(model, tokens, "prompt"))
        return prompts

    def check_counts(self, body: GenerationBody, prompts: int, max_tokens: tuple[str, int | None]) -> int | None:
        """The number of tokens that each answer may have, None where the request does not say.

        Args:
            body: the request.
            prompts: how many it has.
            max_tokens: its own limit and that field's name.

        Raises:
            ApiError: 400, more answers or tokens than the server gives.
        """
        most = min(self.settings.max_n, self.worker.capacity)
        if prompts * (body.n or 1) > most:
            raise invalid(f"at most {most} answers to one request", "n" if prompts == 1 else "prompt")
        name, wished = max_tokens
        if wished is not None and wished > self.settings.max_tokens:
            raise invalid(f"{name}: at most {self.settings.max_tokens}", name)
        return wished

    def ticket(
        self,
        model: ServedModel,
        body: GenerationBody,
        prompts: Sequence[Sequence[int]],
        max_tokens: int | None,
        logprobs: int | None,
        began: float,
    ) -> Ticket:
        """The jobs of a request: `n` answers to each prompt; `began` is when it came.

        Raises:
            ApiError: 400, so long an answer does not fit behind a prompt.
        """
        params = self._params(body)
        given = self.defaults.seed if body.seed is None else body.seed
        seed = draw_seed() if given is None else given % 2**64
        # An empty list is a wish of its own: no text ends the answer.
        stops = self.defaults.stop if body.stop is None else body.stop
        jobs: list[Job] = []
        for prompt in prompts:
            limit = self._answer_tokens(model, prompt, max_tokens, body.limit_must_fit)
            for stream in range(body.n or 1):
                request = Request(
                    prompt, params, limit, model.end_ids, seed, stream, adapter=model.adapter, logprobs=logprobs
                )
                jobs.append(Job(request, model.tokenizer, stops, index=len(jobs)))
        return Ticket(jobs, began)

    def _params(self, body: GenerationBody) -> SamplingParams:
        names = [field.name for field in fields(SamplingParams)]
        values: dict[str, Any] = {name: getattr(self.defaults, name) for name in names}
        wished = {name: value for name in names if (value := getattr(body, name)) is not None}
        values |= {name: max(value, _LEAST.get(name, 0)) for name, value in wished.items()}
        try:
            return SamplingParams(**values)
        except UserError as error:
            raise invalid(str(error)) from None

    def _answer_tokens(self, model: ServedModel, prompt: Sequence[int], wished: int | None, must_fit: bool) -> int:
        """What was wished for, or as much of it or of the default as fits."""
        room = model.positions - len(prompt)
        if wished is None:
            wished, must_fit = min(self.defaults.max_new_tokens, self.settings.max_tokens), False
        if must_fit and wished > room:
            raise invalid(
                f"the prompt has {len(prompt)} tokens and the answer may have {wished}, "
                f"but the model holds {model.positions}",
                code="context_length_exceeded",
                tokens=len(prompt),
                most=model.positions - wished,
            )
        return min(wished, room)

    def _checked(self, model: ServedModel, prompt: list[int], param: str) -> list[int]:
        # An answer has one token at least.
        most = min(self.settings.max_prompt_tokens, model.positions - 1)
        if len(prompt) > most:
            raise invalid(
                f"the prompt has {len(prompt)} tokens, and at most {most} are taken",
                param,
                "context_length_exceeded",
                tokens=len(prompt),
                most=most,
            )
        return prompt


def _example(messages: Sequence[Message], context: str | None, closing: str) -> Example:
    """A dialogue as the project's own record: system text, earlier rounds, the last question with its context."""
    system = None
    if messages[0].role in ("system", "developer"):
        system = messages[0].content if messages[0].content.strip() else None
        messages = messages[1:]
    if not messages or messages[-1].role != "user":
        raise invalid("the last message must be a user's", "messages")
    for place, message in enumerate(messages):
        if message.role != ("assistant" if place % 2 else "user"):
            raise invalid(
                "behind one system message, messages of user and assistant must take turns", "messages", "invalid_value"
            )
    if not messages[-1].content.strip():
        raise invalid("the last message is empty", "messages")
    # What the server has put behind an answer was not said by the model.
    texts = [
        message.content.removesuffix(closing) if place % 2 else message.content
        for place, message in enumerate(messages)
    ]
    return Example(
        id="",
        question=texts[-1],
        answer="",
        context=context if context and context.strip() else None,
        system=system,
        history=tuple(zip(texts[:-1:2], texts[1::2], strict=True)),
    )
