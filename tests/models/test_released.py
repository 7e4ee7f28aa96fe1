"""The `config.json` of models that people have: what each means, and how many parameters its decoder comes to."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from ms_medqa.backend.device import setup
from ms_medqa.config import UserError
from ms_medqa.models.config import ModelConfig, RopeScaling
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.families import read_config

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "pretraining_tp": 1,
    "rms_norm_eps": 1e-5,
    "rope_scaling": None,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 32000,
}
LLAMA_1 = {
    key: value
    for key, value in LLAMA.items()
    if key not in ("max_position_embeddings", "pretraining_tp", "rope_scaling")
} | {"max_sequence_length": 2048, "pad_token_id": -1, "rms_norm_eps": 1e-6, "torch_dtype": "float16"}
LLAMA_3 = LLAMA | {
    "attention_bias": False,
    "eos_token_id": [128001, 128008, 128009],
    "intermediate_size": 14336,
    "max_position_embeddings": 131072,
    "mlp_bias": False,
    "num_key_value_heads": 8,
    "rope_scaling": {
        "factor": 8.0,
        "high_freq_factor": 4.0,
        "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "rope_type": "llama3",
    },
    "rope_theta": 500000.0,
    "vocab_size": 128256,
}
DEEPSEEK = LLAMA | {"eos_token_id": 100001, "num_hidden_layers": 30, "rms_norm_eps": 1e-6, "vocab_size": 102400}
CODER = LLAMA | {
    "eos_token_id": 32014,
    "hidden_size": 2048,
    "intermediate_size": 5504,
    "max_position_embeddings": 16384,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "num_key_value_heads": 16,
    "rms_norm_eps": 1e-6,
    "rope_scaling": {"factor": 4.0, "type": "linear"},
    "rope_theta": 100000,
    "vocab_size": 32256,
}
MISTRAL = LLAMA | {
    "architectures": ["MistralForCausalLM"],
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_key_value_heads": 8,
    "rope_theta": 10000.0,
    "sliding_window": 4096,
}
QWEN2 = {
    "architectures": ["Qwen2ForCausalLM"],
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
    "vocab_size": 152064,
}
QWEN3 = QWEN2 | {
    "architectures": ["Qwen3ForCausalLM"],
    "attention_bias": False,
    "head_dim": 128,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "rope_scaling": None,
    "sliding_window": None,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
QWEN = {
    "architectures": ["QWenLMHeadModel"],
    "bf16": False,
    "hidden_size": 4096,
    "intermediate_size": 22016,
    "kv_channels": 128,
    "layer_norm_epsilon": 1e-6,
    "max_position_embeddings": 32768,
    "no_bias": True,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "scale_attn_weights": True,
    "seq_length": 8192,
    "tie_word_embeddings": False,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "vocab_size": 151936,
}
FIRST_QWEN = {
    "apply_residual_connection_post_layernorm": False,
    "architectures": ["QWenLMHeadModel"],
    "eos_token_id": 151643,
    "ffn_hidden_size": 22016,
    "kv_channels": 128,
    "layer_norm_epsilon": 1e-6,
    "n_embd": 4096,
    "n_head": 32,
    "n_layer": 32,
    "n_positions": 8192,
    "no_bias": True,
    "padded_vocab_size": 151936,
    "params_dtype": "torch.bfloat16",
    "pos_emb": "rotary",
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "scale_attn_weights": True,
    "seq_length": 2048,
    "tie_word_embeddings": False,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "vocab_size": 151936,
}
BAICHUAN = {
    "architectures": ["BaiChuanForCausalLM"],
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "max_position_embeddings": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "vocab_size": 64000,
}
BAICHUAN_13B = {key: value for key, value in BAICHUAN.items() if key != "max_position_embeddings"} | {
    "architectures": ["BaichuanForCausalLM"],
    "gradient_checkpointing": [False],
    "hidden_size": 5120,
    "intermediate_size": 13696,
    "model_max_length": 4096,
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "torch_dtype": "bfloat16",
}
SECOND = {"architectures": ["BaichuanForCausalLM"], "vocab_size": 125696, "z_loss_weight": 0}

# config.json, its parameters as its publisher's files count them, and what else must come out of it.
RELEASED: dict[str, tuple[dict[str, Any], int, dict[str, Any]]] = {
    "LLaMA 7B, an early conversion": (
        LLAMA_1 | {"architectures": ["LLaMAForCausalLM"]},
        6738415616,
        {"position_limit": 2048, "rms_norm_eps": 1e-6, "dtype": "float16", "rope_theta": 10000.0},
    ),
    "Ziya-LLaMA 13B, as MedicalGPT": (
        LLAMA_1
        | {"hidden_size": 5120, "intermediate_size": 13824, "max_position_embeddings": 2048, "vocab_size": 39424}
        | {"num_attention_heads": 40, "num_hidden_layers": 40},
        13091886080,
        {"position_limit": 2048, "num_key_value_heads": 40},
    ),
    "Llama 2 7B": (LLAMA | {"num_key_value_heads": 32}, 6738415616, {"position_limit": 4096, "rms_norm_eps": 1e-5}),
    "Llama 3.1 8B Instruct": (
        LLAMA_3,
        8030261248,
        {
            "position_limit": 131072,
            "eos_token_ids": (128001, 128008, 128009),
            "rope_theta": 500000.0,
            "rope_scaling": RopeScaling("llama3", 8.0, 8192, 1.0, 4.0),
        },
    ),
    "Llama 3.2 1B": (
        LLAMA_3
        | {"head_dim": 64, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
        | {"tie_word_embeddings": True},
        1235814400,
        {"tie_word_embeddings": True, "head_dim": 64},
    ),
    "Llama 3.2 1B, as transformers 5 writes it": (
        {key: value for key, value in LLAMA_3.items() if key not in ("rope_scaling", "rope_theta", "torch_dtype")}
        | {"head_dim": 64, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
        | {"dtype": "bfloat16", "rope_parameters": {**LLAMA_3["rope_scaling"], "factor": 32.0, "rope_theta": 500000.0}}
        | {"tie_word_embeddings": True},
        1235814400,
        {"rope_theta": 500000.0, "rope_scaling": RopeScaling("llama3", 32.0, 8192, 1.0, 4.0), "dtype": "bfloat16"},
    ),
    "Yi 6B": (LLAMA | {"num_key_value_heads": 4, "rope_theta": 5e6, "vocab_size": 64000}, 6061035520, {}),
    "DeepSeek-LLM 7B": (DEEPSEEK, 6910365696, {"position_limit": 4096, "eos_token_ids": (100001,)}),
    "DeepSeek-Coder 1.3B": (
        CODER,
        1346471936,
        {"position_limit": 65536, "rope_theta": 100000.0, "rope_scaling": RopeScaling("linear", 4.0, 16384)},
    ),
    "Mistral 7B 0.1": (MISTRAL, 7241732096, {"windows": (4096,) * 32, "position_limit": 32768}),
    "Mistral 7B 0.3": (
        MISTRAL | {"rope_theta": 1e6, "sliding_window": None, "vocab_size": 32768},
        7248023552,
        {"windows": (), "rope_theta": 1e6},
    ),
    "Mistral Nemo": (
        MISTRAL
        | {"head_dim": 128, "hidden_size": 5120, "max_position_embeddings": 131072, "num_hidden_layers": 40}
        | {"rope_theta": 1e6, "sliding_window": None, "vocab_size": 131072},
        12247782400,
        {"head_dim": 128, "windows": ()},
    ),
    "Qwen1.5 0.5B": (
        QWEN2
        | {"hidden_size": 1024, "intermediate_size": 2816, "max_window_layers": 21, "num_attention_heads": 16}
        | {"num_hidden_layers": 24, "num_key_value_heads": 16, "tie_word_embeddings": True, "vocab_size": 151936},
        463987712,
        {"attention_bias": True, "output_bias": False, "windows": (), "tie_word_embeddings": True},
    ),
    "Qwen2.5 7B Instruct": (QWEN2, 7615616512, {"windows": (), "position_limit": 32768, "eos_token_ids": (151645,)}),
    "Qwen2.5 7B Instruct 1M": (
        QWEN2
        | {"max_position_embeddings": 1010000, "rope_theta": 1e7, "sliding_window": 1010000}
        | {
            "dual_chunk_attention_config": {
                "chunk_size": 262144,
                "local_size": 8192,
                "original_max_position_embeddings": 262144,
            }
        },
        7615616512,
        {"position_limit": 262144, "rope_theta": 1e7},
    ),
    "Qwen3 0.6B": (
        QWEN3,
        596049920,
        {"qk_norm": True, "attention_bias": False, "position_limit": 40960, "head_dim": 128},
    ),
    "Qwen3 8B": (
        QWEN3
        | {"hidden_size": 4096, "intermediate_size": 12288, "max_window_layers": 36, "num_attention_heads": 32}
        | {"num_hidden_layers": 36, "tie_word_embeddings": False},
        8190735360,
        {"windows": (), "tie_word_embeddings": False},
    ),
    "Qwen3 8B, as transformers 5 writes it": (
        {key: value for key, value in QWEN3.items() if key not in ("rope_scaling", "rope_theta", "torch_dtype")}
        | {"hidden_size": 4096, "intermediate_size": 12288, "max_window_layers": 36, "num_attention_heads": 32}
        | {"dtype": "bfloat16", "layer_types": ["full_attention"] * 36, "num_hidden_layers": 36}
        | {"rope_parameters": {"rope_theta": 1000000, "rope_type": "default"}, "tie_word_embeddings": False},
        8190735360,
        {"windows": (), "rope_theta": 1e6, "rope_scaling": RopeScaling(), "dtype": "bfloat16"},
    ),
    "Qwen 7B Chat": (
        QWEN,
        7721324544,
        {"position_limit": 8192, "attention_bias": True, "output_bias": False, "rms_norm_eps": 1e-6},
    ),
    "Qwen 7B, first release": (FIRST_QWEN, 7721324544, {"position_limit": 2048, "eos_token_ids": (151643,)}),
    "Qwen 14B": (
        QWEN
        | {"hidden_size": 5120, "intermediate_size": 27392, "max_position_embeddings": 8192, "seq_length": 2048}
        | {"num_attention_heads": 40, "num_hidden_layers": 40, "vocab_size": 152064},
        14167290880,
        {"position_limit": 2048},
    ),
    "Baichuan 7B": (BAICHUAN, 7000559616, {"positions": "rope", "normalized_head": False, "position_limit": 4096}),
    "Baichuan 13B": (
        BAICHUAN_13B,
        13264901120,
        {"positions": "alibi", "normalized_head": False, "position_limit": 4096, "dtype": "bfloat16"},
    ),
    "Baichuan2 7B": (
        BAICHUAN | SECOND | {"model_max_length": 4096},
        7505973248,
        {"positions": "rope", "normalized_head": True},
    ),
    "Baichuan2 13B Chat": (BAICHUAN_13B | SECOND, 13896668160, {"positions": "alibi", "normalized_head": True}),
}


def count(config: ModelConfig) -> int:
    return sum(math.prod(parameter.shape) for parameter in CausalLM(config).get_parameters())


@pytest.mark.parametrize("name", RELEASED)
def test_a_released_model(name: str) -> None:
    setup("CPU", mode="pynative")
    raw, parameters, expected = RELEASED[name]
    config = read_config(raw, name)
    assert {key: getattr(config, key) for key in expected} == expected
    # One layer and two layers tell how many parameters all have.
    one, two = (count(replace(config, num_hidden_layers=layers, windows=())) for layers in (1, 2))
    assert one + (config.num_hidden_layers - 1) * (two - one) == parameters


def test_yarn_as_the_cards_of_qwen_advise_is_refused() -> None:
    scaling = {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"}
    with pytest.raises(UserError, match=r"Qwen/config\.json: rope scaling 'yarn' is not supported.*llama3"):
        read_config(QWEN2 | {"rope_scaling": scaling}, "Qwen/config.json")
