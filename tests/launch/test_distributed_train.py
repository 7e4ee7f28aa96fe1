"""Training in two processes: the shell command, the files it leaves, the same update as in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file

from ms_medqa.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
# Eight rows in a global batch, however they are dealt.
_COMMON = ["train.max_steps=3", "train.logging_steps=1", "train.batch_size=2", "lora.dropout=0"]


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """Config overrides: the tiny model, converted records."""
    folder = tmp_path_factory.mktemp("two processes")
    records = folder / "records.jsonl"
    rows = [
        {"question": f"第{n}种常见疾病应该怎样护理和预防？", "answer": f"第{n}种疾病要多休息{n % 7}天。"}
        for n in range(80)
    ]
    records.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    model = f"--model={tiny.folder()}"
    assert main(["convert", str(records), "--output", str(folder / "data"), model, "data.max_length=192"]) == 0
    return [f"model.path={tiny.folder()}", f"data.path={folder / 'data'}", "data.max_length=192", *_COMMON]


def _train(folder: Path, script: str, *arguments: str) -> Path:
    """Run a script in an empty folder and return the run folder, the only thing it may leave there."""
    folder.mkdir()
    done = subprocess.run(
        ["bash", str(ROOT / "run" / script), *arguments, "output_dir=my run"],
        cwd=folder,
        env={**os.environ, "PYTHON": sys.executable, "DEVICE_TARGET": "CPU"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    assert [path.name for path in folder.iterdir()] == ["my run"]
    return folder / "my run"


@pytest.mark.slow
def test_two_processes_train_as_one_does(arguments, tmp_path):
    config = tmp_path / "empty.yaml"
    config.write_text("")
    two = _train(
        tmp_path / "two", "run_distribute_train.sh", "2", str(config), *arguments, "train.gradient_accumulation_steps=2"
    )
    one = _train(
        tmp_path / "one", "run_standalone_train.sh", str(config), *arguments, "train.gradient_accumulation_steps=4"
    )

    assert {path.name for path in (two / "msrun_log").iterdir()} == {
        "scheduler.log",
        "msrun.log",
        "worker_0.log",
        "worker_1.log",
    }
    losses = [[row["loss"] for row in _metrics(run) if row["kind"] == "train"] for run in (two, one)]
    assert len(losses[0]) == 3
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    of_two, of_one = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (two, one))
    assert of_two.keys() == of_one.keys()
    for name, weight in of_one.items():
        np.testing.assert_allclose(of_two[name], weight, atol=2e-5, err_msg=name)


def _metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
