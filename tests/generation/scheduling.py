"""Requests for a scheduler, and what each gets alone."""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
import tiny
from mindspore import ops

from ms_medqa.generation import SamplingParams, generate
from ms_medqa.generation.request import Output, Request
from ms_medqa.generation.scheduler import Scheduler
from ms_medqa.models.cache import CachedDecoder

GREEDY = SamplingParams(temperature=0, repetition_penalty=1.0)
RNG = np.random.default_rng(7)
SHARED = RNG.integers(5, 400, 40).tolist()


def prompt(length: int, start: Sequence[int] = ()) -> list[int]:
    """Tokens that no other prompt has, behind a common start."""
    return [*start, *RNG.integers(5, 400, length - len(start)).tolist()]


def request(tokens: list[int], new: int = 8) -> Request:
    return Request(tokens, GREEDY, new)


def alone(tokens: list[int], new: int = 8) -> list[int]:
    """The answer of an engine that has nothing else to do."""
    return generate(tiny.model(), [tokens], max_new_tokens=new, greedy=True, eos_token_id=[])[0]


def run(scheduler: Scheduler) -> list[Output]:
    """Step until nothing runs."""
    outputs = []
    while scheduler.running:
        outputs += scheduler.step()
    return outputs


def spoil(decoder: CachedDecoder, rows: Sequence[int], start: int = 0, stop: int | None = None) -> None:
    """As an overflow does: what rows hold from a position on, up to another, is no number."""
    for cache in (*decoder.keys, *decoder.values):
        blocks = cache.asnumpy().reshape(decoder.batch, decoder.kv_heads, decoder.length, -1).copy()
        blocks[list(rows), :, start:stop] = np.nan
        ops.assign(cache, ms.Tensor(blocks.reshape(cache.shape)))
