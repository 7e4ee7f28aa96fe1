"""Qwen, the first: names of its own, q, k and v fused into `c_attn`, and an MLP whose gate is called `w2`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.families.base import Family, common_fields
from ms_medqa.models.families.values import flag, only, whole

_KEYS = {
    "head_dim": "kv_channels",
    "rms_norm_eps": "layer_norm_epsilon",
    "rope_theta": "rotary_emb_base",
    # The first release of Qwen-7B.
    "hidden_size": "n_embd",
    "intermediate_size": "ffn_hidden_size",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
    "max_position_embeddings": "n_positions",
}


def read_config(raw: Mapping[str, Any]) -> ModelConfig:
    """Qwen.

    `intermediate_size` counts both halves of the gated MLP. Sequences end at `seq_length`, the length of its training:
    the dynamic NTK and the log-n scaling that Qwen turns on beyond it are left out, and below it they do nothing.
    """
    only(raw, "rotary_pct", (1.0,))
    only(raw, "scale_attn_weights", (True,))
    only(raw, "apply_residual_connection_post_layernorm", (False,))
    raw = {**raw, **{ours: raw[theirs] for ours, theirs in _KEYS.items() if theirs in raw}}
    both = whole(raw, "intermediate_size")
    if both % 2:
        raise UserError(f"intermediate_size = {both} must be even: it counts gate and up together")
    length = whole(raw, "seq_length", whole(raw, "max_position_embeddings", 8192))
    fields = {"intermediate_size": both // 2, "max_position_embeddings": length, "num_key_value_heads": None}
    bias = not flag(raw, "no_bias", True)
    return ModelConfig("qwen", attention_bias=True, output_bias=bias, mlp_bias=bias, **common_fields({**raw, **fields}))


_OURS, _THEIRS = "model.layers.{}.", "transformer.h.{}."
FAMILY = Family(
    "qwen",
    ("QWenLMHeadModel",),
    read_config,
    renamed={
        "model.embed_tokens": "transformer.wte",
        "model.norm": "transformer.ln_f",
        f"{_OURS}input_layernorm": f"{_THEIRS}ln_1",
        f"{_OURS}post_attention_layernorm": f"{_THEIRS}ln_2",
        f"{_OURS}self_attn.o_proj": f"{_THEIRS}attn.c_proj",
        f"{_OURS}mlp.up_proj": f"{_THEIRS}mlp.w1",
        f"{_OURS}mlp.gate_proj": f"{_THEIRS}mlp.w2",
        f"{_OURS}mlp.down_proj": f"{_THEIRS}mlp.c_proj",
    },
    fused={
        f"{_THEIRS}attn.c_attn": tuple(f"{_OURS}self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj")),
    },
    remote_code=True,
)
