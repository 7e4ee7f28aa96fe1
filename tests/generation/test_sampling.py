"""The next token of an answer: the draws, their seeds, and the log-probabilities that go with them."""

from __future__ import annotations

from dataclasses import asdict
from unittest.mock import ANY

import numpy as np
import pytest
from sampled_rows import SampledRows

from ms_medqa.config import RunError, UserError
from ms_medqa.config.schema import GenerateSection
from ms_medqa.generation.answers import sampling_params
from ms_medqa.generation.request import Request
from ms_medqa.generation.sampling import Choice, SamplingParams, TokenSampler, draw

VOCAB = 50


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, (4, VOCAB)).astype(np.float32)


def test_greedy_applies_the_repetition_penalty_to_prompt_and_answer() -> None:
    sampler = SampledRows(SamplingParams(temperature=0, repetition_penalty=2.0), [[0]])
    logits = np.array([[5.0, 4.0, 3.0, -9.0]], np.float32)
    # Token 0 stands in the prompt; 1 is penalised once it has been said; 5/2 < 3; then 2.5 > 2 > 1.5.
    assert [int(sampler(logits, [True])[0]) for _ in range(3)] == [1, 2, 0]
    np.testing.assert_array_equal(logits, np.array([[5.0, 4.0, 3.0, -9.0]], np.float32))


def test_draws_follow_the_probabilities() -> None:
    params = SamplingParams(temperature=1, top_k=0, top_p=1, repetition_penalty=1)
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    rows = 4000
    sampler = SampledRows(params, [[]] * rows, seed=3)
    drawn = sampler(np.tile(np.log(probabilities).astype(np.float32), (rows, 1)), [True] * rows)
    counts = np.bincount(drawn, minlength=4)
    # Chi-square with 3 degrees of freedom: 16.3 is exceeded by chance once in a thousand seeds; this seed is fixed.
    assert (((counts - rows * probabilities) ** 2) / (rows * probabilities)).sum() < 16.3


def test_a_row_draws_the_same_whatever_stands_beside_it(logits: np.ndarray) -> None:
    params = SamplingParams(temperature=5.0, top_k=0, top_p=1.0)
    batch = SampledRows(params, [[1], [2], [3], [4]], seed=7)
    alone = SampledRows(params, [[3]], seed=7, streams=[2])
    # The neighbours end after the first step; row 2 must not notice.
    first, second = batch(logits, [True] * 4), batch(logits, [False, False, True, False])
    assert [alone(logits[2:3], [True])[0], alone(logits[2:3], [True])[0]] == [first[2], second[2]]
    assert list(second[[0, 1, 3]]) == [-1, -1, -1]


def test_seed_repeats_and_another_seed_differs(logits: np.ndarray) -> None:
    params = SamplingParams(temperature=10.0, top_k=0, top_p=1.0)

    def draw(seed: int | None) -> list[int]:
        sampler = SampledRows(params, [[]] * 4, seed=seed)
        return [int(token) for _ in range(8) for token in sampler(logits, [True] * 4)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert draw(None) != draw(None)


def test_rows_of_one_batch_have_their_own_draws() -> None:
    params = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0)
    sampler = SampledRows(params, [[]] * 32, seed=1)
    assert len(set(sampler(np.zeros((32, 1000), np.float32), [True] * 32).tolist())) > 20


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_stop_the_run(bad: float) -> None:
    logits = np.zeros((1, VOCAB), np.float32)
    logits[0, 3] = bad
    with pytest.raises(RunError, match="not finite"):
        SampledRows(SamplingParams(), [[]])(logits, [True])


def test_masked_logits_of_minus_infinity_are_never_drawn() -> None:
    logits = np.full((64, VOCAB), -np.inf, np.float32)
    logits[:, [4, 9]] = 1.0
    sampler = SampledRows(SamplingParams(temperature=1, top_k=0, top_p=1), [[]] * 64, seed=0)
    assert set(sampler(logits, [True] * 64).tolist()) == {4, 9}


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
        {"repetition_penalty": float("inf")},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"min_p": float("nan")},
        {"no_repeat_ngram_size": -1},
    ],
)
def test_a_setting_out_of_range_is_a_clear_error(bad: dict[str, float]) -> None:
    name = next(iter(bad))
    with pytest.raises(UserError, match=name):
        SamplingParams(**bad)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    scores = logits.astype(np.float64)
    return scores - np.log(np.exp(scores).sum())


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_log_probabilities_are_the_models_own(logits: np.ndarray, temperature: float) -> None:
    # Settings that change the distribution a lot: nothing of that may show.
    params = SamplingParams(temperature, top_p=0.9, top_k=3, repetition_penalty=2.0, no_repeat_ngram_size=1)
    sampler = TokenSampler(params, list(range(0, VOCAB, 2)), seed=1)
    for row in logits:
        expected = log_softmax(row)
        choice = sampler.choose(row, logprobs=5)
        assert choice.logprob == pytest.approx(expected[choice.token], abs=1e-6)
        assert [i for i, _ in choice.top] == np.argsort(-expected)[:5].tolist()
        assert [p for _, p in choice.top] == pytest.approx(np.sort(expected)[::-1][:5], abs=1e-6)


def test_log_probabilities_are_given_as_asked_for(logits: np.ndarray) -> None:
    row = logits[0]

    def choose(logprobs: int | None) -> Choice:
        return TokenSampler(SamplingParams(), [1, 2], seed=5).choose(row, logprobs)

    assert choose(None) == Choice(choose(3).token)
    assert choose(0) == Choice(choose(3).token, choose(3).logprob)
    assert choose(3).top == choose(20).top[:3]
    assert len(choose(20).top) == 20
    for bad in (-1, 21):
        with pytest.raises(UserError, match="logprobs"):
            Request([1, 2], SamplingParams(), 8, logprobs=bad)


@pytest.mark.filterwarnings("error")
def test_log_probabilities_of_few_tokens_and_of_large_logits() -> None:
    row = np.array([3e38, 3e38, -np.inf, 0.0, -3e38], np.float32)
    choice = TokenSampler(SamplingParams(temperature=0), [], seed=0).choose(row, logprobs=20)
    assert choice == Choice(0, pytest.approx(-np.log(2)), choice.top)
    # A token that cannot be has no number that JSON could hold.
    assert [i for i, _ in choice.top] == [0, 1, 3, 4]
    assert [p for _, p in choice.top[2:]] == pytest.approx([-3e38, -6e38])
    drawn = {TokenSampler(SamplingParams(1.0, top_k=0), [], seed).choose(row).token for seed in range(20)}
    assert drawn == {0, 1}


def test_greedy_takes_the_lowest_id_on_ties() -> None:
    row = np.array([0.0, 7.0, 7.0, 7.0], np.float32)
    sampler = TokenSampler(SamplingParams(temperature=0, repetition_penalty=1.0, no_repeat_ngram_size=1), [], seed=0)
    assert [sampler.choose(row, 2).top for _ in range(2)] == [((1, pytest.approx(-1.0989, abs=1e-3)), (2, ANY))] * 2
    assert [sampler.choose(row).token for _ in range(2)] == [3, 0]


def test_greedy_never_says_an_ngram_twice(logits: np.ndarray) -> None:
    params = SamplingParams(temperature=0, repetition_penalty=1.0, no_repeat_ngram_size=3)
    prompt = [int(logits[0].argmax())] * 3
    sampler = TokenSampler(params, prompt, seed=0)
    said = prompt + [sampler.choose(logits[0]).token for _ in range(40)]
    ngrams = list(zip(said, said[1:], said[2:], strict=False))
    assert len(set(ngrams)) == len(ngrams)


def test_an_answer_depends_on_seed_and_stream_alone(logits: np.ndarray) -> None:
    params = SamplingParams(temperature=5.0, top_k=0, top_p=1.0)

    def answer(seed: int, stream: int, logprobs: int | None = None) -> list[int]:
        sampler = TokenSampler(params, [3], seed, stream)
        return [sampler.choose(row, logprobs).token for row in logits for _ in range(4)]

    assert answer(1, 2) == answer(1, 2, logprobs=4)
    assert answer(1, 2) != answer(2, 2)
    assert answer(1, 2) != answer(1, 3)
    batch = SampledRows(params, [[3], [3]], seed=1, streams=[2, 3])
    steps = [batch(np.stack([row, row]), [True, True]).tolist() for row in logits for _ in range(4)]
    assert [list(row) for row in zip(*steps, strict=True)] == [answer(1, 2), answer(1, 3)]


def test_a_draw_lays_the_likeliest_first_end_to_end() -> None:
    ids, scores = np.array([3, 5, 8, 9]), np.log(np.array([0.2, 0.4, 0.2, 0.2])).astype(np.float32)
    assert [draw(ids, scores, point) for point in (0, 0.39, 0.41, 0.59, 0.61, 0.79, 0.81)] == [5, 5, 3, 3, 8, 8, 9]
    assert draw(ids, scores, np.nextafter(1, 0)) == 9


def test_a_draw_from_many_tokens_follows_their_probabilities() -> None:
    scores = np.random.default_rng(1).normal(0, 2, 5000).astype(np.float32)
    scores[[7, 4999]] = -np.inf
    # Evenly spaced points meet each token as often as its probability says, give or take the two at its ends.
    points = 20_000
    counts = np.bincount([draw(np.arange(5000), scores, (i + 0.5) / points) for i in range(points)], minlength=5000)
    probabilities = np.exp(scores.astype(np.float64))
    assert np.abs(counts - points * probabilities / probabilities.sum()).max() < 1.01
    assert draw(np.arange(5000), scores, np.nextafter(1, 0)) == 4998


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_one_answer_stops_at_logits_that_are_not_finite(bad: float) -> None:
    row = np.zeros(VOCAB, np.float32)
    row[VOCAB - 1] = bad
    with pytest.raises(RunError, match="not finite"):
        TokenSampler(SamplingParams(), [], seed=0).choose(row)


def test_settings_of_the_config_reach_the_sampler() -> None:
    settings = {"temperature": 0.3, "top_p": 0.4, "top_k": 5, "repetition_penalty": 1.6, "min_p": 0.07}
    settings["no_repeat_ngram_size"] = 8
    assert asdict(sampling_params(GenerateSection(**settings))) == settings
    assert sampling_params(GenerateSection()) == SamplingParams()
