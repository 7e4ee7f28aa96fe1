"""Mistral: LLaMA whose layers see a sliding window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families.base import Family, common_fields, windows


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Mistral; `sliding_window: null`, as from version 0.2 on, sees everything."""
    # What transformers takes where a file leaves them out.
    raw = {"num_key_value_heads": 8, "sliding_window": 4096, **raw}
    return ModelConfig("mistral", windows=windows(raw), **common_fields(raw))


FAMILY = Family("mistral", ("MistralForCausalLM",), read_config)
