"""Recomputed layers: the same losses and the same update, to the bit, and less memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trainable
import windows
from mindspore import nn

from ms_medqa.backend.device import execution_mode
from ms_medqa.config.assets import MEDQA_MINI
from ms_medqa.data.dataset import BatchPlan
from ms_medqa.peft import add_embedding_noise, inject_lora
from ms_medqa.training.recompute import recomputed_layers

pytestmark = pytest.mark.usefixtures("graph_mode")

LAYERS = 2
# Layers that are recomputed, and the model.
SHAPES: dict[str, tuple[int, dict[str, Any]]] = {
    "adapters in one layer, a head and noise": (
        LAYERS,
        {"layers_to_transform": [1], "modules_to_save": ["lm_head"], "noise": True},
    ),
    "all weights, tied": (1, {"tie_word_embeddings": True, "all": True}),
    "all weights, a head of its own": (LAYERS, {"tie_word_embeddings": False, "all": True}),
}


def states(folder: Path, recomputed: int, accumulation: int = 1, **shape: Any) -> list[dict[str, np.ndarray]]:
    """Weights, moments and outputs after each of three steps."""
    shape = dict(shape)
    whole, noise = shape.pop("all", False), shape.pop("noise", False)
    tied = shape.pop("tie_word_embeddings", False)
    dtype = shape.pop("dtype", "float32")
    model = windows.new_model(folder, dtype, num_hidden_layers=LAYERS, tie_word_embeddings=tied)
    keys = [] if whole else [inject_lora(model, 4, 16.0, "all-linear", dropout=0.3, seed=1, **shape)]
    if noise:
        keys.append(add_embedding_noise(model, 5.0, windows.LENGTH))
    scale = nn.DynamicLossScaleUpdateCell(1024.0, 2, 1000) if dtype == "float16" else None
    step = windows.new_step(model, accumulation, scale=scale, recomputed=recomputed)
    plan = BatchPlan(windows.make_rows(24), 4, accumulation, 1, seed=5)
    found = []
    for number in range(3):
        for key in keys:
            key.renew(7, number, 0)
        outputs = windows.feed(step, plan, number)
        found.append(windows.state_of(step, model) | {"outputs": np.array(outputs)})
    return found


def assert_equal(found: list[dict[str, np.ndarray]], expected: list[dict[str, np.ndarray]]) -> None:
    assert not np.array_equal(found[0]["outputs"], found[1]["outputs"])
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        for name in one:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_the_update_is_the_same_to_the_bit(tmp_path: Path, shape: str) -> None:
    """Adapters drop the same inputs both times: their masks are functions of a key."""
    recomputed, changes = SHAPES[shape]
    plain = states(tmp_path / "model", 0, **changes)
    assert_equal(states(tmp_path / "model", recomputed, **changes), plain)


@pytest.mark.slow
def test_so_is_that_of_several_micro_batches_in_float16(tmp_path: Path) -> None:
    plain = states(tmp_path / "model", 0, 2, dtype="float16")
    assert_equal(states(tmp_path / "model", 1, 2, dtype="float16"), plain)


def test_it_works_without_compilation(tmp_path: Path) -> None:
    with execution_mode("pynative"):
        plain = states(tmp_path / "model", 0)
        assert_equal(states(tmp_path / "model", 1), plain)


def test_the_wish_is_all_layers_or_the_first_ones() -> None:
    assert [recomputed_layers(wish, 24) for wish in (False, True, 0, 1, 12, 99)] == [0, 24, 0, 1, 12, 24]


@pytest.mark.slow
def test_a_run_takes_less_memory_and_ends_with_the_same_adapter(tmp_path: Path) -> None:
    peaks = []
    for recompute in (False, True):
        output = tmp_path / str(recompute)
        # Wide enough that what layers keep is a large part of the process.
        config = trainable.write_config(
            output,
            model={"path": "medqa-tiny"},
            data={"path": str(tmp_path / "data"), "max_length": 256, "packing": True},
            train={"batch_size": 24, "gradient_accumulation_steps": 1, "max_steps": 2, "recompute": recompute},
        )
        if not (tmp_path / "data").exists():
            records = tmp_path / "records.jsonl"
            records.write_text("".join(MEDQA_MINI.read_text(encoding="utf-8").splitlines(True)[:600]), encoding="utf-8")
            command = ["convert", str(records), "--output", str(tmp_path / "data"), "--model", "medqa-tiny"]
            call(*command, "data.max_length=256")
        call("train", str(config))
        lines = (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        peaks.append(max(json.loads(line).get("peak_memory", 0) for line in lines))
    one, other = (
        trainable.tensors(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("False", "True")
    )
    assert all(np.array_equal(one[name], other[name]) for name in one)
    assert peaks[1] < 0.8 * peaks[0]


def call(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "ms_medqa.cli.main", *arguments], check=True, capture_output=True)
