"""What the server asks of the decoding core, which makes one token of every running answer in each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ms_medqa.generation.sampling import SamplingParams

# What a core hands out for a row; the server only hands it back, and tells rows apart by identity.
Running = Any


@dataclass(frozen=True, slots=True)
class Request:
    """One answer to make.

    Attributes:
        prompt: token ids.
        params: how tokens are chosen.
        max_new_tokens: most tokens of the answer.
        end_ids: tokens that end it.
        seed, stream: of its draws, a function of these two alone.
        adapter: registered name, None for the base model.
        logprobs: None for none, else how many of the likeliest tokens are told beside the chosen one.
    """

    prompt: Sequence[int]
    params: SamplingParams
    max_new_tokens: int
    end_ids: frozenset[int]
    seed: int
    stream: int = 0
    adapter: str | None = None
    logprobs: int | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A token of an answer.

    Attributes:
        token: its id.
        logprob: natural logarithm of its probability, None where none was asked for.
        top: (token, logprob) of the likeliest tokens, likeliest first.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """What a step made of one row.

    Attributes:
        running: the row.
        choice: its new token; None where the end token was drawn.
        finish: None while it goes on; else why it is over, and its row is free again.
    """

    running: Running
    choice: Choice | None
    finish: Literal["stop", "length"] | None


class Core(Protocol):
    """A batch whose rows come and go. One thread makes it and owns it; no other calls it.

    Attributes:
        free: rows that could be taken now.
    """

    free: int

    def check(self, request: Request) -> None:
        """Raise UserError where a request cannot be answered: too long, empty, an unknown adapter."""
        ...

    def add(self, request: Request) -> Running:
        """Take a row; its prompt is read in the next step."""
        ...

    def step(self) -> list[Output]:
        """One token for every row."""
        ...

    def remove(self, running: Running) -> None:
        """Free a row at once, before its answer is over."""
        ...
