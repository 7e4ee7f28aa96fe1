"""The estimate of a run's peak memory: what it counts, what it grows with, and that a run prints it and the peak."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import decoders
import pytest
import trainable

from ms_medqa.config.schema import Config
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.families import read_config
from ms_medqa.peft import count_parameters
from ms_medqa.training.build import add_adapter
from ms_medqa.training.memory import MemoryEstimate, estimate_memory

pytestmark = pytest.mark.usefixtures("graph_mode")

SHAPE = decoders.config_of(vocab_size=1000, hidden_size=64, intermediate_size=160, num_hidden_layers=3)


def estimate(
    device: str = "CPU", dtype: str = "float32", labels: int | None = None, **sections: Any
) -> tuple[MemoryEstimate, tuple[int, int]]:
    """(the estimate, (trainable, total) parameters) of a small model; rows of 32 tokens, LoRA, unless told."""
    defaults: dict[str, Any] = {
        "data": {"max_length": 32},
        "lora": {"target_modules": ["q_proj", "v_proj"], "dropout": 0.1},
        "train": {"batch_size": 2, "gradient_accumulation_steps": 1},
    }
    for name, values in sections.items():
        defaults[name] = values if values is None else defaults.get(name, {}) | values
    config = Config.model_validate(defaults)
    shape: ModelConfig = read_config(SHAPE, "config.json")
    model = CausalLM(shape)
    add_adapter(model, config)
    return estimate_memory(model, config, device, dtype, labels), count_parameters(model)


def test_weights_and_optimizer_are_counted_to_the_byte() -> None:
    on_cpu, (trained, total) = estimate()
    assert on_cpu.weights == 4 * total
    assert on_cpu.optimizer == 8 * trained
    # Adapters stay in float32.
    on_card, _ = estimate(device="Ascend", dtype="bfloat16")
    assert on_card.weights == 2 * (total - trained) + 4 * trained
    accumulated, _ = estimate(train={"gradient_accumulation_steps": 2})
    assert accumulated.optimizer == 12 * trained
    everything, (trained, total) = estimate(lora=None)
    assert trained == total
    assert (everything.weights, everything.optimizer) == (4 * total, 8 * total)


def test_what_grows_with_batch_length_and_labels() -> None:
    one, _ = estimate()
    rows, _ = estimate(train={"batch_size": 4})
    assert (rows.activations, rows.scores, rows.logits) == (2 * one.activations, 2 * one.scores, 2 * one.logits)
    longer, _ = estimate(data={"max_length": 64})
    assert (longer.activations, longer.scores, longer.logits) == (2 * one.activations, 4 * one.scores, 2 * one.logits)
    assert rows.weights == longer.weights == one.weights
    few, _ = estimate(labels=16)
    assert 4 * few.logits == one.logits
    more, _ = estimate(lora={"target_modules": "all-linear"})
    assert more.activations > one.activations
    half, _ = estimate(device="Ascend", dtype="float16")
    assert half.activations < one.activations
    assert (half.graph, half.tables) == (0, 0)


def test_the_smaller_of_backward_pass_and_update_does_not_count() -> None:
    small, _ = estimate(lora=None, data={"max_length": 16}, train={"batch_size": 1}, labels=1)
    names = [name for name, _ in small.parts()]
    assert "gradients" in names
    assert "activations" not in names
    large, _ = estimate(lora=None, data={"max_length": 512}, train={"batch_size": 8})
    names = [name for name, _ in large.parts()]
    assert "gradients" not in names
    assert large.total == sum(size for _, size in large.parts())
    assert large.total > large.activations + large.scores + large.logits


def test_a_run_says_what_it_will_take_and_what_it_took(tmp_path: Path) -> None:
    config = trainable.write_config(tmp_path / "out", train={"max_steps": 1})
    # In a process of its own, whose peak holds nothing else.
    command = [sys.executable, "-m", "ms_medqa.cli.main", "train", str(config)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    first = re.search(r"^memory +([\d.]+) GB estimated at the peak: process", said, re.MULTILINE)
    last = re.search(r"([\d.]+) GB measured at the peak, ([\d.]+) GB estimated", said)
    assert first is not None
    assert last is not None
    assert first[1] == last[2]
    assert said.index(first[0]) < said.index(last[0])
    # At the size of a real model it is within 15 % (tests/test_real_size.py); here one decimal is an eighth of it.
    assert abs(float(last[1]) - float(last[2])) <= 0.25 * float(last[1])
