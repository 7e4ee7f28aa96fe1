"""What may be drawn: each rule against its definition. tests/parity compares with transformers."""

from __future__ import annotations

import time

import numpy as np
import pytest

from ms_medqa.generation.processors import History, candidates, likeliest, process
from ms_medqa.generation.sampling import SamplingParams

VOCAB = 50
KEEP_ALL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}


@pytest.fixture
def logits() -> np.ndarray:
    return np.random.default_rng(0).normal(0, 3, (4, VOCAB)).astype(np.float32)


def softmax(scores: np.ndarray) -> np.ndarray:
    weights = np.exp(scores - scores.max())
    return weights / weights.sum()


def plain_candidates(
    logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float
) -> dict[int, float]:
    """The definition, one token at a time: the ids that stay, and their probabilities."""
    scores = {i: float(logit) / temperature for i, logit in enumerate(logits)}
    if top_k:
        kth = sorted(scores.values(), reverse=True)[min(top_k, len(scores)) - 1]
        scores = {i: s for i, s in scores.items() if s >= kth}
    ids = sorted(scores, key=lambda i: (-scores[i], i))
    probabilities = softmax(np.array([scores[i] for i in ids]))
    kept, total = {}, 0.0
    for i, p in zip(ids, probabilities, strict=True):
        if (total >= top_p and kept) or p < min_p * probabilities[0]:
            break
        kept[i] = float(p)
        total += float(p)
    norm = sum(kept.values())
    return {i: p / norm for i, p in sorted(kept.items())}


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (1.0, 0, 1.0, 0.0),
        (0.2, 50, 0.9, 0.0),
        (0.7, 5, 1.0, 0.0),
        (2.0, 0, 0.5, 0.0),
        (1.5, 10, 0.8, 0.1),
        (1.0, 3, 1e-6, 0.0),
        (1.0, 500, 0.99, 0.02),
        (1.0, 0, 1.0, 0.3),
    ],
)
def test_candidates_are_those_of_the_definition(
    logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float
) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    for row in logits:
        ids, scores = candidates(row, params)
        expected = plain_candidates(row, temperature, top_k, top_p, min_p)
        assert list(ids) == list(expected)
        np.testing.assert_allclose(softmax(scores), list(expected.values()), rtol=1e-5)


def test_a_temperature_near_zero_takes_the_likeliest_token(logits: np.ndarray) -> None:
    for temperature in (1e-6, 1e-38, 5e-324):
        for row in (*logits, -np.abs(logits[0]), logits[0] - logits[0].max()):
            ids, scores = candidates(row, SamplingParams(temperature=temperature, top_p=1))
            assert (ids[scores.argmax()], softmax(scores).max()) == (row.argmax(), 1.0)


def test_tokens_equal_to_the_kth_are_kept() -> None:
    ids, _ = candidates(np.array([1, 3, 3, 3, 0], np.float32), SamplingParams(temperature=1, top_k=2, top_p=1))
    assert list(ids) == [1, 2, 3]


def test_of_equal_tokens_at_the_border_of_top_p_the_lower_ids_are_kept() -> None:
    logits = np.array([0, 2, -9, 2, 2, 2], np.float32)
    ids, _ = candidates(logits, SamplingParams(temperature=1, top_k=0, top_p=0.4))
    assert list(ids) == [1, 3]
    ids, _ = candidates(np.zeros(64, np.float32), SamplingParams(temperature=1, top_k=0, top_p=0.25))
    assert list(ids) == list(range(16))


@pytest.mark.parametrize("count", [1, 2, 20, 62, 63, 999, 1000, 5000])
def test_the_likeliest_are_those_of_a_sort(count: int) -> None:
    rng = np.random.default_rng(count)
    for scores in (rng.normal(0, 1, 1000), rng.integers(0, 30, 1000), np.where(np.arange(1000) % 9, -np.inf, 1.0)):
        kth = np.sort(scores)[-min(count, 1000)]
        assert list(likeliest(scores.astype(np.float32), count)) == list(np.flatnonzero(scores >= kth))


def test_repetition_penalty_lowers_positive_and_negative_logits() -> None:
    logits = np.array([2.0, -2.0, 4.0, 0.0], np.float32)
    # 9 is an id that the model has no logit for.
    History([0, 1, 1, 3, 9]).penalise(logits, 2.0)
    np.testing.assert_array_equal(logits, np.array([1.0, -4.0, 4.0, 0.0], np.float32))


def test_every_token_of_a_long_prompt_and_its_answer_is_penalised_once() -> None:
    said = [*range(3, 1000, 2), *range(3, 50, 2)]
    history = History(said[:300])
    for token in said[300:]:
        history.add(token)
    logits = np.full(1000, 4.0, np.float32)
    history.penalise(logits, 2.0)
    assert np.flatnonzero(logits == 2.0).tolist() == list(range(3, 1000, 2))
    assert (logits == 4.0).sum() == 1000 - len(set(said))


def banned_by_scan(tokens: list[int], size: int) -> set[int]:
    """The definition: what followed each earlier occurrence of the last size - 1 tokens."""
    if len(tokens) < size:
        return set()
    last = tokens[len(tokens) - size + 1 :]
    return {tokens[i + size - 1] for i in range(len(tokens) - size + 1) if tokens[i : i + size - 1] == last}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4])
def test_the_next_token_completes_no_ngram_that_occurs(size: int) -> None:
    tokens = np.random.default_rng(size).integers(0, 4, 200).tolist()
    history = History(tokens[:50], size)
    for place in range(50, 200):
        scores = np.zeros(VOCAB, np.float32)
        history.forbid(scores)
        expected = banned_by_scan(tokens[:place], size) if size else set()
        assert set(np.flatnonzero(np.isneginf(scores)).tolist()) == expected
        history.add(tokens[place])


@pytest.mark.parametrize("size", [1, 2])
def test_what_a_fork_takes_in_is_its_own(size: int) -> None:
    def forbidden(history: History) -> list[int]:
        scores = np.zeros(8, np.float32)
        history.forbid(scores)
        return np.flatnonzero(np.isneginf(scores)).tolist()

    tokens = [1, 2, 1, 3, 1]
    one = History(tokens, size)
    other = one.fork()
    for history, goes_on in ((one, [4, 1]), (other, [5, 1])):
        for token in goes_on:
            history.add(token)
        assert set(forbidden(history)) == banned_by_scan([*tokens, *goes_on], size)


def test_an_answer_goes_on_where_every_token_is_forbidden() -> None:
    history = History([0, 1, 2], 1)
    scores = np.array([1.0, 3.0, 2.0, -np.inf], np.float32)
    history.forbid(scores)
    assert scores.tolist() == [1.0, 3.0, 2.0, -np.inf]


def test_a_greedy_row_is_only_penalised_and_banned() -> None:
    logits = np.array([4.0, 3.0, 2.0, 1.0], np.float32)
    params = SamplingParams(temperature=0, top_k=1, top_p=0.1, repetition_penalty=2.0, no_repeat_ngram_size=2)
    # 1 has followed 0; the last token is 0 again.
    found = process(logits, params, History([0, 1, 0], 2))
    assert found.tolist() == [2.0, -np.inf, 2.0, 1.0]
    assert logits.tolist() == [4.0, 3.0, 2.0, 1.0]


def test_a_large_vocabulary_takes_little_time() -> None:
    """A whole sort alone takes 12 ms, where a row takes 0.3; the bound leaves room for slower machines."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, 151_936).astype(np.float32)
    params = SamplingParams(no_repeat_ngram_size=3, min_p=0.01)
    history = History(rng.integers(0, 151_936, 4000).tolist(), 3)
    times = []
    for _ in range(30):
        start = time.process_time()
        process(logits, params, history)
        times.append(time.process_time() - start)
    assert min(times) < 2e-3
