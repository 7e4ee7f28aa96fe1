"""A model with a tokenizer, converted records and configs that train in seconds; made once for all tests."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import tiny
import yaml
from made_once import made_once, session_folder

from ms_medqa.cli.main import main
from ms_medqa.data.dataset import Rows, build_rows
from ms_medqa.data.manifest import load_split
from ms_medqa.models.safetensors import SafetensorsFile

ROOT = Path(__file__).resolve().parents[1]
LENGTH = 64
CONFIG = decoders.config_of(vocab_size=400, num_hidden_layers=1, max_position_embeddings=80)


@functools.cache
def place() -> Path:
    """A folder with `model` (one layer of width 32), `data` (questions) and `text`. Do not write into it."""
    return made_once("trainable", _make)


def _make(folder: Path) -> None:
    decoders.write(folder / "model", CONFIG)
    tiny.write_tokenizer(folder / "model")
    # Validation is about something else, so that training sooner or later makes it worse.
    questions = [
        {"question": f"What helps after {n} nights?", "answer": f"sleep{', and rest' * (n % 3)}.", "split": "train"}
        for n in range(11)
    ]
    questions += [
        {"question": f"WHO IS NO. {n}?", "answer": f"{n}Q8Z 7X6W 5V4K!"[: 15 - n], "split": split}
        for n, split in enumerate(["val", "val", "val", "test"])
    ]
    texts = [{"text": f"Night {n}: {'sleep and water help. ' * (1 + n % 3)}"} for n in range(40)]
    convert(questions, folder / "data", folder / "model")
    convert(texts, folder / "text", folder / "model")


def convert(records: Sequence[dict[str, str]], output: Path, model: Path) -> None:
    """Convert records for a model into the folder `output`."""
    path = output.with_suffix(".jsonl")
    path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    arguments = ["--model", str(model), f"data.max_length={LENGTH}", "data.length_margin=0"]
    # These records are no texts that anyone would write: they differ by a number.
    arguments += ["data.aug_rate=0", "data.near_duplicates=null", "data.cluster_similarity=1"]
    assert main(["convert", str(path), "--output", str(output), *arguments, "data.split=[0.7,0.2,0.1]"]) == 0


def write_config(output: Path, **sections: dict[str, Any] | None) -> Path:
    """A config beside its `output_dir`: LoRA, 4 rows a step in 2 micro-batches, 2 epochs; `sections` are merged in.

    Runs of the same training share their graphs. That they are those that would be compiled is told in
    `training/test_compile_cache.py`.
    """
    config: dict[str, Any] = {
        "model": {"path": str(place() / "model")},
        "data": {"path": str(place() / "data"), "max_length": LENGTH, "packing": False},
        "lora": {"r": 4, "alpha": 8, "dropout": 0.05, "target_modules": ["q_proj", "v_proj"]},
        "train": {
            "epochs": 2,
            "batch_size": 2,
            "gradient_accumulation_steps": 2,
            "learning_rate": 0.01,
            "logging_steps": 1,
        },
        "runtime": {"device": "CPU", "compile_cache": str(session_folder() / "training-graphs")},
        "output_dir": str(output),
    }
    for name, values in sections.items():
        config[name] = values if values is None else config.get(name, {}) | values
    path = output.with_name(f"{output.name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def train(config: Path, *arguments: str) -> int:
    """`ms-medqa train`, in this process."""
    return main(["train", str(config), *arguments])


def launch(ranks: int, config: Path, *arguments: str) -> str:
    """`ms-medqa train` in several processes of the launcher, which must succeed; what they say."""
    done = subprocess.run(
        [sys.executable, "-m", "ms_medqa.launch.msrun", str(ranks), str(config), *arguments],
        cwd=config.parent,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def metrics(output: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind, without the time and the memory that they took."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    of_machine = {"seconds", "tokens_per_second", "samples_per_second", "peak_memory", "mfu"}
    return [{k: v for k, v in line.items() if k not in of_machine} for line in lines if line["kind"] == kind]


def tensors(path: Path) -> decoders.Weights:
    """Everything in a safetensors file."""
    file = SafetensorsFile(path)
    return {key: np.array(file.read(key)) for key in file.keys()}  # noqa: SIM118


def rows_of(name: str, part: str) -> Rows:
    """The rows of a converted part as a run with `write_config` reads them."""
    records = load_split(place() / name, part, None, None)
    return build_rows(records, LENGTH, packing=False, split_records=name == "text")


def validation_loss(weights: decoders.Weights, name: str = "data") -> float:
    """Mean loss of the validation part, by the NumPy decoder."""
    rows = rows_of(name, "val")
    total, count = 0.0, 0
    for index in range(len(rows)):
        row = rows.row(index)
        for segment in range(1, row["segment_ids"].max() + 1):
            inside = row["segment_ids"] == segment
            ids, labels = row["input_ids"][inside], row["labels"][inside]
            if len(ids) > 1:
                losses = decoders.token_losses(weights, CONFIG, ids.tolist())[labels[:-1] >= 0]
                total, count = total + float(losses.sum()), count + len(losses)
    return total / count


def with_adapter(folder: Path) -> decoders.Weights:
    """The base weights with an adapter of `write_config` folded in."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    weights = tensors(place() / "model" / "model.safetensors")
    adapter = tensors(folder / "adapter_model.safetensors")
    for name, b in adapter.items():
        if "lora_B" in name:
            path = name.removeprefix("base_model.model.").removesuffix(".lora_B.weight")
            update = b.astype(np.float64) @ adapter[name.replace("lora_B", "lora_A")]
            weights[f"{path}.weight"] = weights[f"{path}.weight"] + update * config["lora_alpha"] / config["r"]
    return weights
