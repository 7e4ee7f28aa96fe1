"""A run over several hosts: here each "host" is a launcher of its own on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
import trainable
from processes import alive, wait_for

from ms_medqa.launch.process import free_port

ROOT = Path(__file__).resolve().parents[2]
# What launch/worker.py does. The scheduler listens, as MindSpore's does, until its msrun ends it or a file says so.
_START = """
import os, socket, sys, time
sys.path[0] = {root!r}
from ms_medqa.launch.process import die_with_parent
die_with_parent()
folder = sys.argv[1]
if os.environ["MS_ROLE"] == "MS_SCHED":
    if os.environ["MS_MEDQA_NODE_RANK"] != "0":
        sys.exit()
    with socket.create_server((os.environ["MS_SCHED_HOST"], int(os.environ["MS_SCHED_PORT"]))):
        while not os.path.exists(os.path.join(folder, "done")):
            time.sleep(0.2)
    sys.exit()
rank = os.environ["RANK_ID"]
open(os.path.join(os.environ["MS_MEDQA_PID_FOLDER"], str(os.getpid())), "w").write(rank)
open(os.path.join(folder, "pid_" + rank), "w").write(str(os.getpid()))
"""
_LAUNCH = """
import sys
from pathlib import Path
from ms_medqa.config import RunError
from ms_medqa.launch import peers
from ms_medqa.launch.nodes import Nodes
from ms_medqa.launch.workers import run_workers
script, folder, seconds = sys.argv[1:]
peers.LOST_SECONDS = float(seconds)
try:
    sys.exit(run_workers(Path(script), [folder], 4, Path(folder) / "logs", None, Nodes.from_environment()))
except RunError as error:
    sys.exit(f"RunError: {error}")
"""


class Hosts:
    """Two launchers with two workers each, and one folder that both see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.launchers: list[subprocess.Popen[str]] = []

    def start(self, body: str, lost_seconds: float = 60.0) -> None:
        """Run a script as the workers of both hosts."""
        script = self.folder / "script.py"
        script.write_text(_START.format(root=str(ROOT)) + textwrap.dedent(body), encoding="utf-8")
        for rank in range(2):
            variables = {"NODE_NUM": "2", "NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
            self.launchers.append(
                subprocess.Popen(
                    [sys.executable, "-c", _LAUNCH, str(script), str(self.folder), str(lost_seconds)],
                    cwd=ROOT,
                    env={**os.environ, **variables, "MASTER_PORT": str(self.port), "TMPDIR": str(self.folder)},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def end(self, host: int, seconds: float = 60) -> tuple[int, str, str]:
        """(status, output, errors) of a host's launcher."""
        out, err = self.launchers[host].communicate(timeout=seconds)
        return self.launchers[host].returncode, out, err

    def nothing_runs(self) -> bool:
        """Whether all workers have ended, or do so with their msrun at once."""
        pids = [int(path.read_text()) for path in self.folder.glob("pid_*")]
        return bool(pids) and wait_for(lambda: not any(map(alive, pids)), 5)


@pytest.fixture
def hosts(tmp_path):
    hosts = Hosts(tmp_path)
    yield hosts
    for launcher in hosts.launchers:
        launcher.kill()


def test_ranks_are_those_of_the_whole_run_and_each_host_shows_its_first_worker(hosts):
    hosts.start(
        """
        print("rank", rank, "of", os.environ["RANK_SIZE"], "card", os.environ["DEVICE_ID"], flush=True)
        while len(os.listdir(folder + "/logs")) < 6 or len([n for n in os.listdir(folder) if n[:3] == "pid"]) < 4:
            time.sleep(0.1)
        open(os.path.join(folder, "done"), "w").close()
        """
    )
    assert hosts.end(0) == (0, "rank 0 of 4 card 0\n", "")
    assert hosts.end(1) == (0, "rank 2 of 4 card 0\n", "")
    logs = {path.name for path in (hosts.folder / "logs").iterdir()}
    workers = {f"worker_{rank}.log" for rank in range(4)}
    assert logs == workers | {"scheduler.log", "msrun_node_0.log", "msrun_node_1.log"}
    assert (hosts.folder / "logs" / "worker_3.log").read_text().startswith("rank 3 of 4 card 1")


def test_a_worker_that_dies_ends_its_host_at_once_and_the_other_in_bounded_time(hosts):
    hosts.start(
        """
        while len([n for n in os.listdir(folder) if n[:3] == "pid"]) < 4:
            time.sleep(0.1)
        time.sleep(1)
        if rank == "1":
            raise ValueError("this one failed")
        time.sleep(100)
        """,
        lost_seconds=8,
    )
    began = time.monotonic()
    status, _, err = hosts.end(0)
    assert time.monotonic() - began < 30
    assert status == 1
    assert "worker 1 failed (exit status 1)" in err
    assert "ValueError: this one failed" in err
    # The scheduler ended with host 0. Host 1's workers wait here for ever, as a collective library may.
    status, _, err = hosts.end(1)
    assert status == 1
    assert err.startswith(f"RunError: the scheduler at 127.0.0.1:{hosts.port} has not answered for 8 s: another host")
    assert hosts.nothing_runs()


def test_workers_that_end_with_the_scheduler_say_where_to_look(hosts):
    hosts.start(
        """
        while len([n for n in os.listdir(folder) if n[:3] == "pid"]) < 4:
            time.sleep(0.1)
        time.sleep(1)
        if rank == "0":
            sys.exit(1)
        # As MindSpore's workers end some time after their scheduler.
        while rank > "1":
            try:
                socket.create_connection(("127.0.0.1", int(os.environ["MS_SCHED_PORT"]))).close()
                time.sleep(0.2)
            except OSError:
                os.kill(os.getpid(), 15)
        time.sleep(100)
        """
    )
    assert hosts.end(0)[0] == 1
    status, _, err = hosts.end(1)
    assert status == 1
    assert "failed (ended by signal 15)" in err
    assert err.splitlines()[-1].startswith(
        "the scheduler on 127.0.0.1 had ended before: see what the launcher on host 0"
    )
    assert hosts.nothing_runs()


@pytest.mark.slow
def test_two_hosts_train_one_model(tmp_path):
    config = trainable.write_config(tmp_path / "run", train={"max_steps": 3, "gradient_accumulation_steps": 1})
    port = str(free_port())
    launchers = []
    for rank in range(2):
        variables = {"NODE_NUM": "2", "NODE_RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        launchers.append(
            subprocess.Popen(
                ["bash", str(ROOT / "run" / "run_distribute_train.sh"), "2", str(config)],
                cwd=tmp_path,
                env={**os.environ, **variables, "PYTHON": sys.executable, "DEVICE_TARGET": "CPU"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [launcher.communicate(timeout=300)[0] for launcher in launchers]
    assert [launcher.returncode for launcher in launchers] == [0, 0], said
    assert "CPU x 2 ranks" in said[0]
    assert said[1].splitlines() == [f"starting 1 workers of 2, this is host 1 of 2, logs in {tmp_path}/run/msrun_log"]
    assert len(trainable.metrics(tmp_path / "run", "train")) == 3
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
