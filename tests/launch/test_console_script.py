"""A platform starts the installed `ms-medqa` under its own msrun."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import trainable

from ms_medqa.cli.main import main
from ms_medqa.launch import scheduler
from ms_medqa.launch.process import free_port

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def scheduled(monkeypatch):
    """This process as the scheduler; how often it would have connected workers."""
    calls = []
    monkeypatch.setenv("MS_ROLE", "MS_SCHED")
    monkeypatch.setenv("RANK_ID", "0")
    monkeypatch.setenv("RANK_SIZE", "2")
    monkeypatch.setattr(scheduler, "schedule", lambda: calls.append("schedule"))
    return calls


def test_the_scheduler_connects_workers_and_does_not_train(scheduled, tmp_path, capsys):
    config = trainable.write_config(tmp_path / "run")
    capsys.readouterr()
    assert main(["train", str(config)]) == 0
    assert scheduled == ["schedule"]
    assert capsys.readouterr() == ("", "")
    assert not (tmp_path / "run").exists()


def test_a_wrong_config_ends_the_scheduler_as_it_ends_the_workers(scheduled, tmp_path, capsys):
    config = trainable.write_config(tmp_path / "run")
    assert main(["train", str(config), "train.epoch=1"]) == 2
    assert scheduled == []


@pytest.mark.slow
def test_msrun_trains_with_the_installed_command(tmp_path):
    config = trainable.write_config(tmp_path / "run", train={"max_steps": 3, "gradient_accumulation_steps": 1})
    # The script that pip makes of the entry point.
    script = tmp_path / "bin" / "ms-medqa"
    script.parent.mkdir()
    script.write_text("import sys\nfrom ms_medqa.cli.main import main\nsys.exit(main())\n")
    folder = Path(os.path.abspath(sys.executable)).parent
    log = tmp_path / "log"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mindspore.parallel.cluster.run"),
            *("--worker_num", "2", "--local_worker_num", "2", "--master_port", str(free_port())),
            *("--log_dir", str(log), "--join", "True"),
            *(str(script), "train", str(config)),
        ],
        cwd=tmp_path,
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "CPU x 2 ranks" in (log / "worker_0.log").read_text()
    # The scheduler has said nothing and trained nothing: one run folder, written once, by rank 0.
    assert (log / "scheduler.log").read_text() == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "log", "run", "run.yaml"]
    assert not list((tmp_path / "run").glob("previous-*"))
    assert [line["step"] for line in trainable.metrics(tmp_path / "run", "train")] == [1, 2, 3]
