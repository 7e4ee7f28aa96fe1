"""Requests that come and go while others run: each gets the answer that it would get alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import tiny
from scheduling import GREEDY, SHARED, alone, prompt, request, run, spoil

from ms_medqa.backend.few_rows_library import library
from ms_medqa.config import UserError
from ms_medqa.generation import reading
from ms_medqa.generation.engine import Engine
from ms_medqa.generation.prompts import READ_PATIENCE
from ms_medqa.generation.request import Request, Running
from ms_medqa.generation.scheduler import Scheduler
from ms_medqa.models import step_kernel
from ms_medqa.models.cache import CachedDecoder, Piece

needs_kernel = pytest.mark.skipif(library() is None, reason="the installation found no C++ compiler")


@pytest.mark.usefixtures("way")
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


@pytest.mark.usefixtures("way", "fails_at_7")
@pytest.mark.parametrize("start", [[], SHARED], ids=["read in one piece", "with a start in common"])
def test_a_prompt_at_which_the_model_fails_costs_the_others_nothing(start: list[int]) -> None:
    prompts = [[*prompt(len(start) + size, start)[:-1], last] for size, last in ((12, 8), (10, 7), (14, 9), (20, 10))]
    expected = [None if tokens[-1] == 7 else alone(tokens) for tokens in prompts]
    batch = Scheduler(tiny.model(), 4)
    for order in (prompts, prompts[::-1], sorted(prompts, key=lambda tokens: tokens[-1])):
        running = {tuple(tokens): batch.add(request(tokens)) for tokens in order}
        run(batch)
        assert [None if running[tuple(t)].error else running[tuple(t)].tokens for t in prompts] == expected


@pytest.mark.usefixtures("way")
def test_a_request_at_which_the_model_fails_costs_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [prompt(30), prompt(31), prompt(32), prompt(33)]
    expected = [alone(tokens) for tokens in prompts]
    batch = Scheduler(tiny.model(), 4)
    running = [batch.add(request(tokens)) for tokens in prompts[:3]]
    batch.step()
    [broken] = [row for row, one in enumerate(batch._rows.taken) if one is running[1]]
    step, feed = CachedDecoder.step, CachedDecoder.feed

    def overflow(self: CachedDecoder, *inputs: object) -> ms.Tensor:
        logits = step(self, *inputs).asnumpy()
        logits[broken] = np.nan
        spoil(self, [broken])
        return ms.Tensor(logits)

    def overflow_fed(self: CachedDecoder, pieces: Sequence[Piece]) -> ms.Tensor:
        logits = feed(self, pieces).asnumpy()
        logits[[piece.row for piece in pieces].index(broken)] = np.nan
        spoil(self, [broken])
        return ms.Tensor(logits)

    with monkeypatch.context() as patch:
        patch.setattr(CachedDecoder, "step", overflow)
        patch.setattr(CachedDecoder, "feed", overflow_fed)
        failed = [output for output in batch.step() if output.error]
    assert [output.running for output in failed] == [running[1]]
    assert "not finite" in str(failed[0].error)
    assert batch.running == 2
    # Its row is as good as new.
    running.append(batch.add(request(prompts[3])))
    assert batch._rows.taken[broken] is running[3]
    run(batch)
    assert [running[number].tokens for number in (0, 2, 3)] == [expected[number] for number in (0, 2, 3)]


@pytest.mark.usefixtures("fails_at_7")
def test_a_long_prompt_ends_at_the_piece_at_which_the_model_fails(
    monkeypatch: pytest.MonkeyPatch, read: list[tuple[int, int, int]]
) -> None:
    """Nor does what was read of it reach a prompt that begins alike."""
    monkeypatch.setattr(reading, "LARGEST_PIECE", 64)
    long = prompt(200, SHARED)
    long[63] = 7
    other = prompt(60, SHARED)
    expected = alone(other)
    batch = Scheduler(tiny.model(), 2)
    bad = batch.add(request(long))
    read.clear()
    [output] = batch.step()
    assert output.running is bad
    assert "not finite" in str(bad.error)
    assert [count for _, _, count in read] == [64]
    running = batch.add(request(other))
    run(batch)
    assert running.tokens == expected


@pytest.mark.usefixtures("operators")
@pytest.mark.parametrize("leaves", [False, True])
@pytest.mark.parametrize("failing", [0, 7])
def test_steps_of_others_between_the_pieces_of_a_prompt_spoil_nothing(
    monkeypatch: pytest.MonkeyPatch, failing: int, leaves: bool
) -> None:
    """A step is of all rows, and writes behind what has been read: where that overflows, only this prompt fails."""
    monkeypatch.setattr(reading, "LARGEST_PIECE", 64)
    short, long = prompt(20), prompt(150)
    long[64] = 7
    later = [*long[:60], *prompt(30)]
    expected = [alone(short, 20), None if failing == 7 else alone(long), alone(later)]
    batch = Scheduler(tiny.model(), 3)
    batch.reserve(3, 200)
    real = CachedDecoder.step

    def overflow(self: CachedDecoder, newest: ms.Tensor, positions: ms.Tensor, *others: Any) -> ms.Tensor:
        logits = real(self, newest, positions, *others).asnumpy()
        for row in np.flatnonzero(newest.asnumpy() == failing).tolist():
            logits[row] = np.nan
            spoil(self, [row], place := int(positions[row]), place + 1)
        return ms.Tensor(logits)

    quick = batch.add(request(short, 20))
    batch.step()
    slow = batch.add(request(long))
    with monkeypatch.context() as patch:
        patch.setattr(CachedDecoder, "step", overflow)
        batch.step()
        assert slow.read == 64
        failed = [output.running for output in batch.step() if output.error]
    assert failed == ([slow] if failing == 7 else [])
    if leaves:
        batch.remove(slow)
        batch.remove(quick)
    running = batch.add(request(later))
    run(batch)
    assert running.tokens == expected[2]
    if not leaves:
        assert [quick.tokens, slow.tokens or None] == expected[:2]


@pytest.mark.usefixtures("operators")
def test_a_row_at_rest_at_which_the_model_fails_is_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is of all rows, and writes something behind what those that rest hold."""
    first, other, third = prompt(60), prompt(30), prompt(50)
    third[:40] = first[:40]
    expected = alone(third)
    batch = Scheduler(tiny.model(), 2)
    batch.reserve(2, 100)
    batch.add(request(first, 1))
    batch.add(request(other, 20))
    batch.step()
    real = CachedDecoder.step

    def overflow(self: CachedDecoder, newest: ms.Tensor, positions: ms.Tensor, *others: Any) -> ms.Tensor:
        logits = real(self, newest, positions, *others).asnumpy()
        logits[0] = np.nan
        spoil(self, [0], int(positions[0]))
        return ms.Tensor(logits)

    with monkeypatch.context() as patch:
        patch.setattr(CachedDecoder, "step", overflow)
        assert not any(output.error for output in batch.step())
    running = batch.add(request(third))
    run(batch)
    assert running.tokens == expected


@pytest.mark.usefixtures("operators")
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


@pytest.mark.usefixtures("operators")
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
    for _ in range(READ_PATIENCE):
        batch.step()
        assert not waits.tokens
    batch.step()
    assert waits.tokens
    batch.remove(long[1])
    batch.remove(long[2])
    first = batch.add(request(prompt(10)))
    batch.step()
    assert first.tokens


@needs_kernel
def test_the_kernel_reads_short_prompts_while_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as it takes at once, each in its place; the others one step later. A longer one has its own pieces."""
    fed: list[list[tuple[int, int]]] = []
    feed = CachedDecoder.feed

    def counted(self: CachedDecoder, pieces: Sequence[Piece]) -> ms.Tensor:
        fed.append([(len(piece.tokens), piece.length) for piece in pieces])
        return feed(self, pieces)

    prompts = [prompt(20), prompt(60), prompt(60), prompt(30), prompt(200), prompt(30, SHARED[:28])]
    expected = [alone(tokens, 12) for tokens in prompts]
    monkeypatch.setattr(CachedDecoder, "feed", counted)
    batch = Scheduler(tiny.model(), 8)
    running = [batch.add(request(prompts[0], 12))]
    batch.step()
    running += [batch.add(request(tokens, 12)) for tokens in prompts[1:]]
    fed.clear()
    told = [{output.running.number for output in batch.step()} for _ in range(2)]
    # The long one is read in between.
    assert fed == [[(1, 0), (60, 60), (60, 60)], [*[(1, 0)] * 4, (30, 30), (30, 30)]]
    assert told == [{0, 1, 2, 4}, {0, 1, 2, 3, 4, 5}]
    run(batch)
    assert [one.tokens for one in running] == expected


@needs_kernel
def test_what_the_kernel_would_read_in_several_steps_is_left_to_operators_of_large_layers(
    monkeypatch: pytest.MonkeyPatch, read: list[tuple[int, int, int]], together: list[list[int]]
) -> None:
    monkeypatch.setattr(step_kernel, "SMALL_LAYER", 0)
    prompts = [prompt(20), prompt(12), prompt(20), prompt(20), prompt(22), prompt(70), prompt(30)]
    expected = [alone(tokens, 12) for tokens in prompts]
    read.clear()
    together.clear()
    batch = Scheduler(tiny.model(), 8)
    running = [batch.add(request(tokens, 12)) for tokens in prompts[:2]]
    batch.step()
    assert [count for _, _, count in read] == [20, 12]
    running += [batch.add(request(tokens, 12)) for tokens in prompts[2:5]]
    batch.step()
    assert together == [[20, 20, 22]]
    # One that is longer goes its own way.
    running += [batch.add(request(tokens, 12)) for tokens in prompts[5:]]
    batch.step()
    assert [count for _, _, count in read[2:]] == [30, 70]
    run(batch)
    assert [one.tokens for one in running] == expected


@needs_kernel
def test_decoders_with_and_without_the_kernel_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Above some rows steps are made of operators; what runs goes from the one to the other, and prompts half read."""
    monkeypatch.setattr(step_kernel, "MOST_TOKENS_OF_SMALL", 2)
    monkeypatch.setattr(reading, "LARGEST_PIECE", 32)
    prompts = [prompt(size) for size in (20, 90, 31, 2)]
    expected = [alone(tokens, 20) for tokens in prompts]
    batch = Scheduler(tiny.model(), 4)
    for _ in range(2):
        running = []
        for tokens in prompts:
            running.append(batch.add(request(tokens, 20)))
            batch.step()
        run(batch)
        assert [one.tokens for one in running] == expected


@pytest.mark.usefixtures("way")
def test_a_prompt_that_was_to_be_read_by_the_kernel_is_read_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(step_kernel, "MOST_TOKENS_OF_SMALL", 2)
    batch = Scheduler(tiny.model(), 8)
    running = [batch.add(request(prompt(2), 4)) for _ in range(2)]
    batch.step()
    # For which there are too many rows now.
    running.append(batch.add(request(prompt(5), 4)))
    for _ in range(8):
        batch.step()
    assert [len(one.tokens) for one in running] == [4, 4, 4]


@pytest.mark.usefixtures("operators")
def test_all_rows_are_taken_where_an_engine_takes_no_more() -> None:
    """It makes a power of two of rows, and may be asked for fewer."""
    with Engine(tiny.model()).scheduler(9) as batch:
        quick, *_ = [batch.add(request(prompt(10), new)) for new in (2, *[40] * 8)]
        while not quick.finish:
            batch.step()
        late = batch.add(request(prompt(10)))
        batch.step()
        # It waits for others.
        assert not late.tokens


@pytest.mark.usefixtures("operators")
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


@pytest.mark.parametrize(("tokens", "words"), [([], "no tokens"), ([1, 400], "400"), ([5] * 250, "256 positions")])
def test_a_request_that_cannot_be_answered_takes_no_row(tokens: list[int], words: str) -> None:
    batch = Scheduler(tiny.model(), 1)
    with pytest.raises(UserError, match=words):
        batch.add(request(tokens))
    assert (batch.free, batch.step()) == (1, [])
