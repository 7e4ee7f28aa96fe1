"""The next token: each rule against a plain re-computation, and against Hugging Face's own processors."""

from __future__ import annotations

import numpy as np
import pytest

from ms_medqa.config import RunError, UserError
from ms_medqa.generation.sampling import Sampler, SamplingParams, candidates, penalise_repetition

VOCAB = 50


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, (4, VOCAB)).astype(np.float32)


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def plain_candidates(logits: np.ndarray, temperature: float, top_k: int, top_p: float) -> dict[int, float]:
    """The definition, one token at a time."""
    scores = {i: float(logit) / temperature for i, logit in enumerate(logits)}
    if top_k:
        kth = sorted(scores.values(), reverse=True)[min(top_k, len(scores)) - 1]
        scores = {i: s for i, s in scores.items() if s >= kth}
    ids = sorted(scores, key=lambda i: (-scores[i], i))
    probabilities = softmax(np.array([scores[i] for i in ids]))
    kept, total = {}, 0.0
    for i, p in zip(ids, probabilities, strict=True):
        if total >= top_p and kept:
            break
        kept[i] = float(p)
        total += float(p)
    norm = sum(kept.values())
    return {i: p / norm for i, p in kept.items()}


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.2, 50, 0.9), (0.7, 5, 1.0), (2.0, 0, 0.5), (1.5, 10, 0.8), (1.0, 3, 1e-6), (1.0, 500, 0.99)],
)
def test_candidates_are_those_of_the_definition(
    logits: np.ndarray, temperature: float, top_k: int, top_p: float
) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    for row in logits:
        ids, probabilities = candidates(row, params)
        expected = plain_candidates(row, temperature, top_k, top_p)
        assert list(ids) == list(expected)
        np.testing.assert_allclose(probabilities, list(expected.values()), rtol=1e-5)
        assert probabilities.sum() == pytest.approx(1)


def test_a_temperature_near_zero_takes_the_likeliest_token(logits: np.ndarray) -> None:
    for temperature in (1e-6, 5e-324):
        for row in logits:
            ids, probabilities = candidates(row, SamplingParams(temperature=temperature, top_p=1))
            assert (ids[0], probabilities[0]) == (row.argmax(), 1.0)


def test_tokens_equal_to_the_kth_are_kept() -> None:
    ids, _ = candidates(np.array([1, 3, 3, 3, 0], np.float32), SamplingParams(temperature=1, top_k=2, top_p=1))
    assert list(ids) == [1, 2, 3]


def test_repetition_penalty_lowers_positive_and_negative_logits() -> None:
    logits = np.array([2.0, -2.0, 4.0, 0.0], np.float32)
    penalise_repetition(logits, np.array([0, 1, 3]), 2.0)
    np.testing.assert_array_equal(logits, np.array([1.0, -4.0, 4.0, 0.0], np.float32))


def test_greedy_applies_the_repetition_penalty_to_prompt_and_answer() -> None:
    sampler = Sampler(SamplingParams(temperature=0, repetition_penalty=2.0), [[0]])
    logits = np.array([[5.0, 4.0, 3.0, -9.0]], np.float32)
    # Token 0 stands in the prompt; 1 is penalised once it has been said; 5/2 < 3; then 2.5 > 2 > 1.5.
    assert [int(sampler(logits, [True])[0]) for _ in range(3)] == [1, 2, 0]
    np.testing.assert_array_equal(logits, np.array([[5.0, 4.0, 3.0, -9.0]], np.float32))


def test_draws_follow_the_probabilities() -> None:
    params = SamplingParams(temperature=1, top_k=0, top_p=1, repetition_penalty=1)
    probabilities = np.array([0.5, 0.3, 0.15, 0.05])
    rows = 4000
    sampler = Sampler(params, [[]] * rows, seed=3)
    drawn = sampler(np.tile(np.log(probabilities).astype(np.float32), (rows, 1)), [True] * rows)
    counts = np.bincount(drawn, minlength=4)
    # Chi-square with 3 degrees of freedom: 16.3 is exceeded by chance once in a thousand seeds; this seed is fixed.
    assert (((counts - rows * probabilities) ** 2) / (rows * probabilities)).sum() < 16.3


def test_a_row_draws_the_same_whatever_stands_beside_it(logits: np.ndarray) -> None:
    params = SamplingParams(temperature=5.0, top_k=0, top_p=1.0)
    batch = Sampler(params, [[1], [2], [3], [4]], seed=7)
    alone = Sampler(params, [[3]], seed=7, streams=[2])
    # The neighbours end after the first step; row 2 must not notice.
    first, second = batch(logits, [True] * 4), batch(logits, [False, False, True, False])
    assert [alone(logits[2:3], [True])[0], alone(logits[2:3], [True])[0]] == [first[2], second[2]]
    assert list(second[[0, 1, 3]]) == [-1, -1, -1]


def test_seed_repeats_and_another_seed_differs(logits: np.ndarray) -> None:
    params = SamplingParams(temperature=10.0, top_k=0, top_p=1.0)

    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(params, [[]] * 4, seed=seed)
        return [int(token) for _ in range(8) for token in sampler(logits, [True] * 4)]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    assert draw(None) != draw(None)


def test_rows_of_one_batch_have_their_own_draws() -> None:
    params = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, repetition_penalty=1.0)
    sampler = Sampler(params, [[]] * 32, seed=1)
    assert len(set(sampler(np.zeros((32, 1000), np.float32), [True] * 32).tolist())) > 20


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_stop_the_run(bad: float) -> None:
    logits = np.zeros((1, VOCAB), np.float32)
    logits[0, 3] = bad
    with pytest.raises(RunError, match="not finite"):
        Sampler(SamplingParams(), [[]])(logits, [True])


def test_masked_logits_of_minus_infinity_are_never_drawn() -> None:
    logits = np.full((64, VOCAB), -np.inf, np.float32)
    logits[:, [4, 9]] = 1.0
    sampler = Sampler(SamplingParams(temperature=1, top_k=0, top_p=1), [[]] * 64, seed=0)
    assert set(sampler(logits, [True] * 64).tolist()) == {4, 9}


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"repetition_penalty": 0.0},
    ],
)
def test_a_setting_out_of_range_is_a_clear_error(bad: dict[str, float]) -> None:
    name = next(iter(bad))
    with pytest.raises(UserError, match=name):
        SamplingParams(**bad)


@pytest.mark.parity
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "penalty"),
    [(0.2, 50, 0.9, 1.1), (1.0, 0, 0.7, 1.5), (0.8, 7, 1.0, 0.8), (3.0, 20, 0.95, 1.0), (0.5, 5, 0.3, 2.0)],
)
def test_same_candidates_as_transformers(temperature: float, top_k: int, top_p: float, penalty: float) -> None:
    torch = pytest.importorskip("torch")
    process = pytest.importorskip("transformers.generation.logits_process")
    logits = np.random.default_rng(5).normal(0, 4, (8, 2000)).astype(np.float32)
    seen = np.random.default_rng(6).integers(0, 2000, (8, 60))
    chain = [process.RepetitionPenaltyLogitsProcessor(penalty), process.TemperatureLogitsWarper(temperature)]
    chain += [process.TopKLogitsWarper(top_k)] if top_k else []
    chain += [process.TopPLogitsWarper(top_p)] if top_p < 1 else []
    scores = torch.tensor(logits)
    for processor in chain:
        scores = processor(torch.tensor(seen), scores)
    expected = torch.softmax(scores.double(), -1).numpy()
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, repetition_penalty=penalty)
    for row in range(8):
        mine = logits[row].copy()
        penalise_repetition(mine, np.unique(seen[row]), penalty)
        ids, probabilities = candidates(mine, params)
        full = np.zeros(2000)
        full[ids] = probabilities
        np.testing.assert_allclose(full, expected[row], rtol=1e-4, atol=1e-9)
