"""Qwen2 and Qwen2.5: LLaMA with biases on q, k and v."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families.base import Family, common_fields, windows
from ms_medqa.models.families.values import flag, whole


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Qwen2; small ones tie the embedding to the head, which their files say."""
    fields = common_fields(plain_length(raw))
    return ModelConfig("qwen2", attention_bias=True, windows=upper_windows(raw), **fields)


def upper_windows(raw: Mapping[str, Any]) -> tuple[int, ...]:
    """Windows only under `use_sliding_window`, and in the layers from `max_window_layers` up."""
    if not flag(raw, "use_sliding_window"):
        return windows({**raw, "sliding_window": None})
    raw = {"sliding_window": 4096, **raw}
    return windows(raw, 0 if raw.get("max_window_layers") == 0 else whole(raw, "max_window_layers", 28))


def plain_length(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    """The file with the positions that plain attention serves.

    Releases for a million tokens cut longer sequences into chunks (`dual_chunk_attention_config`), which is left out
    here; within the first chunk it does nothing.
    """
    chunks = raw.get("dual_chunk_attention_config")
    if chunks is None:
        return raw
    if not isinstance(chunks, Mapping):
        raise UserError(f"dual_chunk_attention_config = {chunks!r} must be an object")
    size = whole(chunks, "chunk_size")
    length = min(size, whole(chunks, "original_max_position_embeddings", size))
    return {**raw, "max_position_embeddings": min(length, whole(raw, "max_position_embeddings"))}


FAMILY = Family("qwen2", ("Qwen2ForCausalLM",), read_config)
