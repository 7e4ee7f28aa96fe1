"""Qwen2 and Qwen2.5: LLaMA with biases on q, k and v."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families.llama import shared_fields


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Qwen2 without sliding windows, which no released Qwen2 checkpoint turns on."""
    if raw.get("use_sliding_window"):
        raise UserError("use_sliding_window: true is not supported")
    return ModelConfig(family="qwen2", attention_bias=True, **shared_fields(raw))
