"""What decoders compute, written a second time in NumPy float64.

The formulas are those of the published model code and papers (RoFormer, ALiBi, YaRN's account of NTK-aware scaling,
Llama 3, Mistral 7B, Qwen, Baichuan), and the tensors are read under the checkpoint's own names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def head_dim(config: Mapping[str, Any]) -> int:
    own = config.get("head_dim") or config.get("kv_channels")
    return own or config["hidden_size"] // config["num_attention_heads"]


class Names:
    """Where a checkpoint keeps what: modules of a layer (after `layer`), embedding and last norm.

    `qkv` is one module that stacks queries, keys and values (in this order), or three.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        family = config["architectures"][0].lower()
        attention, self.gate, self.up, self.down = "self_attn.", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"
        self.qkv, self.out = tuple(f"{attention}{name}_proj" for name in "qkv"), "self_attn.o_proj"
        self.norms = ("input_layernorm", "post_attention_layernorm")
        self.layer, self.embedding, self.norm = "model.layers.{}.", "model.embed_tokens", "model.norm"
        # Modules that have a bias.
        always, asked, mlp = family == "qwen2forcausallm", config.get("attention_bias"), config.get("mlp_bias")
        self.biased = {*(self.qkv if always or asked else ()), *((self.out,) if asked else ())}
        self.biased |= {self.gate, self.up, self.down} if mlp else set()
        if family.startswith("baichuan"):
            self.qkv = ("self_attn.W_pack",)
        if family.startswith("qwenlm"):
            # w2 is the half that goes through SiLU.
            self.gate, self.up, self.down = "mlp.w2", "mlp.w1", "mlp.c_proj"
            self.qkv, self.out, self.norms = ("attn.c_attn",), "attn.c_proj", ("ln_1", "ln_2")
            self.layer, self.embedding, self.norm = "transformer.h.{}.", "transformer.wte", "transformer.ln_f"
            # `no_bias` does not speak of queries, keys and values.
            free = set() if config["no_bias"] else {self.out, self.gate, self.up, self.down}
            self.biased = {"attn.c_attn", *free}


def frequencies(config: Mapping[str, Any], length: int = 0) -> np.ndarray:
    """float64 (head_dim / 2,): angle between neighbours, where the longest sequence has `length` tokens."""
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = config.get("rope_theta") or config.get("rotary_emb_base") or rope.get("rope_theta") or 10000.0
    kind, factor, dim = rope.get("rope_type", rope.get("type", "default")), rope.get("factor", 1.0), head_dim(config)
    if kind == "dynamic":
        limit = config["max_position_embeddings"]
        theta *= (factor * max(length, limit) / limit - factor + 1) ** (dim / (dim - 2))
    plain = theta ** (-np.arange(0, dim, 2) / dim)
    if kind == "linear":
        return plain / factor
    if kind != "llama3":
        return plain
    # How often a pair turns within the original length: rarely -> stretched, often -> kept, between -> mixed.
    turns = rope["original_max_position_embeddings"] * plain / (2 * np.pi)
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0, 1)
    return plain * (kept + (1 - kept) / factor)


def slopes(heads: int) -> list[float]:
    """ALiBi: a geometric series down to 1/256; for other counts than powers of two, filled up from a finer one."""
    power = 1 << (heads.bit_length() - 1)
    if power == heads:
        return [2.0 ** (-8 * i / heads) for i in range(1, heads + 1)]
    return slopes(power) + slopes(2 * power)[: 2 * (heads - power) : 2]


def window(config: Mapping[str, Any], layer: int) -> float:
    """How many positions a token of a layer sees, itself included."""
    family, size = config["architectures"][0], config.get("sliding_window")
    sliding = family == "MistralForCausalLM" and size is not None
    if family in ("Qwen2ForCausalLM", "Qwen3ForCausalLM") and config.get("use_sliding_window"):
        kinds = config.get("layer_types")
        sliding = kinds[layer] == "sliding_attention" if kinds else layer >= config["max_window_layers"]
    return size if sliding else np.inf


def logits(
    weights: Mapping[str, np.ndarray],
    config: Mapping[str, Any],
    ids: Sequence[int],
    lengths: Sequence[int] | None = None,
) -> np.ndarray:
    """float64 (len(ids), vocab): the logits of one unpadded sequence.

    Args:
        weights: a checkpoint's tensors.
        config: its `config.json`.
        ids: the tokens.
        lengths: for each token, the longest length in the batch when it was read (dynamic scaling goes by that); by
            default all are read at once, alone.
    """
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    names, heads, dim, length = Names(config), config["num_attention_heads"], head_dim(config), len(ids)
    kv_heads = config.get("num_key_value_heads") or heads
    eps = config["layer_norm_epsilon" if "layer_norm_epsilon" in config else "rms_norm_eps"]
    baichuan = config["architectures"][0].lower().startswith("baichuan")
    alibi = baichuan and "max_position_embeddings" not in config
    head = w.get("lm_head.weight", w[f"{names.embedding}.weight"])
    if baichuan and (config["vocab_size"] == 125696 or "z_loss_weight" in config):
        head = head / np.linalg.norm(head, axis=1, keepdims=True)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w[f"{name}.weight"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)

    turns = [frequencies(config, longest) for longest in ([length] * length if lengths is None else lengths)]
    angles = np.arange(length)[:, None, None] * np.array(turns)[:, None] * (not alibi)

    def rotate(x: np.ndarray) -> np.ndarray:
        # The pair (i, i + dim / 2) as a complex number.
        z = (x[..., : dim // 2] + 1j * x[..., dim // 2 :]) * np.exp(1j * angles)
        return np.concatenate([z.real, z.imag], -1)

    x = w[f"{names.embedding}.weight"][list(ids)]
    behind = np.arange(length)[:, None] - np.arange(length)
    for layer in range(config["num_hidden_layers"]):
        prefix = names.layer.format(layer)
        inner = norm(x, f"{prefix}{names.norms[0]}")
        stacked = np.concatenate([linear(inner, f"{prefix}{name}") for name in names.qkv], -1)
        stacked = stacked.reshape(length, heads + 2 * kv_heads, dim)
        q, k, v = np.split(stacked, [heads, heads + kv_heads], axis=1)
        if f"{prefix}self_attn.q_norm.weight" in w:
            q, k = norm(q, f"{prefix}self_attn.q_norm"), norm(k, f"{prefix}self_attn.k_norm")
        k, v = (np.repeat(part, heads // kv_heads, axis=1) for part in (rotate(k), v))
        scores = np.einsum("qhd,khd->hqk", rotate(q), k) / np.sqrt(dim)
        if alibi:
            scores -= np.array(slopes(heads))[:, None, None] * behind
        scores[:, (behind < 0) | (behind >= window(config, layer))] = -np.inf
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), v)
        x = x + linear(mixed.reshape(length, -1), f"{prefix}{names.out}")
        inner = norm(x, f"{prefix}{names.norms[1]}")
        gate = linear(inner, f"{prefix}{names.gate}")
        gated = gate / (1 + np.exp(-gate)) * linear(inner, f"{prefix}{names.up}")
        x = x + linear(gated, f"{prefix}{names.down}")
    return norm(x, names.norm) @ head.T


def token_losses(weights: Mapping[str, np.ndarray], config: Mapping[str, Any], ids: list[int]) -> np.ndarray:
    """float64 (len(ids) - 1,): cross entropy of each next token."""
    values = logits(weights, config, ids)[:-1]
    values = values - values.max(-1, keepdims=True)
    return np.log(np.exp(values).sum(-1)) - values[np.arange(len(ids) - 1), ids[1:]]
