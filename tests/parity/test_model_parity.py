"""The same logits as transformers, from folders that transformers wrote."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
from mindspore import Tensor

from ms_medqa.models import load_model

torch = pytest.importorskip("torch", reason="parity with transformers needs PyTorch")
transformers = pytest.importorskip("transformers", reason="parity with transformers needs transformers")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("graph_mode")]

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
UPPER_WINDOW = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {"rms_norm_eps": 1e-5}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "num_key_value_heads": 4}),
    "llama with wide heads": ("Llama", {"head_dim": 12, "rope_theta": 5e5}),
    "llama with one key head": ("Llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "llama linear": ("Llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.5}}),
    # Longer than 11 positions is only the longest row; the base grows for all rows of the batch.
    "llama dynamic": (
        "Llama",
        {"max_position_embeddings": 11, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    ),
    "llama with silu's other name": ("Llama", {"hidden_act": "swish"}),
    "llama 3": ("Llama", {"head_dim": 16, "rope_scaling": decoders.LLAMA3}),
    "deepseek-coder": ("Llama", {"rope_theta": 1e5, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}),
    "mistral": ("Mistral", {"sliding_window": 6}),
    "mistral without a window": ("Mistral", {"sliding_window": None, "head_dim": 6}),
    "qwen2": ("Qwen2", {"rope_theta": 1e6}),
    "qwen2 tied": ("Qwen2", {"tie_word_embeddings": True, "rms_norm_eps": 1e-5}),
    "qwen2 with a key head for each": ("Qwen2", {"num_key_value_heads": 4}),
    "qwen2 with one key head": ("Qwen2", {"num_key_value_heads": 1, **UPPER_WINDOW}),
    "qwen3": ("Qwen3", {"tie_word_embeddings": True, "head_dim": 12, "rope_theta": 1e6}),
    "qwen3 with a window": ("Qwen3", {"head_dim": 8, "attention_bias": True, **UPPER_WINDOW}),
}
STORED = [
    ("qwen2 tied", "bfloat16", None),
    ("qwen2", "float16", None),
    ("llama with biases", "bfloat16", "12KB"),
    ("qwen3", "float32", "12KB"),
]
LENGTHS = [16, 11, 5]


def reference(kind: str, changes: dict[str, Any]) -> Any:
    """A model of transformers with random weights."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**copy.deepcopy(SIZES | changes))
    if "max_window_layers" in changes and not hasattr(config, "layer_types"):
        pytest.skip("this transformers gives all layers one mask")
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:  # transformers starts them at zero and one, which would hide them
                parameter.copy_(torch.randn_like(parameter) * 0.2 + ("norm" in name))
    return model


def load_float32(folder: Path) -> Any:
    """The folder in transformers, computing in float32 whatever is stored, with the plain attention."""
    name = "dtype" if int(transformers.__version__.split(".")[0]) > 4 else "torch_dtype"
    options = {name: torch.float32, "attn_implementation": "eager"}
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def compare(folder: Path) -> None:
    """Left and right padded, a batch of unequal lengths gives the same logits here and there."""
    theirs, ours = load_float32(folder), load_model(folder, dtype="float32")
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, 97, length).tolist() for length in LENGTHS]
    for side in ("left", "right"):
        ids, mask = decoders.padded(rows, side, max(LENGTHS))
        with torch.no_grad():
            expected = theirs(
                torch.tensor(ids).long(),
                attention_mask=torch.tensor(mask).long(),
                position_ids=torch.tensor(np.maximum(mask.cumsum(1) - 1, 0)),
            ).logits.numpy()
        found = ours(Tensor(ids), Tensor(mask)).asnumpy()
        assert expected[mask == 1].std() > 0.5
        np.testing.assert_allclose(found[mask == 1], expected[mask == 1], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_logits(tmp_path: Path, name: str) -> None:
    reference(*MODELS[name]).save_pretrained(tmp_path)
    compare(tmp_path)


def test_the_original_length_beside_the_section_goes_before_the_one_in_it(tmp_path: Path) -> None:
    reference(*MODELS["llama 3"]).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    path.write_text(json.dumps(raw | {"original_max_position_embeddings": 8}))
    if load_float32(tmp_path).config.rope_parameters["original_max_position_embeddings"] != 8:
        pytest.skip("this transformers knows only the one in the section")
    compare(tmp_path)


@pytest.mark.parametrize(("name", "stored", "shard"), STORED)
def test_stored(tmp_path: Path, name: str, stored: str, shard: str | None) -> None:
    model = reference(*MODELS[name]).to(getattr(torch, stored))
    model.save_pretrained(tmp_path, **({} if shard is None else {"max_shard_size": shard}))
    assert (len([*tmp_path.glob("*.safetensors")]) > 2) == (shard is not None)
    compare(tmp_path)
