"""Small decoders on disk in several shapes, and what they compute, written a second time in NumPy float64."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

VOCAB = 97
Weights = dict[str, np.ndarray]


@contextmanager
def graph_mode() -> Iterator[None]:
    """MindSpore on the CPU in graph mode; the mode of before is restored, for other tests count on it."""
    import mindspore as ms

    from ms_medqa.backend.device import setup

    before = ms.get_context("mode")
    setup("CPU", mode="graph")
    try:
        yield
    finally:
        ms.set_context(mode=before)


def config_of(family: str = "Qwen2ForCausalLM", **changes: Any) -> dict[str, Any]:
    """A `config.json`: hidden 32, 2 layers, 4 heads on 2 key heads."""
    return {
        "architectures": [family],
        "model_type": family.removesuffix("ForCausalLM").lower(),
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "eos_token_id": 0,
        **changes,
    }


def head_dim(config: Mapping[str, Any]) -> int:
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def random_weights(config: Mapping[str, Any], seed: int = 0, scale: float = 0.2) -> Weights:
    """Weights under the names of Hugging Face checkpoints, biases and norms far from zero and one."""
    hidden, inner, dim = config["hidden_size"], config["intermediate_size"], head_dim(config)
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        for name, out, width in (
            ("self_attn.q_proj", q, hidden),
            ("self_attn.k_proj", kv, hidden),
            ("self_attn.v_proj", kv, hidden),
            ("self_attn.o_proj", hidden, q),
            ("mlp.gate_proj", inner, hidden),
            ("mlp.up_proj", inner, hidden),
            ("mlp.down_proj", hidden, inner),
        ):
            shapes[f"{prefix}{name}.weight"] = (out, width)
            if config["architectures"] == ["Qwen2ForCausalLM"] and name[-6:] in ("q_proj", "k_proj", "v_proj"):
                shapes[f"{prefix}{name}.bias"] = (out,)
        shapes[f"{prefix}input_layernorm.weight"] = shapes[f"{prefix}post_attention_layernorm.weight"] = (hidden,)
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    rng = np.random.default_rng(seed)
    weights = {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: 1 + value if "norm" in name else value for name, value in weights.items()}


def write(folder: Path, config: Mapping[str, Any], weights: Mapping[str, np.ndarray] | None = None) -> Weights:
    """Write `config.json` and `model.safetensors`, random weights by default; returns the weights."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = random_weights(config) if weights is None else dict(weights)
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return weights


def serialize(tensors: Mapping[str, np.ndarray], dtype: str) -> bytes:
    """The bytes of a safetensors file, all tensors in one type."""
    from ms_medqa.models.safetensors import encode, write_safetensors

    file = io.BytesIO()
    shapes = {name: (dtype, value.shape) for name, value in tensors.items()}
    write_safetensors(file, shapes, ((name, encode(value, dtype)) for name, value in tensors.items()))
    return file.getvalue()


def logits(weights: Mapping[str, np.ndarray], config: Mapping[str, Any], ids: list[int]) -> np.ndarray:
    """float64 (len(ids), vocab): the logits of one unpadded sequence."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    heads, kv_heads, dim = config["num_attention_heads"], config["num_key_value_heads"], head_dim(config)
    length, eps = len(ids), config["rms_norm_eps"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w[f"{name}.weight"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    angles = np.outer(np.arange(length), config["rope_theta"] ** (-np.arange(0, dim, 2) / dim))
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def rotate(x: np.ndarray) -> np.ndarray:
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    x = w["model.embed_tokens.weight"][ids]
    future = np.triu(np.ones((length, length), bool), 1)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        inner = norm(x, f"{prefix}input_layernorm")
        q = rotate(linear(inner, f"{prefix}self_attn.q_proj").reshape(length, heads, dim))
        k = rotate(linear(inner, f"{prefix}self_attn.k_proj").reshape(length, kv_heads, dim))
        v = linear(inner, f"{prefix}self_attn.v_proj").reshape(length, kv_heads, dim)
        k, v = (np.repeat(part, heads // kv_heads, axis=1) for part in (k, v))
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(dim)
        scores[:, future] = -np.inf
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), v)
        x = x + linear(mixed.reshape(length, -1), f"{prefix}self_attn.o_proj")
        inner = norm(x, f"{prefix}post_attention_layernorm")
        gate = linear(inner, f"{prefix}mlp.gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(inner, f"{prefix}mlp.up_proj"), f"{prefix}mlp.down_proj")
    return norm(x, "model.norm") @ w.get("lm_head.weight", w["model.embed_tokens.weight"]).T


def token_losses(weights: Mapping[str, np.ndarray], config: Mapping[str, Any], ids: list[int]) -> np.ndarray:
    """float64 (len(ids) - 1,): cross entropy of each next token."""
    values = logits(weights, config, ids)[:-1]
    values = values - values.max(-1, keepdims=True)
    return np.log(np.exp(values).sum(-1)) - values[np.arange(len(ids) - 1), ids[1:]]
