"""Qwen3 (dense): queries and keys are normed head by head, and head_dim stands on its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families.base import Family, common_fields
from ms_medqa.models.families.qwen2 import plain_length, upper_windows
from ms_medqa.models.families.values import flag


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Qwen3; without `head_dim` it is 128, whatever the hidden size."""
    raw = {"head_dim": 128, **raw}
    bias = flag(raw, "attention_bias")
    fields = common_fields(plain_length(raw))
    return ModelConfig(
        "qwen3", qk_norm=True, attention_bias=bias, output_bias=bias, windows=upper_windows(raw), **fields
    )


FAMILY = Family("qwen3", ("Qwen3ForCausalLM",), read_config)
