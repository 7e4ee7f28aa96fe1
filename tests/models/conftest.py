"""Model folders to load and to export."""

from __future__ import annotations

from pathlib import Path

import decoders
import numpy as np
import pytest
from exports import QKV, write_adapter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    decoders.write(tmp_path / "model", decoders.config_of())
    return tmp_path / "model"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """LLaMA in bfloat16, with rotary frequencies as old files have them."""
    config = decoders.config_of("LlamaForCausalLM", torch_dtype="bfloat16")
    decoders.write(tmp_path / "base", config)
    weights = decoders.random_weights(config)
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
    (tmp_path / "base" / "model.safetensors").write_bytes(decoders.serialize(weights, "bfloat16"))
    return tmp_path / "base"


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    write_adapter(tmp_path / "adapter", decoders.config_of("LlamaForCausalLM"), QKV)
    return tmp_path / "adapter"
