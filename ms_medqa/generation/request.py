"""What is asked of the decoder, and what it hands back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ms_medqa.config.errors import RunError, UserError
from ms_medqa.generation.sampling import Choice, SamplingParams, TokenSampler

Finish = Literal["stop", "length"]
# Most tokens whose log-probabilities can be asked for beside the chosen one's, as in the OpenAI API.
MAX_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt to be continued.

    Attributes:
        prompt: token ids, at least 1.
        params: how tokens are chosen.
        max_new_tokens: most tokens of the answer, at least 1.
        end_ids: tokens that end it; they are not handed out.
        seed, stream: of the draws, see `TokenSampler`.
        adapter: its name, None for the model as it is.
        logprobs: None for none; k for the chosen token's log-probability and those of the k likeliest.

    Raises:
        UserError: `logprobs` is out of range.
    """

    prompt: Sequence[int]
    params: SamplingParams
    max_new_tokens: int
    end_ids: frozenset[int] = frozenset()
    seed: int = 0
    stream: int = 0
    adapter: str | None = None
    logprobs: int | None = None

    def __post_init__(self) -> None:
        if self.logprobs is not None and not 0 <= self.logprobs <= MAX_LOGPROBS:
            raise UserError(f"logprobs = {self.logprobs}: must be from 0 to {MAX_LOGPROBS}")


@dataclass(eq=False, slots=True)
class Running:
    """A request on its way.

    Attributes:
        request: what was asked.
        number: in the order in which requests came.
        sampler: chooses its tokens.
        tokens: the answer so far.
        read: tokens of the prompt that the cache holds.
        shared: how many of those were taken from another prompt that begins alike.
        finish: `stop` for an end token, `length` where `max_new_tokens` cut the answer off, None while it runs.
        error: why it cannot go on, None where it can.
        apart: its prompt is read by itself, for the model failed at a piece in which it stood with others.
    """

    request: Request
    number: int
    sampler: TokenSampler
    tokens: list[int] = field(default_factory=list)
    read: int = 0
    shared: int = 0
    finish: Finish | None = None
    error: RunError | None = None
    apart: bool = False

    @property
    def cached(self) -> int:
        """Tokens of prompt and answer that the cache holds: all but the newest."""
        return self.read + max(0, len(self.tokens) - 1)


@dataclass(frozen=True, slots=True)
class Output:
    """What a step did for one request.

    Attributes:
        running: the request.
        choice: the new token; None where an end token was drawn, or the model failed.
        finish: why it ended with this, None where it goes on.
        error: the model failed at it: it has ended, too, and its row is free.
    """

    running: Running
    choice: Choice | None
    finish: Finish | None
    error: RunError | None = None
