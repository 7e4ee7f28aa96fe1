"""Records whose answers all differ in length, and a config of eight of them a step: for splits of a global batch."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import trainable
from made_once import made_once

from ms_medqa.data.dataset import Rows, build_rows
from ms_medqa.data.manifest import load_split

GOLDEN = Path(__file__).with_name("golden.json")
GLOBAL_BATCH = 8
TRAIN, VAL = 21, 5  # three steps an epoch, the last one with three empty rows; validation leaves some ranks nothing
RECORDS = [
    {
        "question": f"{'Who is' if n < TRAIN else 'Where lives'} no. {n}?",
        # The tokenizer has merged none of these pairs: a character is a token.
        "answer": ("7X6" * 8)[: 3 + n % TRAIN],
        "split": "train" if n < TRAIN else "val",
    }
    for n in range(TRAIN + VAL)
]
LORA: dict[str, Any] = {"r": 2, "alpha": 4, "target_modules": ["q_proj", "v_proj"]}
TRAINING: dict[str, Any] = {
    "epochs": 2,
    "learning_rate": 0.06,
    "min_learning_rate": 0.001,
    "warmup_steps": 2,
    "weight_decay": 0.1,
    "max_grad_norm": 0.7,
    "seed": 4,  # the parts of no step hold equal numbers of answer tokens
}


@functools.cache
def data() -> Path:
    """The records, converted for the model of `trainable.place()`. Do not write into it."""
    model = trainable.place() / "model"
    return made_once("uneven", lambda folder: trainable.convert(RECORDS, folder / "data", model)) / "data"


def rows() -> Rows:
    """The training rows of `data()`."""
    return build_rows(load_split(data(), "train", None, None), trainable.LENGTH, packing=False)


def write_config(output: Path, batch: int, accumulation: int, **train: Any) -> Path:
    """A config of one split of the global batch, beside its `output_dir`.

    Without dropout: its masks are a function of (seed, micro-batch, rank), so each split has its own.
    """
    split = {"batch_size": batch, "gradient_accumulation_steps": accumulation}
    return trainable.write_config(
        output,
        data={"path": str(data()), "max_length": trainable.LENGTH, "packing": False},
        lora=LORA | {"dropout": 0.0},
        train=TRAINING | split | {"logging_steps": 1} | train,
    )


def assert_golden(output: Path) -> None:
    """That a run came to the numbers of `golden.json`, which `make_golden.py` computes with PyTorch."""
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    lines, evals = trainable.metrics(output, "train"), trainable.metrics(output, "eval")
    for name in ("loss", "grad_norm", "learning_rate", "tokens"):
        np.testing.assert_allclose([line[name] for line in lines], golden[name], rtol=1e-5, err_msg=name)
    # Five records in batches of eight rows: however many ranks there are, they get unequal shares.
    np.testing.assert_allclose([line["loss"] for line in evals], golden["validation_loss"], rtol=1e-5)
    np.testing.assert_allclose([line["accuracy"] for line in evals], golden["validation_accuracy"], rtol=1e-5)
    adapter = trainable.tensors(output / "adapter" / "adapter_model.safetensors")
    assert adapter.keys() == golden["adapter"].keys()
    for name, value in golden["adapter"].items():
        np.testing.assert_allclose(adapter[name], value, atol=1e-5, err_msg=name)
