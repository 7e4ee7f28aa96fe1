"""LLaMA 1 to 3, and what kept its architecture: DeepSeek-LLM, DeepSeek-Coder, Ziya, MedicalGPT, Yi, …"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families.base import Family, common_fields
from ms_medqa.models.families.values import flag


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """LLaMA; `attention_bias` also gives the attention output a bias."""
    if "max_sequence_length" in raw:
        # The only name of it in the first conversions of LLaMA 1.
        raw = {"max_position_embeddings": raw["max_sequence_length"], **raw}
    bias, mlp_bias = flag(raw, "attention_bias"), flag(raw, "mlp_bias")
    return ModelConfig("llama", attention_bias=bias, output_bias=bias, mlp_bias=mlp_bias, **common_fields(raw))


FAMILY = Family("llama", ("LlamaForCausalLM", "LLaMAForCausalLM"), read_config)
