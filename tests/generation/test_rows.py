"""What rows of the cache hold is not read again, and requests keep theirs when the cache changes its size."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import tiny
from scheduling import GREEDY, SHARED, alone, prompt, request, run

from ms_medqa.generation import SamplingParams, rows
from ms_medqa.generation.request import Request
from ms_medqa.generation.scheduler import Scheduler
from ms_medqa.models import load_model
from ms_medqa.models.cache import CachedDecoder


def test_a_common_start_is_read_once(read: list[tuple[int, int, int]]) -> None:
    prompts = [prompt(60, SHARED), prompt(50, SHARED), prompt(55, SHARED)]
    expected = [alone(tokens) for tokens in prompts]
    read.clear()
    batch = Scheduler(tiny.model(), 4)
    running = [batch.add(request(tokens)) for tokens in prompts]
    run(batch)
    assert [one.tokens for one in running] == expected
    assert [(start, tokens) for _, start, tokens in read] == [(0, 60), (40, 10), (40, 15)]
    assert [one.shared for one in running] == [0, 40, 40]


@pytest.mark.usefixtures("pynative_mode")
def test_where_angles_depend_on_the_length_of_a_prompt_no_start_is_shared(
    tmp_path: Path, together: list[list[int]], read: list[tuple[int, int, int]], way: str
) -> None:
    """As with dynamic rotary scaling: the keys of a start differ from prompt to prompt."""
    changes = {"max_position_embeddings": 40, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}
    decoders.write(tmp_path, decoders.config_of("LlamaForCausalLM", **changes))
    model = load_model(tmp_path)
    start = [token % 97 for token in SHARED]
    prompts = [[*start, *(token % 97 for token in prompt(size))] for size in (20, 60, 24)]

    def scored(batch: Scheduler, *prompts: list[int]) -> list[list[float | None]]:
        running = [batch.add(Request(tokens, GREEDY, 8, logprobs=0)) for tokens in prompts]
        outputs = run(batch)
        return [[one.choice.logprob for one in outputs if one.running is own and one.choice] for own in running]

    expected = [scored(Scheduler(model, 1), tokens)[0] for tokens in prompts]
    batch = Scheduler(model, 3)
    read.clear()
    for _ in range(2):
        np.testing.assert_allclose(scored(batch, *prompts), expected, atol=1e-4)
    if way == "operators":
        # So there is no reason to read them one by one.
        assert together == [[60, 100, 64]] * 2
    else:
        assert [(start, count) for _, start, count in read] == [(0, 60), (0, 64), (0, 100)] * 2


@pytest.mark.parametrize("alike", [0, 5, 17])
def test_a_later_turn_reads_what_is_new(read: list[tuple[int, int, int]], alike: int) -> None:
    first = prompt(30)
    batch = Scheduler(tiny.model(), 2)
    batch.reserve(2, 100)
    answer = batch.add(request(first))
    run(batch)
    # Another request beside it must not wear off what the first one's row still holds, nor take it from there.
    batch.add(request(prompt(20 + alike, first[:alike]), 20))
    for _ in range(10):
        batch.step()
    second = [*first, *answer.tokens, *prompt(10)]
    read.clear()
    running = batch.add(request(second))
    run(batch)
    # All but the answer's last token, which no step has read.
    assert read == [(0, 37, 11)]
    assert running.tokens == alone(second)


def test_a_row_whose_loss_costs_little_is_taken_first(read: list[tuple[int, int, int]]) -> None:
    long, short = prompt(100), prompt(30)
    batch = Scheduler(tiny.model(), 2)
    batch.reserve(2, 128)
    for tokens in (long, short):
        batch.add(request(tokens, 1))
        run(batch)
    read.clear()
    # Begins as the long one does, but that can be copied.
    batch.add(request(prompt(40, long[:20]), 1))
    run(batch)
    batch.add(request([*long, *prompt(5)], 1))
    run(batch)
    assert [(start, count) for _, start, count in read] == [(20, 20), (100, 5)]


def test_the_same_prompt_again_is_read_from_its_last_token(read: list[tuple[int, int, int]]) -> None:
    tokens = prompt(40)
    batch = Scheduler(tiny.model(), 4)
    running = [batch.add(Request(tokens, SamplingParams(1.0, 1.0, 0, 1.0), 8, seed=3, stream=n)) for n in range(3)]
    run(batch)
    assert [(start, count) for _, start, count in read] == [(0, 40), (39, 1), (39, 1)]
    assert len({tuple(one.tokens) for one in running}) == 3


def test_nothing_is_remembered_when_told_to_forget(read: list[tuple[int, int, int]]) -> None:
    tokens = prompt(30)
    batch = Scheduler(tiny.model(), 2)
    for _ in range(2):
        batch.add(request(tokens, 1))
        run(batch)
        batch.forget()
    assert [(start, count) for _, start, count in read] == [(0, 30), (0, 30)]


def test_the_last_position_of_the_model_can_be_used() -> None:
    limit = tiny.model().config.position_limit
    tokens = prompt(limit - 2)
    batch = Scheduler(tiny.model(), 2)
    running = batch.add(request(tokens, 2))
    # What is shared leaves a piece to read that ends at the last slot.
    again = batch.add(request([*tokens[:-3], 9, 9, 9], 2))
    run(batch)
    assert [running.tokens, again.tokens] == [alone(tokens, 2), alone([*tokens[:-3], 9, 9, 9], 2)]


def test_a_cache_that_grows_keeps_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large, third = prompt(20), prompt(150), prompt(25)
    expected = [alone(small, 40), alone(large, 10), alone(third, 12)]
    made: list[tuple[int, int]] = []

    class Counted(CachedDecoder):
        def __init__(self, model: object, batch: int, length: int, *others: object) -> None:
            made.append((batch, length))
            super().__init__(model, batch, length, *others)

    monkeypatch.setattr(rows, "CachedDecoder", Counted)
    batch = Scheduler(tiny.model(), 4)
    for _ in range(2):
        running = [batch.add(request(small, 40))]
        for _ in range(5):
            batch.step()
        running.append(batch.add(request(large, 10)))
        for _ in range(3):
            batch.step()
        running.append(batch.add(request(third, 12)))
        run(batch)
        assert [one.tokens for one in running] == expected
    # The second time everything is there.
    assert made == [(1, 128), (2, 256), (4, 256)]


def test_a_smaller_cache_takes_over_when_few_are_left_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[int] = []
    take_over = CachedDecoder.take_over

    def counted(self: CachedDecoder, other: CachedDecoder, rows: Sequence[int]) -> None:
        moves.append(self.batch)
        take_over(self, other, rows)

    long = prompt(20)
    expected = alone(long, 60)
    monkeypatch.setattr(CachedDecoder, "take_over", counted)
    batch = Scheduler(tiny.model(), 4)
    batch.add(request(prompt(12), 2))
    run(batch)
    running = batch.add(request(long, 60))
    moves.clear()
    for _ in range(3):
        # Others come and go, and the cache for four stays.
        for size in (14, 15, 16):
            batch.add(request(prompt(size), 3))
        for _ in range(rows.PATIENCE // 2):
            batch.step()
    assert 1 not in moves
    run(batch)
    assert moves[-1] == 1
    assert moves.count(1) == 1
    assert running.tokens == expected


def test_room_that_is_reserved_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(rows, "CachedDecoder", lambda *size: made.append(size[1:]) or CachedDecoder(*size))
    batch = Scheduler(tiny.model(), 3)
    batch.reserve(3, 200)
    for length in (10, 150, 20):
        batch.add(request(prompt(length)))
    run(batch)
    assert made == [(4, 256)]


def test_idle_caches_take_no_more_than_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[CachedDecoder] = weakref.WeakSet()

    class Counted(CachedDecoder):
        def __init__(self, *inputs: Any) -> None:
            super().__init__(*inputs)
            alive.add(self)

    monkeypatch.setattr(rows, "CachedDecoder", Counted)
    batch = Scheduler(tiny.model(), 8)
    for requests, new in ((1, 4), (4, 4), (1, 200), (2, 200), (1, 4)):
        for _ in range(requests):
            batch.add(request(prompt(20), new))
        run(batch)
        gc.collect()
        largest = max(one.positions for one in alive)
        assert sum(one.positions for one in alive) <= 2 * largest
