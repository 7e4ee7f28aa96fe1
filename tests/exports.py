"""Adapters to merge, and what is in an exported folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import safetensors.numpy

from ms_medqa.models.safetensors import SafetensorsFile

QKV = [f"model.layers.{layer}.self_attn.{name}_proj" for layer in range(2) for name in "qv"]


def write_adapter(
    folder: Path, config: dict[str, Any], modules: list[str], scale: float = 0.3, **options: Any
) -> dict[str, np.ndarray]:
    """A LoRA adapter with alpha = 2 r; returns what it adds to each tensor, float64."""
    shapes, rng = decoders.tensor_shapes(config), np.random.default_rng(1)
    tensors, added = {}, {}
    for path in modules:
        out, width = shapes[f"{path}.weight"]
        a, b = (rng.normal(0, scale, shape).astype(np.float32) for shape in ((4, width), (out, 4)))
        tensors |= {f"base_model.model.{path}.lora_A.weight": a, f"base_model.model.{path}.lora_B.weight": b}
        added[f"{path}.weight"] = 2.0 * b.astype(np.float64) @ a.astype(np.float64)
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": modules, **options}
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return added


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def tensors_of(folder: Path) -> dict[str, tuple[str, bytes]]:
    """(stored type, raw bytes) of every tensor in a folder."""
    files = [SafetensorsFile(path) for path in folder.glob("*.safetensors")]
    return {key: (file.dtype(key), bytes(file.raw(key))) for file in files for key in file.keys()}  # noqa: SIM118
