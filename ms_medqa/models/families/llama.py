"""LLaMA, and the reading that families built on it share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.models.config import ModelConfig


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """LLaMA 1 to 3 without rope scaling."""
    return ModelConfig(
        family="llama",
        attention_bias=bool(raw.get("attention_bias", False)),
        output_bias=bool(raw.get("attention_bias", False)),
        mlp_bias=bool(raw.get("mlp_bias", False)),
        **shared_fields(raw),
    )


def shared_fields(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Fields that LLaMA's descendants spell the same (transformers 4 and 5 differ in the rotary base)."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise UserError(f"rope scaling {rope!r} must be an object")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise UserError(f"rope scaling {kind!r} is not supported", "supported: default")
    if raw.get("hidden_act", "silu") != "silu":
        raise UserError(f"hidden_act {raw['hidden_act']!r} is not supported", "supported: silu")
    heads = raw["num_attention_heads"]
    return {
        "vocab_size": raw["vocab_size"],
        "hidden_size": raw["hidden_size"],
        "intermediate_size": raw["intermediate_size"],
        "num_hidden_layers": raw["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": raw.get("num_key_value_heads") or heads,
        "head_dim": raw.get("head_dim") or raw["hidden_size"] // heads,
        "max_position_embeddings": raw["max_position_embeddings"],
        "rms_norm_eps": raw.get("rms_norm_eps") or 1e-6,
        "rope_theta": float(raw.get("rope_theta") or rope.get("rope_theta") or 10000.0),
        "tie_word_embeddings": bool(raw.get("tie_word_embeddings", False)),
        "initializer_range": raw.get("initializer_range") or 0.02,
    }
