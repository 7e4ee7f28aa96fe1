"""Answer any number of prompts in batches of one size, the longest first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ms_medqa.generation.engine import Engine, bucket, prompt_width
from ms_medqa.generation.limits import rows_that_fit
from ms_medqa.generation.sampling import SamplingParams, draw_seed


@dataclass(frozen=True, slots=True)
class Generated:
    """One answer.

    Attributes:
        tokens: new token ids, without the end token.
        finished: it ended by itself; False where `max_new_tokens` cut it off.
    """

    tokens: list[int]
    finished: bool


def decode_many(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    max_new_tokens: int,
    end_ids: frozenset[int],
    *,
    batch_size: int,
    seed: int | None = None,
    streams: Sequence[int] | None = None,
    on_answer: Callable[[], object] = lambda: None,
) -> list[Generated]:
    """Answer all prompts; an answer's draws do not depend on how they are batched.

    Prompts of like length share a batch, since a batch costs as much as its longest row.

    Args:
        seed, streams: prompt i draws from stream (seed, streams[i]), by default (seed, i).
        on_answer: called once for each answer that has ended, for a progress bar.

    Raises:
        UserError: a prompt cannot be answered (`Engine.check` tells which).
    """
    seed = draw_seed() if seed is None else seed
    streams = range(len(prompts)) if streams is None else streams
    # Longest first: the largest cache is made at once and then serves all, and the time left is not underestimated.
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    answers: list[list[int]] = [[] for _ in prompts]
    start = 0
    while start < len(order):
        width = prompt_width(len(prompts[order[start]]))
        fitting = rows_that_fit(engine.model.config, width, min(batch_size, bucket(len(prompts))))
        # The engine rounds rows up to a power of two, so that is what they are here.
        rows = 1 << (fitting.bit_length() - 1)
        places = order[start : start + rows]
        start += rows
        running = np.ones(len(places), dtype=bool)
        for tokens in engine.decode(
            [prompts[place] for place in places],
            params,
            max_new_tokens,
            end_ids,
            seed=seed,
            streams=[streams[place] for place in places],
            batch=rows,
        ):
            for row in np.flatnonzero(tokens >= 0):
                answers[places[row]].append(int(tokens[row]))
            for _ in np.flatnonzero(running & (tokens < 0)):
                on_answer()
            running &= tokens >= 0
        for _ in np.flatnonzero(running):
            on_answer()
    # The end token takes a step of its own, so an answer that ended by itself is shorter than the limit.
    return [Generated(tokens, len(tokens) < max_new_tokens) for tokens in answers]
