"""Qwen3 (dense): queries and keys are normed head by head, and head_dim stands on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families.base import Family, common_fields, flag
from ms_medqa.models.families.qwen2 import plain_length, upper_windows


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Qwen3; without `head_dim` it is 128, whatever the hidden size."""
    raw = {"head_dim": 128, **raw}
    bias = flag(raw, "attention_bias")
    return ModelConfig(
        "qwen3",
        qk_norm=True,
        attention_bias=bias,
        output_bias=bias,
        windows=upper_windows(raw),
        **common_fields(plain_length(raw)),
    )


FAMILY = Family("qwen3", ("Qwen3ForCausalLM",), read_config)
