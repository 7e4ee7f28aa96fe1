"""Requests that come and go while others run: each gets the answer that it would get alone."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import decoders
import mindspore as ms
import numpy as np
import pytest
import tiny
from mindspore import ops

from ms_medqa.config import UserError
from ms_medqa.generation import SamplingParams, generate, reading, scheduler
from ms_medqa.generation.request import Output, Request, Running
from ms_medqa.generation.scheduler import Scheduler
from ms_medqa.models import load_model
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


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """What is read of prompts: (row, start, tokens), in order."""
    pieces: list[tuple[int, int, int]] = []
    real = CachedDecoder.read

    def counted(self: CachedDecoder, tokens: Sequence[int], row: int, start: int, *others: int) -> object:
        pieces.append((row, start, len(tokens)))
        return real(self, tokens, row, start, *others)

    monkeypatch.setattr(CachedDecoder, "read", counted)
    return pieces


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The sizes of the prompts that are read in one piece, for each such piece."""
    pieces: list[list[int]] = []
    real = CachedDecoder.read_together

    def counted(self: CachedDecoder, prompts: Sequence[Sequence[int]], *others: object) -> object:
        pieces.append([len(one) for one in prompts])
        return real(self, prompts, *others)

    monkeypatch.setattr(CachedDecoder, "read_together", counted)
    return pieces


def test_requests_that_come_and_go_get_the_answers_they_get_alone() -> None:
    lengths, news = (3, 40, 17, 90, 5, 33, 64, 12, 100), (9, 4, 12, 6, 1, 15, 3, 8, 5)
    prompts = [prompt(length) for length in lengths]
    expected = [alone(tokens, new) for tokens, new in zip(prompts, news, strict=True)]
    batch = Scheduler(tiny.model(), 4)
    waiting = [request(tokens, new) for tokens, new in zip(prompts, news, strict=True)][::-1]
    running: list[Running] = []
    steps = 0
    while waiting or batch.running:
        # One more at each second step, so that all meet others at different places.
        if waiting and batch.free and steps % 2 == 0:
            running.append(batch.add(waiting.pop()))
        batch.step()
        steps += 1
    assert [one.tokens for one in running] == expected
    assert {one.finish for one in running} == {"length"}


def test_an_end_token_ends_an_answer_and_is_not_handed_out() -> None:
    tokens = prompt(20)
    answer = alone(tokens)
    batch = Scheduler(tiny.model(), 2)
    running = batch.add(Request(tokens, GREEDY, 8, frozenset([answer[4]])))
    outputs = run(batch)
    kept = answer[: answer.index(answer[4])]
    assert [output.choice.token for output in outputs if output.choice] == kept == running.tokens
    assert (outputs[-1].choice, outputs[-1].finish, running.finish) == (None, "stop", "stop")


def test_a_request_that_is_removed_leaves_the_others_alone_and_its_row_to_the_next() -> None:
    prompts = [prompt(30), prompt(31), prompt(32)]
    batch = Scheduler(tiny.model(), 2)
    first, second = batch.add(request(prompts[0])), batch.add(request(prompts[1]))
    batch.step()
    batch.step()
    assert batch.free == 0
    batch.remove(first)
    assert batch.free == 1
    third = batch.add(request(prompts[2]))
    run(batch)
    assert len(first.tokens) < 8
    assert [second.tokens, third.tokens] == [alone(prompts[1]), alone(prompts[2])]


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


def test_where_angles_depend_on_the_length_of_a_prompt_no_start_is_shared(tmp_path: Path) -> None:
    """As with dynamic rotary scaling: the keys of a start differ from prompt to prompt."""
    changes = {"max_position_embeddings": 40, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}
    decoders.write(tmp_path, decoders.config_of("LlamaForCausalLM", **changes))
    model = load_model(tmp_path)
    start = [token % 97 for token in SHARED]
    prompts = [[*start, *(token % 97 for token in prompt(size))] for size in (20, 60)]

    def scored(batch: Scheduler, *prompts: list[int]) -> list[list[float | None]]:
        running = [batch.add(Request(tokens, GREEDY, 8, logprobs=0)) for tokens in prompts]
        outputs = run(batch)
        return [[one.choice.logprob for one in outputs if one.running is own and one.choice] for own in running]

    expected = [scored(Scheduler(model, 1), tokens)[0] for tokens in prompts]
    batch = Scheduler(model, 2)
    for _ in range(2):
        np.testing.assert_allclose(scored(batch, *prompts), expected, atol=1e-4)


def spoil(decoder: CachedDecoder, rows: Sequence[int], start: int = 0) -> None:
    """As an overflow does: what rows hold from a position on is no number."""
    for cache in (*decoder.keys, *decoder.values):
        blocks = cache.asnumpy().reshape(decoder.batch, decoder.kv_heads, decoder.length, -1).copy()
        blocks[list(rows), :, start:] = np.nan
        ops.assign(cache, ms.Tensor(blocks.reshape(cache.shape)))


@pytest.fixture
def fails_at_7(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that overflows where a prompt ends with token 7, and gives no prompt of the same piece a number."""
    read, together = CachedDecoder.read, CachedDecoder.read_together

    def read_one(self: CachedDecoder, tokens: Sequence[int], row: int, start: int, *others: Any) -> ms.Tensor:
        logits = read(self, tokens, row, start, *others)
        if tokens[-1] != 7:
            return logits
        spoil(self, [row], start + len(tokens) - 1)
        return ms.Tensor(np.full(logits.shape, np.nan, np.float32))

    def read_some(
        self: CachedDecoder, prompts: Sequence[Sequence[int]], rows: Sequence[int], *others: Any
    ) -> ms.Tensor:
        logits = together(self, prompts, rows, *others)
        if all(prompt[-1] != 7 for prompt in prompts):
            return logits
        spoil(self, rows)
        return ms.Tensor(np.full(logits.shape, np.nan, np.float32))

    monkeypatch.setattr(CachedDecoder, "read", read_one)
    monkeypatch.setattr(CachedDecoder, "read_together", read_some)


@pytest.mark.usefixtures("fails_at_7")
@pytest.mark.parametrize("start", [[], SHARED], ids=["read in one piece", "with a start in common"])
def test_a_prompt_at_which_the_model_fails_costs_the_others_nothing(start: list[int]) -> None:
    prompts = [[*prompt(len(start) + size, start)[:-1], last] for size, last in ((12, 8), (10, 7), (14, 9), (20, 10))]
    expected = [None if tokens[-1] == 7 else alone(tokens) for tokens in prompts]
    batch = Scheduler(tiny.model(), 4)
    for order in (prompts, prompts[::-1], sorted(prompts, key=lambda tokens: tokens[-1])):
        running = {tuple(tokens): batch.add(request(tokens)) for tokens in order}
        run(batch)
        assert [None if running[tuple(t)].error else running[tuple(t)].tokens for t in prompts] == expected


def test_a_request_at_which_the_model_fails_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [prompt(30), prompt(31), prompt(32), prompt(33)]
    expected = [alone(tokens) for tokens in prompts]
    batch = Scheduler(tiny.model(), 4)
    running = [batch.add(request(tokens)) for tokens in prompts[:3]]
    batch.step()
    [broken] = [row for row, one in enumerate(batch._rows) if one is running[1]]
    real = CachedDecoder.step

    def overflow(self: CachedDecoder, *inputs: object) -> ms.Tensor:
        logits = real(self, *inputs).asnumpy()
        logits[broken] = np.nan
        spoil(self, [broken])
        return ms.Tensor(logits)

    with monkeypatch.context() as patch:
        patch.setattr(CachedDecoder, "step", overflow)
        failed = [output for output in batch.step() if output.error]
    assert [output.running for output in failed] == [running[1]]
    assert "not finite" in str(failed[0].error)
    assert batch.running == 2
    # Its row is as good as new.
    running.append(batch.add(request(prompts[3])))
    assert batch._rows[broken] is running[3]
    run(batch)
    assert [running[number].tokens for number in (0, 2, 3)] == [expected[number] for number in (0, 2, 3)]


def test_idle_caches_take_no_more_than_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[CachedDecoder] = weakref.WeakSet()

    class Counted(CachedDecoder):
        def __init__(self, *inputs: Any) -> None:
            super().__init__(*inputs)
            alive.add(self)

    monkeypatch.setattr(scheduler, "CachedDecoder", Counted)
    batch = Scheduler(tiny.model(), 8)
    for rows, new in ((1, 4), (8, 4), (1, 200), (2, 200), (4, 200), (1, 4)):
        for _ in range(rows):
            batch.add(request(prompt(20), new))
        run(batch)
        gc.collect()
        largest = max(one.positions for one in alive)
        assert sum(one.positions for one in alive) <= 2 * largest


def test_short_prompts_are_read_together(
    monkeypatch: pytest.MonkeyPatch, read: list[tuple[int, int, int]], together: list[list[int]]
) -> None:
    # The second begins as the first does, but that is not worth a piece of its own.
    prompts = [prompt(30, SHARED[:20]), prompt(28, SHARED[:20]), prompt(5), prompt(90), prompt(40), prompt(240)]
    expected = [alone(tokens) for tokens in prompts]
    monkeypatch.setattr(reading, "LARGEST_PIECE", 256)
    read.clear()
    together.clear()
    batch = Scheduler(tiny.model(), 8)
    running = [batch.add(request(tokens)) for tokens in prompts]
    run(batch)
    assert [one.tokens for one in running] == expected
    assert together == [[30, 28, 5, 90, 40]]
    assert [count for _, _, count in read] == [240]


def test_prompts_wait_for_each_other_where_all_rows_are_taken(together: list[list[int]]) -> None:
    """Answers pause while prompts are read, for two short prompts no longer than for one."""
    batch = Scheduler(tiny.model(), 8)
    long = [batch.add(request(prompt(10), 40)) for _ in range(6)]
    quick = [batch.add(request(prompt(10), new)) for new in (2, 4)]
    while not quick[0].finish:
        batch.step()
    together.clear()
    late = [batch.add(request(prompt(10), 30))]
    while not quick[1].finish:
        batch.step()
    assert not late[0].tokens
    late.append(batch.add(request(prompt(10), 30)))
    batch.step()
    assert together == [[10, 10]]
    assert all(one.tokens for one in late)
    # One that no other joins does not wait for long, nor does one that comes where a row is free.
    batch.remove(long[0])
    waits = batch.add(request(prompt(10)))
    for _ in range(scheduler.READ_PATIENCE):
        batch.step()
        assert not waits.tokens
    batch.step()
    assert waits.tokens
    batch.remove(long[1])
    batch.remove(long[2])
    first = batch.add(request(prompt(10)))
    batch.step()
    assert first.tokens


def test_a_later_turn_reads_what_is_new(read: list[tuple[int, int, int]]) -> None:
    first = prompt(30)
    batch = Scheduler(tiny.model(), 2)
    batch.reserve(2, 100)
    answer = batch.add(request(first))
    run(batch)
    # Another request beside it must not wear off what the first one's row still holds.
    batch.add(request(prompt(20), 20))
    for _ in range(10):
        batch.step()
    second = [*first, *answer.tokens, *prompt(10)]
    read.clear()
    running = batch.add(request(second))
    run(batch)
    # All but the answer's last token, which no step has read.
    assert read == [(0, 37, 11)]
    assert running.tokens == alone(second)


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


def test_a_long_prompt_is_read_in_pieces_between_the_steps_of_others(
    monkeypatch: pytest.MonkeyPatch, read: list[tuple[int, int, int]]
) -> None:
    short, long = prompt(20), prompt(150)
    expected = [alone(short, 20), alone(long)]
    monkeypatch.setattr(reading, "LARGEST_PIECE", 64)
    read.clear()
    batch = Scheduler(tiny.model(), 2)
    quick = batch.add(request(short, 20))
    batch.step()
    slow = batch.add(request(long))
    told = []
    while not slow.tokens:
        told.append(len(batch.step()))
    assert [count for _, _, count in read] == [20, 64, 64, 22]
    assert told == [1, 1, 2]
    run(batch)
    assert [quick.tokens, slow.tokens] == expected


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

    monkeypatch.setattr(scheduler, "CachedDecoder", Counted)
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
        for _ in range(scheduler.PATIENCE // 2):
            batch.step()
    assert 1 not in moves
    run(batch)
    assert moves[-1] == 1
    assert moves.count(1) == 1
    assert running.tokens == expected


def test_room_that_is_reserved_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(scheduler, "CachedDecoder", lambda *size: made.append(size[1:]) or CachedDecoder(*size))
    batch = Scheduler(tiny.model(), 3)
    batch.reserve(3, 200)
    for length in (10, 150, 20):
        batch.add(request(prompt(length)))
    run(batch)
    assert made == [(4, 256)]


@pytest.mark.parametrize(("tokens", "words"), [([], "no tokens"), ([1, 400], "400"), ([5] * 250, "256 positions")])
def test_a_request_that_cannot_be_answered_takes_no_row(tokens: list[int], words: str) -> None:
    batch = Scheduler(tiny.model(), 1)
    with pytest.raises(UserError, match=words):
        batch.add(request(tokens))
    assert (batch.free, batch.step()) == (1, [])
