"""Logits after all processors are those of transformers' `generate`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ms_medqa.generation.processors import History, process
from ms_medqa.generation.sampling import SamplingParams

torch = pytest.importorskip("torch", reason="parity with transformers needs PyTorch")
transformers = pytest.importorskip("transformers", reason="parity with transformers needs transformers")
pytestmark = pytest.mark.parity

NEUTRAL: dict[str, Any] = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
ALL = {
    "temperature": 0.7,
    "top_p": 0.9,
    "top_k": 40,
    "repetition_penalty": 1.3,
    "min_p": 0.05,
    "no_repeat_ngram_size": 2,
}
SETTINGS: list[dict[str, Any]] = [
    {"repetition_penalty": 1.3},
    {"repetition_penalty": 0.6},
    *({"no_repeat_ngram_size": n} for n in (1, 2, 3, 5, 99)),
    *({"temperature": t} for t in (0.01, 0.2, 0.7, 30.0)),
    *({"top_k": k} for k in (1, 7, 50, 10_000)),
    *({"top_p": p} for p in (1e-9, 0.3, 0.9, 0.999999)),
    *({"min_p": p} for p in (1e-6, 0.1, 1.0)),
    {"top_k": 20, "top_p": 0.5},
    {"top_p": 0.9, "min_p": 0.2},
    {"temperature": 3.0, "top_p": 0.8},
    {"temperature": 0.2, "top_p": 0.9, "top_k": 50, "repetition_penalty": 1.1},
    ALL,
    ALL | {"top_k": 0, "temperature": 1.5},
    {"temperature": 0.0, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2},
]


def theirs(settings: dict[str, Any], seen: list[int], logits: np.ndarray) -> np.ndarray:
    """The row that `generate` would draw from, through the list of processors that it makes itself."""
    greedy = settings["temperature"] == 0
    chosen = {name: value for name, value in settings.items() if not (greedy and name in NEUTRAL)}
    if greedy:
        chosen["repetition_penalty"] = settings["repetition_penalty"]
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
        )
    )
    config, _ = model._prepare_generation_config(transformers.GenerationConfig(do_sample=not greedy, **chosen))
    processors = model._get_logits_processor(generation_config=config, input_ids_seq_length=len(seen))
    return processors(torch.tensor([seen]), torch.tensor(logits[None]))[0].numpy()


def ours(settings: dict[str, Any], seen: list[int], logits: np.ndarray) -> np.ndarray:
    params = SamplingParams(**settings)
    return process(logits, params, History(seen, params.no_repeat_ngram_size))


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize(("size", "spread"), [(50, 3.0), (2000, 1.0), (2000, 4.0), (30_000, 2.0)])
def test_random_logits(settings: dict[str, Any], size: int, spread: float) -> None:
    settings = NEUTRAL | settings
    rng = np.random.default_rng(size)
    logits = rng.normal(0, spread, size).astype(np.float32)
    # Few of the words, so that n-grams come back.
    seen = [*rng.integers(0, 6, 60).tolist(), 1, 2, 3, 4, 5, 1, 2, 3, 4]
    expected, found = theirs(settings, seen, logits), ours(settings, seen, logits)
    np.testing.assert_array_equal(np.isneginf(found), np.isneginf(expected))
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("kind", ["few values", "all equal", "extreme", "masked"])
def test_odd_logits(settings: dict[str, Any], kind: str) -> None:
    settings = NEUTRAL | settings
    rng = np.random.default_rng(3)
    logits = {
        "few values": rng.integers(-3, 4, 512),
        "all equal": np.full(512, 1.5),
        "extreme": rng.choice([-3e38, -1e30, -80.0, -1.0, 0.0, 90.0, 100.0], 512),
        "masked": np.where(rng.random(512) < 0.9, -np.inf, rng.normal(0, 3, 512)),
    }[kind].astype(np.float32)
    seen = rng.integers(0, 20, 80).tolist()
    with np.errstate(all="raise", under="ignore"):
        found = ours(settings, seen, logits)
    # Which of equal tokens stay at the border of top-p transformers leaves to a sort that is not stable.
    expected = np.sort(theirs(settings, seen, logits))
    np.testing.assert_allclose(np.sort(found), expected, rtol=1e-6, atol=1e-6)
