"""A small random model in Hugging Face layout, made once for all tests that need one."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

END = "<|endoftext|>"
TEXT = (
    "高血压患者的饮食注意事项有哪些？低盐低脂，多吃蔬菜水果，规律运动，按医嘱服药。",
    "糖尿病患者可以吃水果吗？可以，但要控制量，优先选择升糖指数低的水果。",
    "基于以下医学知识回答问题:\n知识:有机磷中毒用阿托品解毒\n问题:有机磷中毒用什么药解毒？\n回答:阿托品。",
    "回答医学问题:感冒了怎么办？\n回答:多休息，多喝水。",
    "What is the normal body temperature? About 36.5 degrees.",
)


@functools.cache
def folder() -> Path:
    """A model folder: Qwen2 architecture, 2 layers, byte-level BPE, 256 positions. Do not write into it."""
    path = Path(tempfile.mkdtemp(prefix="tiny-model-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    write_tokenizer(path)
    write_model(path)
    return path


def write_tokenizer(path: Path) -> None:
    """Train a tokenizer of 400 tokens, so few that most characters take several of them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}), encoding="utf-8")


def write_model(path: Path, hidden_size: int = 64, seed: int = 0) -> None:
    """Write config.json and random weights, wide enough apart that no two logits tie."""
    from safetensors.numpy import save_file

    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": 400,
        "hidden_size": hidden_size,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "eos_token_id": 0,
    }
    (path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    rng = np.random.default_rng(seed)
    width, kv_width = hidden_size, hidden_size // 2
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (400, hidden_size),
        "model.norm.weight": (hidden_size,),
        "lm_head.weight": (400, hidden_size),
    }
    for layer in range(2):
        prefix = f"model.layers.{layer}."
        shapes |= {
            f"{prefix}self_attn.q_proj.weight": (width, hidden_size),
            f"{prefix}self_attn.q_proj.bias": (width,),
            f"{prefix}self_attn.k_proj.weight": (kv_width, hidden_size),
            f"{prefix}self_attn.k_proj.bias": (kv_width,),
            f"{prefix}self_attn.v_proj.weight": (kv_width, hidden_size),
            f"{prefix}self_attn.v_proj.bias": (kv_width,),
            f"{prefix}self_attn.o_proj.weight": (hidden_size, width),
            f"{prefix}mlp.gate_proj.weight": (96, hidden_size),
            f"{prefix}mlp.up_proj.weight": (96, hidden_size),
            f"{prefix}mlp.down_proj.weight": (hidden_size, 96),
            f"{prefix}input_layernorm.weight": (hidden_size,),
            f"{prefix}post_attention_layernorm.weight": (hidden_size,),
        }
    weights = {name: rng.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
    weights |= {name: 1 + 0.1 * value for name, value in weights.items() if "norm" in name}
    save_file(weights, str(path / "model.safetensors"), metadata={"format": "pt"})


def write_adapter(path: Path, seed: int = 1, scale: float = 0.3) -> Path:
    """Write a LoRA adapter for q_proj and v_proj of `folder()`, large enough to change answers."""
    from safetensors.numpy import save_file

    path.mkdir(parents=True, exist_ok=True)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": 4,
        "lora_alpha": 8,
        "lora_dropout": 0.0,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
    }
    (path / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    rng = np.random.default_rng(seed)
    tensors = {}
    for layer in range(2):
        for name, out in (("q_proj", 64), ("v_proj", 32)):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}.lora_"
            tensors[f"{prefix}A.weight"] = rng.normal(0, scale, (4, 64)).astype(np.float32)
            tensors[f"{prefix}B.weight"] = rng.normal(0, scale, (out, 4)).astype(np.float32)
    save_file(tensors, str(path / "adapter_model.safetensors"), metadata={"format": "pt"})
    return path


@functools.cache
def model() -> Any:
    """The model of `folder()`, a CausalLM, loaded once. Do not change its weights."""
    from ms_medqa.backend.device import setup

    setup("CPU", mode="pynative")
    from ms_medqa.generation import load_model

    return load_model(folder())


@functools.cache
def qa() -> Any:
    """`MedicalQA` over `model()`."""
    from ms_medqa.generation import MedicalQA

    return MedicalQA(model())
