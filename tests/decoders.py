"""Small decoders on disk, in the key style of each family."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from reference import Names, head_dim, logits, token_losses

__all__ = [
    "LLAMA3",
    "VOCAB",
    "Weights",
    "baichuan_config",
    "config_of",
    "edit_config",
    "head_dim",
    "logits",
    "padded",
    "qwen_config",
    "random_weights",
    "raw_file",
    "serialize",
    "tensor_shapes",
    "token_losses",
    "write",
]

VOCAB = 97
# Rope scaling of LLaMA 3 at a length that small models reach.
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
Weights = dict[str, np.ndarray]


def config_of(family: str = "Qwen2ForCausalLM", **changes: Any) -> dict[str, Any]:
    """A `config.json` as transformers 4 writes it: hidden 32, 2 layers, 4 heads on 2 key heads."""
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


def qwen_config(**changes: Any) -> dict[str, Any]:
    """A `config.json` with the keys of Qwen-7B; `intermediate_size` counts both halves of the gated MLP."""
    return {
        "architectures": ["QWenLMHeadModel"],
        "auto_map": {"AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"},
        "attn_dropout_prob": 0.0,
        "bf16": False,
        "emb_dropout_prob": 0.0,
        "fp16": False,
        "fp32": False,
        "hidden_size": 32,
        "intermediate_size": 96,
        "initializer_range": 0.02,
        "kv_channels": 8,
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": 128,
        "model_type": "qwen",
        "no_bias": True,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "onnx_safe": None,
        "rotary_emb_base": 5000,
        "rotary_pct": 1.0,
        "scale_attn_weights": True,
        "seq_length": 64,
        "tie_word_embeddings": False,
        "tokenizer_class": "QWenTokenizer",
        "use_cache": True,
        "use_dynamic_ntk": True,
        "use_flash_attn": "auto",
        "use_logn_attn": True,
        "vocab_size": VOCAB,
        **changes,
    }


def baichuan_config(release: str = "7B", **changes: Any) -> dict[str, Any]:
    """A `config.json` with the keys of Baichuan-`7B` or `13B`, or Baichuan2 (`2-7B`, `2-13B`)."""
    first_7b, rotary, second = release == "7B", release.endswith("7B"), release.startswith("2-")
    return {
        "architectures": ["BaiChuanForCausalLM" if first_7b else "BaichuanForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_baichuan.BaichuanForCausalLM"},
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 32,
        "initializer_range": 0.02,
        "intermediate_size": 48,
        "model_type": "baichuan",
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "pad_token_id": 0,
        "rms_norm_eps": 1e-6,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": VOCAB,
        **({"max_position_embeddings": 64} if rotary else {"gradient_checkpointing": [False]}),
        **({} if first_7b else {"model_max_length": 64}),
        **({"z_loss_weight": 0} if second else {}),
        **changes,
    }


def tensor_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint with its shape."""
    names, hidden, dim, heads = Names(config), config["hidden_size"], head_dim(config), config["num_attention_heads"]
    q, kv = heads * dim, (config.get("num_key_value_heads") or heads) * dim
    inner = config["intermediate_size"] // (2 if "seq_length" in config else 1)
    qkv = (q + 2 * kv,) if len(names.qkv) == 1 else (q, kv, kv)
    shapes: dict[str, tuple[int, ...]] = {f"{names.embedding}.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = names.layer.format(layer)
        for name, out, width in (
            *((name, rows, hidden) for name, rows in zip(names.qkv, qkv, strict=True)),
            (names.out, hidden, q),
            (names.gate, inner, hidden),
            (names.up, inner, hidden),
            (names.down, hidden, inner),
        ):
            shapes[f"{prefix}{name}.weight"] = (out, width)
            if name in names.biased:
                shapes[f"{prefix}{name}.bias"] = (out,)
        if config["architectures"] == ["Qwen3ForCausalLM"]:
            shapes |= {f"{prefix}self_attn.{name}_norm.weight": (dim,) for name in "qk"}
        shapes |= {f"{prefix}{name}.weight": (hidden,) for name in names.norms}
    shapes[f"{names.norm}.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def random_weights(config: Mapping[str, Any], seed: int = 0, scale: float = 0.2) -> Weights:
    """Weights under the checkpoint's names, biases and norms far from zero and one."""
    rng = np.random.default_rng(seed)
    shapes = tensor_shapes(config)
    weights = {name: rng.normal(0, scale, shape).astype(np.float32) for name, shape in shapes.items()}
    return {name: 1 + value if "norm" in name or ".ln_" in name else value for name, value in weights.items()}


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
    from ms_medqa.models.safetensors_writer import encode, write_safetensors

    file = io.BytesIO()
    shapes = {name: (dtype, value.shape) for name, value in tensors.items()}
    write_safetensors(file, shapes, ((name, encode(value, dtype)) for name, value in tensors.items()))
    return file.getvalue()


def padded(sequences: Sequence[Sequence[int]], side: str, width: int, fill: int = 31) -> tuple[np.ndarray, np.ndarray]:
    """int32 (batch, width) each: ids, with padding on the `left` or `right`, and the attention mask."""
    ids, mask = np.full((len(sequences), width), fill, np.int32), np.zeros((len(sequences), width), np.int32)
    for row, sequence in enumerate(sequences):
        place = slice(width - len(sequence), width) if side == "left" else slice(0, len(sequence))
        ids[row, place], mask[row, place] = sequence, 1
    return ids, mask


def edit_config(folder: Path, **changes: Any) -> None:
    """Change keys of a model's config; `absent` takes one out."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in (config | changes).items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def raw_file(header: Any, data: bytes = b"") -> bytes:
    """A safetensors file of any header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data
