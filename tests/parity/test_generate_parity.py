"""The same greedy tokens as transformers' own loop, with the caches of both."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest

from ms_medqa import generate
from ms_medqa.models import load_model

torch = pytest.importorskip("torch", reason="parity with transformers needs PyTorch")
transformers = pytest.importorskip("transformers", reason="parity with transformers needs transformers")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("pynative_mode")]

NEW = 128
SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 160,
    # Wide enough apart that no two tokens are as good as each other.
    "initializer_range": 0.4,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"num_key_value_heads": 4, "rms_norm_eps": 1e-5}),
    "llama dynamic": (
        "Llama",
        {"max_position_embeddings": 40, "rope_scaling": {"rope_type": "dynamic", "factor": 4.0}},
    ),
    "deepseek-coder": ("Llama", {"rope_theta": 1e5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "llama 3": ("Llama", {"head_dim": 16, "rope_scaling": decoders.LLAMA3}),
    "mistral": ("Mistral", {"sliding_window": 12}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "qwen3": ("Qwen3", {"head_dim": 12, "tie_word_embeddings": True}),
}


@pytest.mark.parametrize("name", MODELS)
def test_greedy_tokens(tmp_path: Path, name: str) -> None:
    kind, changes = MODELS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**copy.deepcopy(SIZES | changes))
    theirs = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    theirs.save_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 97, length).tolist() for length in (20, 13, 6)]
    ids, mask = decoders.padded(rows, "left", 20)
    options = {"do_sample": False, "max_new_tokens": NEW, "pad_token_id": 0}

    def answers(ids: np.ndarray, mask: np.ndarray) -> list[list[int]]:
        with torch.no_grad():
            out = theirs.generate(torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long(), **options)
        return out[:, ids.shape[1] :].tolist()

    if "dynamic" in name:
        # In a batch, transformers stretches all rows by the longest one's length. Here each goes by its own.
        expected = [answers(np.array([row]), np.ones((1, len(row)), int))[0] for row in rows]
    else:
        expected = answers(ids, mask)
    assert [len(row) for row in expected] == [NEW] * 3
    assert all(len(set(row)) > 5 for row in expected)  # answers that go somewhere
    found = generate(load_model(tmp_path), ids, mask, max_new_tokens=NEW, greedy=True, eos_token_id=[])
    assert found == expected
