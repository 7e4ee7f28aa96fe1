"""The same beams as transformers' `generate`: tokens and scores of all answers, in a batch of unequal prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest

from ms_medqa.generation import SamplingParams
from ms_medqa.generation.beams import BeamParams
from ms_medqa.generation.engine import Engine
from ms_medqa.generation.search import search_many
from ms_medqa.models import load_model

torch = pytest.importorskip("torch", reason="parity with transformers needs PyTorch")
transformers = pytest.importorskip("transformers", reason="parity with transformers needs transformers")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("pynative_mode")]

NEW = 20
# So many that answers end at all lengths.
ENDS = list(range(3, 97, 7))
CASES: dict[str, dict[str, Any]] = {
    "plain": {"num_beams": 4},
    "two": {"num_beams": 2, "early_stopping": True},
    "never": {"num_beams": 3, "early_stopping": "never", "length_penalty": 2.0},
    "short": {"num_beams": 4, "length_penalty": -1.0},
    "long": {"num_beams": 5, "length_penalty": 3.0},
    "penalty": {"num_beams": 4, "repetition_penalty": 1.4},
    "no repetition": {"num_beams": 4, "no_repeat_ngram_size": 2, "length_penalty": 2.0},
}


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A random model, ours and theirs."""
    folder = tmp_path_factory.mktemp("beams")
    torch.manual_seed(1)
    config = transformers.Qwen2Config(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=ENDS,
        pad_token_id=0,
    )
    theirs = transformers.Qwen2ForCausalLM(config).eval()
    theirs.save_pretrained(folder)
    return load_model(Path(folder)), theirs


@pytest.mark.parametrize("name", CASES)
def test_same_answers(sides: tuple[Any, Any], name: str) -> None:
    ours, theirs = sides
    options = CASES[name]
    rng = np.random.default_rng(7)
    prompts = [rng.integers(1, 97, length).tolist() for length in (20, 6, 13)]
    count = options["num_beams"]
    beams = BeamParams(count, options.get("length_penalty", 1.0), options.get("early_stopping", False))
    params = SamplingParams(
        temperature=0,
        repetition_penalty=options.get("repetition_penalty", 1.0),
        no_repeat_ngram_size=options.get("no_repeat_ngram_size", 0),
    )
    found = search_many(Engine.of(ours), prompts, params, beams, NEW, frozenset(ENDS), batch_size=2)
    ended = 0
    for prompt, answers in zip(prompts, found, strict=True):
        # One at a time: padding counts as seen with transformers, and is penalised.
        out = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=NEW,
            do_sample=False,
            num_return_sequences=count,
            return_dict_in_generate=True,
            output_scores=True,
            **options,
        )
        expected = [cut(row) for row in out.sequences[:, len(prompt) :].tolist()]
        assert [list(answer.tokens) for answer in answers] == expected
        np.testing.assert_allclose([answer.score for answer in answers], out.sequences_scores.numpy(), rtol=1e-5)
        ended += sum(answer.finish == "stop" for answer in answers)
    assert ended


def test_same_answers_in_a_batch(sides: tuple[Any, Any]) -> None:
    ours, theirs = sides
    rng = np.random.default_rng(8)
    prompts = [rng.integers(1, 97, length).tolist() for length in (18, 5, 11)]
    ids, mask = decoders.padded(prompts, "left", 18)
    out = theirs.generate(
        torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long(), max_new_tokens=NEW, num_beams=4
    )
    params = SamplingParams(temperature=0, repetition_penalty=1)
    found = search_many(Engine.of(ours), prompts, params, BeamParams(4), NEW, frozenset(ENDS), batch_size=3)
    assert [list(answers[0].tokens) for answers in found] == [cut(row) for row in out[:, 18:].tolist()]


def cut(row: list[int]) -> list[int]:
    """An answer without its end token and what fills the row behind it."""
    return row[: min((row.index(end) for end in ENDS if end in row), default=len(row))]
