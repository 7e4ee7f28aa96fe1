"""Two processes under msrun against one process with the same global batch."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import trainable

from ms_medqa.training.checkpoint import Checkpoints, load_checkpoint

pytestmark = pytest.mark.usefixtures("graph_mode")

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "run" / "run_distribute_train.sh"
ENVIRONMENT = os.environ | {"DEVICE_TARGET": "CPU", "PYTHON": sys.executable}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_two_ranks_train_what_one_process_trains(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    lora = {"dropout": 0.0}  # its masks differ by rank, as they must
    assert trainable.train(trainable.write_config(alone, lora=lora)) == 0
    config = trainable.write_config(together, lora=lora, train={"batch_size": 1})
    done = subprocess.run(
        ["bash", str(SCRIPT), "2", str(config)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "x 2 ranks" in done.stdout
    for kind in ("train", "eval"):
        one, two = trainable.metrics(alone, kind), trainable.metrics(together, kind)
        assert [line["step"] for line in two] == [line["step"] for line in one]
        for name in ("loss", "learning_rate", "grad_norm", "tokens", "epoch"):
            if name in one[0]:
                np.testing.assert_allclose([line[name] for line in two], [line[name] for line in one], rtol=1e-4)
    adapters = [trainable.tensors(output / "adapter" / "adapter_model.safetensors") for output in (alone, together)]
    for name, value in adapters[0].items():
        np.testing.assert_allclose(adapters[1][name], value, atol=2e-5, err_msg=name)
    assert {path.name for path in (together / "msrun_log").iterdir()} >= {
        *("scheduler.log", "worker_0.log", "worker_1.log")
    }
    # Only rank 0 writes: one line a step, one TensorBoard file.
    assert len(list((together / "tensorboard").iterdir())) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"alone", "alone.yaml", "together", "together.yaml"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_a_platform_that_takes_the_machine_back_finds_a_checkpoint(tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = trainable.write_config(output, train={"batch_size": 1, "epochs": 10_000, "save_steps": 10**6})
    log = tmp_path / "log"
    with log.open("wb") as file:
        launcher = subprocess.Popen(
            ["bash", str(SCRIPT), "2", str(config)], cwd=tmp_path, env=ENVIRONMENT, stdout=file, stderr=file
        )
        try:
            limit = time.monotonic() + 240
            while launcher.poll() is None and time.monotonic() < limit and steps(output) < 3:
                time.sleep(0.2)
            launcher.send_signal(signal.SIGTERM)
            status = launcher.wait(timeout=60)
        finally:
            launcher.kill()
    said = log.read_text(encoding="utf-8")
    assert status == 128 + signal.SIGTERM, said
    (checkpoint,) = Checkpoints(output / "checkpoints", 3).complete()
    assert f"ended by SIGTERM: step {int(checkpoint.name[5:])} is saved, `ms-medqa train " in said
    state = load_checkpoint(checkpoint)[2]
    assert state.step == steps(output) >= 3


def steps(output: Path) -> int:
    return len(trainable.metrics(output, "train")) if (output / "metrics.jsonl").exists() else 0
