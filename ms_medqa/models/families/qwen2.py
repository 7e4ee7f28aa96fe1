"""Qwen2 and Qwen2.5: LLaMA with biases on q, k and v."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families.base import Family, common_fields, whole, windows


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Qwen2; small ones tie the embedding to the head, which their files say."""
    return ModelConfig("qwen2", attention_bias=True, windows=upper_windows(raw), **common_fields(raw))


def upper_windows(raw: Mapping[str, Any]) -> tuple[int, ...]:
    """Windows only under `use_sliding_window`, and in the layers from `max_window_layers` up."""
    if not raw.get("use_sliding_window"):
        return ()
    raw = {"sliding_window": 4096, **raw}
    return windows(raw, 0 if raw.get("max_window_layers") == 0 else whole(raw, "max_window_layers", 28))


FAMILY = Family("qwen2", ("Qwen2ForCausalLM",), read_config)
