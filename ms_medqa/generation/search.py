"""Beam search for the answers to any number of prompts, so many at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np

from ms_medqa.backend.interrupt import check_interrupt
from ms_medqa.config.errors import RunError
from ms_medqa.generation.beams import BeamParams, Beams, Hypothesis, Text
from ms_medqa.generation.engine import Engine
from ms_medqa.generation.params import SamplingParams
from ms_medqa.generation.rows import CacheRows
from ms_medqa.generation.scheduler import Scheduler


def search_many(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams,
    beams: BeamParams,
    max_new_tokens: int,
    end_ids: frozenset[int],
    *,
    batch_size: int,
    adapter: str | None = None,
    text: Text | None = None,
    on_found: Callable[[int, list[Hypothesis]], object] = lambda index, answers: None,
    on_error: Callable[[int, RunError], object] | None = None,
) -> list[list[Hypothesis]]:
    """Search the likeliest answers to all prompts; what is found does not depend on how they are batched.

    Args:
        batch_size: prompts at a time; each takes `num_beams` rows of the cache.
        adapter: name of the adapter that all go through, None for the model as it is.
        text: see `Beams`.
        on_found: told the number of each prompt that is done, and its answers.
        on_error: told the number of each prompt at which the model failed, and why; it has no answers. None: that is
            raised.

    Returns:
        For each prompt up to `num_beams` answers, best first.

    Raises:
        UserError: a prompt cannot be answered; says which.
        RunError: the model gave logits that are not finite.
    """
    if not prompts:
        return []
    engine.check_all(prompts, [max_new_tokens] * len(prompts))
    waiting = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found: dict[int, list[Hypothesis]] = {}
    size = beams.num_beams
    groups = min(batch_size, len(prompts))
    length = len(prompts[waiting[-1]]) + max_new_tokens
    with engine.scheduler(groups * size) as scheduler, scheduler.lend(groups * size, length) as cache:
        rows = _Rows(scheduler, cache, adapter)
        free = [list(range(first, first + size)) for first in range(0, groups * size, size)]
        running: dict[int, _Group] = {}

        def lose(index: int, places: list[int], error: RunError) -> None:
            if on_error is None:
                raise error
            cache.clear(places)
            free.append(places)
            found[index] = []
            on_error(index, error)

        while waiting or running:
            check_interrupt()
            while waiting and free:
                index = waiting.pop()
                search, places = Beams(prompts[index], params, beams, max_new_tokens, end_ids, text), free.pop()
                try:
                    running[index] = _Group(search, rows, places, prompts[index])
                except RunError as error:
                    lose(index, places, error)
            for index in [index for index, group in running.items() if group.search.done]:
                group = running.pop(index)
                found[index] = group.search.answers
                free.append(group.places)
                on_found(index, found[index])
            if running:
                logits = rows.step(list(running.values()))
                for index, group in list(running.items()):
                    try:
                        group.go_on(logits)
                    except RunError as error:
                        lose(index, running.pop(index).places, error)
    return [found[index] for index in range(len(prompts))]


class _Rows:
    """Rows of the cache, all through one adapter."""

    def __init__(self, scheduler: Scheduler, cache: CacheRows, adapter: str | None) -> None:
        self.scheduler = scheduler
        self.cache = cache
        self.adapter = adapter

    def read(self, prompt: Sequence[int], row: int) -> np.ndarray:
        """Read a prompt into a row; float32 (1, V) logits after it."""
        start = self.cache.share(row, prompt, self.adapter)
        while start < len(prompt):
            logits, count = self.scheduler.prompts.read_piece(prompt, start, row, self.adapter)
            start += count
        # Whatever beginnings of an answer come to lie there, all are of this prompt.
        self.cache.hold(row, prompt, self.adapter)
        return logits[None]

    def step(self, groups: Sequence[_Group]) -> np.ndarray:
        """One token for all beginnings; float32 (rows, V)."""
        positions = self.cache.positions()
        newest, used = np.zeros_like(positions), list[int]()
        for group in groups:
            used += group.rows
            newest[group.rows] = group.search.newest
            positions[group.rows] = group.position
            group.position += 1
        choice = self.scheduler.choice([self.adapter] * len(positions))
        logits = self.cache.decoder.step(ms.Tensor(newest), ms.Tensor(positions), choice).asnumpy()
        self.cache.check_resting(logits, used)
        return logits


class _Group:
    """The rows of one prompt's beginnings.

    Args:
        search: has chosen nothing yet.
        rows: of the decoder.
        places: which of them it may use, at least one for each beam.
        prompt: is read into the first.
    """

    def __init__(self, search: Beams, rows: _Rows, places: list[int], prompt: Sequence[int]) -> None:
        self.search = search
        self.places = places
        self.position = len(prompt)
        self.rows = [places[0]]
        self._decoder = rows.cache.decoder
        self._choose(rows.read(prompt, places[0]))

    def go_on(self, logits: np.ndarray) -> None:
        """Take the logits of all rows."""
        self._choose(logits[self.rows])

    def _choose(self, logits: np.ndarray) -> None:
        before = self.rows
        parents = self.search.choose(logits)
        if self.search.done:
            return
        # A beginning's first continuation stays in its row; the others take rows of beginnings that were given up.
        spare = [row for row in self.places if row not in {before[parent] for parent in parents}]
        self.rows = []
        for parent in parents:
            row = before[parent]
            if row in self.rows:
                row = spare.pop()
                self._decoder.copy_row(before[parent], row)
            self.rows.append(row)
