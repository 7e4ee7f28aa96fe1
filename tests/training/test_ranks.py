"""Runs of two processes under msrun that are ended, and what goes on from there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import killed
import pytest
import trainable
import uneven

from ms_medqa.launch.workers import run_workers
from ms_medqa.training.checkpoint import Checkpoints, load_checkpoint

pytestmark = pytest.mark.usefixtures("graph_mode")

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "run" / "run_distribute_train.sh"
ENVIRONMENT = os.environ | {"DEVICE_TARGET": "CPU", "PYTHON": sys.executable}


@pytest.mark.slow
def test_a_run_may_go_on_with_fewer_ranks_and_with_more(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Killed with two ranks, then alone, then two again: what PyTorch computes in one go, as each split of it is."""
    output = tmp_path / "out"
    # `uneven` has no dropout. Its masks are a function of (seed, micro-batch, rank): another world has others.
    # Moments that were shared out are whole in the checkpoint.
    together = uneven.write_config(output, 2, 2, save_steps=2, keep_checkpoints=9, shard_optimizer=True)
    arguments = ["micro-batch:3:1", "train", str(together)]
    assert run_workers(killed.SCRIPT, arguments, 2, output / "msrun_log") == 128 + signal.SIGKILL
    assert "failed (ended by signal 9)" in capfd.readouterr().err
    assert steps_saved(output) == {2}

    alone = uneven.write_config(output, 4, 2, save_steps=2, keep_checkpoints=9)
    command = [sys.executable, str(killed.SCRIPT), "micro-batch:5:1", "train", str(alone), "--resume"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert f"resuming from {output / 'checkpoints' / 'step-000002'}" in done.stdout
    assert steps_saved(output) == {2, 3, 4}

    together = uneven.write_config(output, 2, 2, save_steps=2, keep_checkpoints=9)
    said = trainable.launch(2, together, "--resume")
    assert f"resuming from {output / 'checkpoints' / 'step-000004'}" in said
    uneven.assert_golden(output)


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


def steps_saved(output: Path) -> set[int]:
    return {int(path.name[5:]) for path in Checkpoints(output / "checkpoints", 9).complete()}


def steps(output: Path) -> int:
    return len(trainable.metrics(output, "train")) if (output / "metrics.jsonl").exists() else 0
