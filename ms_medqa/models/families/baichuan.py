"""Baichuan and Baichuan2: LLaMA with q, k and v fused into `W_pack`; ALiBi in 13B, a normalized head in Baichuan2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families.base import Family, common_fields
from ms_medqa.models.families.values import only, whole

BAICHUAN2_VOCABULARY = 125696


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Baichuan.

    No key says which kind of positions a model has. The 7B models (rotary) name `max_position_embeddings`; those of 13B
    (ALiBi) know only `model_max_length`. Baichuan2 is told by its vocabulary, or by its key `z_loss_weight`.
    """
    only(raw, "tie_word_embeddings", (False,))
    rotary = "max_position_embeddings" in raw
    length = raw["max_position_embeddings"] if rotary else whole(raw, "model_max_length", 4096)
    second = raw.get("vocab_size") == BAICHUAN2_VOCABULARY or "z_loss_weight" in raw
    return ModelConfig(
        "baichuan",
        positions="rope" if rotary else "alibi",
        normalized_head=second,
        **common_fields({**raw, "max_position_embeddings": length}),
    )


_LAYER = "model.layers.{}.self_attn."
FAMILY = Family(
    "baichuan",
    # Baichuan-7B writes a capital C.
    ("BaichuanForCausalLM", "BaiChuanForCausalLM"),
    read_config,
    fused={f"{_LAYER}W_pack": (f"{_LAYER}q_proj", f"{_LAYER}k_proj", f"{_LAYER}v_proj")},
    remote_code=True,
)
