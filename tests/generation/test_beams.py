"""Beam search: what is found, when the search ends, and that a batch finds what each prompt finds alone."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence

import mindspore as ms
import numpy as np
import pytest
import tiny
from mindspore import ops
from scheduling import SHARED, prompt, spoil

from ms_medqa.config import RunError, UserError
from ms_medqa.generation import SamplingParams, generate
from ms_medqa.generation.beams import BeamParams, Beams, Hypothesis
from ms_medqa.generation.engine import Engine
from ms_medqa.generation.search import search_many
from ms_medqa.models.cache import CachedDecoder

PLAIN = SamplingParams(temperature=0, repetition_penalty=1)
END = 0
# logits[last token]: what may follow; the prompt ends with token 1.
TABLE = np.random.default_rng(4).normal(0, 1.5, (5, 5)).astype(np.float32)
LOG = TABLE - np.log(np.exp(TABLE).sum(-1, keepdims=True))


def search(
    beams: BeamParams,
    length: int,
    params: SamplingParams = PLAIN,
    ends: frozenset[int] = frozenset({END}),
    table: np.ndarray = TABLE,
) -> list[Hypothesis]:
    found = Beams([1], params, beams, length, ends)
    found.choose(table[[1]])
    while not found.done:
        found.choose(table[found.newest])
    return found.answers


def logprob(tokens: Sequence[int]) -> float:
    return float(sum(LOG[before, token] for before, token in itertools.pairwise([1, *tokens])))


def every_answer(length: int) -> list[tuple[int, ...]]:
    """All that a model of 5 tokens can say in so many tokens, the end token with them."""
    whole = list(itertools.product(range(1, 5), repeat=length))
    return whole + [(*start, END) for size in range(length) for start in itertools.product(range(1, 5), repeat=size)]


@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0, -1.0])
def test_with_beams_enough_the_best_of_all_answers_is_found(penalty: float) -> None:
    best = sorted(every_answer(3), key=lambda tokens: -logprob(tokens) / len(tokens) ** penalty)[:4]
    answers = search(BeamParams(200, penalty), 3)
    assert [answer.tokens for answer in answers[:4]] == [tuple(token for token in tokens if token) for tokens in best]
    for answer, tokens in zip(answers, best, strict=False):
        assert answer.score == pytest.approx(logprob(tokens) / len(tokens) ** penalty, abs=1e-5)
        assert answer.finish == ("stop" if tokens[-1] == END else "length")


def test_a_beam_finds_what_the_likeliest_token_each_time_misses() -> None:
    # Token 2 is likelier than 3, but what follows it is not.
    table = np.log([[1, 1, 1, 1, 1], [1, 1, 50, 40, 1], [20, 20, 20, 20, 20], [1, 1, 1, 1, 96], [96, 1, 1, 1, 1]])
    table = table.astype(np.float32)
    greedy, (found, *_) = search(BeamParams(1), 4, table=table)[0], search(BeamParams(2), 4, table=table)
    assert greedy.tokens[0] == 2
    assert found.tokens == (3, 4)
    assert found.score > greedy.score


def test_early_stopping_takes_the_first_answers() -> None:
    """True ends with the first `num_beams` answers; False and `never` go on, and find a better one."""
    table = np.log([[1, 1, 1, 1, 1], [30, 1, 40, 28, 1], [1, 1, 96, 1, 1], [96, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    table = table.astype(np.float32)
    first, later, never = (search(BeamParams(2, 1.0, early), 6, table=table) for early in (True, False, "never"))
    assert [answer.tokens for answer in first] == [(3,), ()]
    assert later[0].tokens == never[0].tokens == (2,) * 6
    assert later[0].score > first[0].score


def test_never_waits_for_what_length_may_still_improve() -> None:
    """A high penalty favours length; False judges the best beginning by the length that it has."""
    table = np.log([[1, 1, 1, 1, 1], [50, 1, 40, 8, 1], [40, 1, 57, 1, 1], [96, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
    table = table.astype(np.float32)
    later, never = (search(BeamParams(1, 4.0, early), 12, table=table)[0] for early in (False, "never"))
    assert len(never.tokens) == 12
    assert len(later.tokens) < 12
    assert never.score > later.score


def test_a_ban_and_a_penalty_hold_in_each_beam() -> None:
    for answer in search(BeamParams(3, 5.0), 9, SamplingParams(no_repeat_ngram_size=2, repetition_penalty=1)):
        pairs = list(itertools.pairwise([1, *answer.tokens]))
        assert len(set(pairs)) == len(pairs)
    repeated = [len(answer.tokens) - len(set(answer.tokens)) for answer in search(BeamParams(3, 5.0), 9)]
    penalised = search(BeamParams(3, 5.0), 9, SamplingParams(repetition_penalty=20.0))
    assert sum(len(answer.tokens) - len(set(answer.tokens)) for answer in penalised) < sum(repeated)


def test_an_answer_may_be_ended_by_its_text() -> None:
    class Text:
        """Says nothing after token 4."""

        stopped = False

        def push(self, token: int) -> None:
            assert not self.stopped
            self.stopped = token == 4

        def fork(self) -> Text:
            return copy.copy(self)

    found = Beams([1], PLAIN, BeamParams(2), 6, frozenset(), Text())
    found.choose(TABLE[[1]])
    while not found.done:
        found.choose(TABLE[found.newest])
    assert "stop" in {answer.finish for answer in found.answers}
    for answer in found.answers:
        assert 4 not in answer.tokens[:-1]
        assert (answer.finish == "stop") == (answer.tokens[-1] == 4)


def test_bad_values() -> None:
    with pytest.raises(UserError, match="num_beams = 0"):
        BeamParams(0)
    with pytest.raises(RunError, match="not finite"):
        Beams([1], PLAIN, BeamParams(2), 3, frozenset()).choose(np.full((1, 5), np.nan, np.float32))


def uncached(prompt: list[int], beams: BeamParams, length: int, ends: frozenset[int]) -> list[Hypothesis]:
    """The same search with every beginning read anew at each token."""

    def logits(beginnings: list[list[int]]) -> np.ndarray:
        return tiny.model()(ms.Tensor(np.array(beginnings, np.int32))).asnumpy()[:, -1]

    found, beginnings = Beams(prompt, PLAIN, beams, length, ends), [prompt]
    while not found.done:
        parents = found.choose(logits(beginnings))
        beginnings = [[*beginnings[parent], token] for parent, token in zip(parents, found.newest, strict=True)]
    return found.answers


# Each beginning has another length, and so would have a graph of its own.
@pytest.mark.usefixtures("pynative_mode")
def test_cached_rows_follow_their_beams_in_any_batch() -> None:
    rng = np.random.default_rng(3)
    prompts = [rng.integers(1, 400, size).tolist() for size in (40, 7, 23)]
    # So many ends that beams of one prompt end at different times.
    ends, beams = frozenset(range(0, 400, 9)), BeamParams(3)
    expected = [uncached(prompt, beams, 12, ends) for prompt in prompts]
    engine = Engine.of(tiny.model())
    for size in (1, 3):
        told: dict[int, list[Hypothesis]] = {}
        found = search_many(engine, prompts, PLAIN, beams, 12, ends, batch_size=size, on_found=told.__setitem__)
        assert told == dict(enumerate(found))
        assert [[a.tokens for a in each] for each in found] == [[a.tokens for a in each] for each in expected]
        np.testing.assert_allclose(
            [[a.score for a in each] for each in found], [[a.score for a in each] for each in expected], atol=1e-4
        )
    assert any(len({len(a.tokens) for a in each}) > 1 for each in expected)


def test_a_search_that_failed_leaves_nothing_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(tiny.model())
    prompt = list(range(5, 30))

    def found() -> list[tuple[int, ...]]:
        [answers] = search_many(engine, [prompt], PLAIN, BeamParams(3), 8, frozenset(), batch_size=1)
        return [answer.tokens for answer in answers]

    expected, step = found(), CachedDecoder.step

    def broken(self: CachedDecoder, *arguments: object) -> object:
        for cache in self.values:
            ops.assign(cache, ops.full_like(cache, float("nan")))
        return step(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(CachedDecoder, "step", broken)
        with pytest.raises(RunError, match="not finite"):
            found()
    assert found() == expected


@pytest.mark.usefixtures("fails_at_7")
@pytest.mark.parametrize("size", [1, 2])
def test_a_prompt_at_which_the_model_fails_costs_the_other_searches_nothing(size: int) -> None:
    """Its rows are taken by the next ones, from the longest to the shortest."""
    prompts = [[*range(20, 20 + count), last] for count, last in ((30, 8), (25, 7), (20, 9), (15, 7), (10, 10))]
    engine, failed = Engine(tiny.model()), list[int]()

    def found(prompts: list[list[int]], size: int) -> list[list[tuple[int, ...]]]:
        told = search_many(
            engine,
            prompts,
            PLAIN,
            BeamParams(3),
            8,
            frozenset(),
            batch_size=size,
            on_error=lambda index, error: failed.append(index),
        )
        return [[answer.tokens for answer in answers] for answers in told]

    expected = [[] if prompt[-1] == 7 else found([prompt], 1)[0] for prompt in prompts]
    assert found(prompts, size) == expected
    assert failed == [1, 3]


def test_a_common_start_is_read_once(read: list[tuple[int, int, int]]) -> None:
    prompts = [prompt(size, SHARED) for size in (70, 60, 65, 48)]
    prompts.append([*prompts[0][:50], *prompt(18)])
    engine, found = Engine(tiny.model()), list[list[Hypothesis]]()
    for tokens in prompts:
        found += search_many(engine, [tokens], PLAIN, BeamParams(3), 8, frozenset(), batch_size=1)
    for size in (1, 2):
        read.clear()
        together = search_many(engine, prompts, PLAIN, BeamParams(3), 8, frozenset(), batch_size=size)
        assert [[one.tokens for one in each] for each in together] == [[one.tokens for one in each] for each in found]
        # From the longest on, with which the second has more in common than the others have.
        assert sorted(start for _, start, _ in read) == [0, 40, 40, 40, 50]


@pytest.mark.parametrize("fails", [False, True])
def test_a_row_that_rests_while_others_search_holds_what_it_held(
    monkeypatch: pytest.MonkeyPatch, read: list[tuple[int, int, int]], fails: bool
) -> None:
    """Unless the model fails there: then it holds nothing."""
    long, other = prompt(60), prompt(50)
    prompts = [long, other, [*long[:40], *prompt(5)]]
    engine, beams = Engine(tiny.model()), BeamParams(2, early_stopping=True)
    # The search of the long one is over as soon as that is read.
    [likeliest] = search_many(engine, [long], PLAIN, beams, 1, frozenset(), batch_size=1)
    ends = frozenset(answer.tokens[0] for answer in likeliest)
    expected = [search_many(engine, [each], PLAIN, beams, 8, ends, batch_size=1)[0] for each in prompts]
    real, rested = CachedDecoder.step, list[int]()

    def step(self: CachedDecoder, newest: ms.Tensor, positions: ms.Tensor, *others: object) -> ms.Tensor:
        logits = real(self, newest, positions, *others).asnumpy()
        for row in np.flatnonzero((newest.asnumpy() == 0) & (positions.asnumpy() == len(long))).tolist():
            rested.append(row)
            if fails:
                logits[row] = np.nan
                spoil(self, [row], len(long))
        return ms.Tensor(logits)

    monkeypatch.setattr(CachedDecoder, "step", step)
    read.clear()
    found = search_many(engine, prompts, PLAIN, beams, 8, ends, batch_size=2)
    assert rested
    assert [start for _, start, _ in read] == [0, 0, 0 if fails else 40]
    assert [[one.tokens for one in each] for each in found] == [[one.tokens for one in each] for each in expected]


def test_one_beam_is_the_greedy_answer() -> None:
    prompt = list(range(5, 30))
    (found,) = search_many(Engine.of(tiny.model()), [prompt], PLAIN, BeamParams(1), 20, frozenset(), batch_size=1)
    assert [list(found[0].tokens)] == generate(tiny.model(), [prompt], max_new_tokens=20, greedy=True, eos_token_id=[])
    with pytest.raises(UserError, match="256 positions"):
        search_many(Engine.of(tiny.model()), [prompt], PLAIN, BeamParams(2), 250, frozenset(), batch_size=1)
    assert search_many(Engine.of(tiny.model()), [], PLAIN, BeamParams(2), 5, frozenset(), batch_size=1) == []
