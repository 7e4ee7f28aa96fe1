"""Two processes under msrun against one process with the same global batch."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import trainable

pytestmark = pytest.mark.usefixtures("graph_mode")

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_two_ranks_train_what_one_process_trains(tmp_path: Path) -> None:
    alone, together = tmp_path / "alone", tmp_path / "together"
    lora = {"dropout": 0.0}  # its masks differ by rank, as they must
    assert trainable.train(trainable.write_config(alone, lora=lora)) == 0
    config = trainable.write_config(together, lora=lora, train={"batch_size": 1})
    script = ROOT / "run" / "run_distribute_train.sh"
    environment = os.environ | {"DEVICE_TARGET": "CPU", "PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", str(script), "2", str(config)],
        cwd=tmp_path,
        env=environment,
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
