"""Mistral: LLaMA whose layers see a sliding window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families.base import Family, common_fields, windows


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Mistral; `sliding_window: null`, as from version 0.2 on, sees everything."""
    # What transformers takes where a file leaves them out.
    raw = {"num_key_value_heads": 8, "sliding_window": 4096, **raw}
    fields = common_fields(raw)
    sizes = windows(raw)
    # Transformers gives every layer the window, whatever `layer_types` says.
    if sizes != windows({**raw, "layer_types": None}):
        raise UserError(
            f"layer_types contradicts sliding_window = {raw['sliding_window']}: Mistral has one window for all layers",
            "name only sliding_attention, or leave it out",
        )
    return ModelConfig("mistral", windows=sizes, **fields)


FAMILY = Family("mistral", ("MistralForCausalLM",), read_config)
