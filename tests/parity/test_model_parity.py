"""The same logits as transformers, from folders that transformers wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
from mindspore import Tensor

from ms_medqa.models import load_model

torch = pytest.importorskip("torch", reason="parity with transformers needs PyTorch")
transformers = pytest.importorskip("transformers", reason="parity with transformers needs transformers")
pytestmark = pytest.mark.parity

SIZES = {
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "initializer_range": 0.2,
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "qwen2": ("Qwen2", {"rope_theta": 1e6}),
    "qwen2 tied": ("Qwen2", {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "llama": ("Llama", {"head_dim": 12, "rms_norm_eps": 1e-5}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4}),
}


@pytest.fixture(scope="module", autouse=True)
def _set_up() -> Iterator[None]:
    torch.set_num_threads(1)
    with decoders.graph_mode():
        yield


def reference(kind: str, changes: dict[str, Any]) -> Any:
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**(SIZES | changes), attn_implementation="eager")
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # transformers starts them at zero and one, which would hide them
                parameter.copy_(torch.randn_like(parameter) * 0.2 + ("norm" in name))
    return model


@pytest.mark.parametrize(("name", "stored"), [*((name, "float32") for name in MODELS), ("qwen2 tied", "bfloat16")])
def test_logits(tmp_path: Path, name: str, stored: str) -> None:
    reference(*MODELS[name]).to(getattr(torch, stored)).save_pretrained(tmp_path)
    # Both read the rounded weights and compute in float32.
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 97, (3, 16)).astype(np.int32)
    mask = (np.arange(16) >= np.array([[0], [5], [11]])).astype(np.int32)
    with torch.no_grad():
        expected = model(
            torch.tensor(ids).long(),
            attention_mask=torch.tensor(mask),
            position_ids=torch.tensor(np.maximum(mask.cumsum(1) - 1, 0)),
        ).logits.numpy()
    found = load_model(tmp_path)(Tensor(ids), Tensor(mask)).asnumpy()
    assert expected[mask == 1].std() > 0.5
    np.testing.assert_allclose(found[mask == 1], expected[mask == 1], atol=5e-5, rtol=1e-4)
