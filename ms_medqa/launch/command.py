"""The command line and the environment that msrun is started with."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ms_medqa.launch.nodes import ALONE, Nodes
from ms_medqa.launch.process import free_port


def msrun_command(
    script: Path,
    arguments: Sequence[str],
    device_num: int,
    log_dir: Path,
    rank_table: Path | None,
    nodes: Nodes = ALONE,
) -> list[str]:
    """The msrun command line; the arguments are those of `workers.run_workers`."""
    folder = _interpreter_folder()
    if (folder / "msrun").exists():
        msrun = [sys.executable, str(folder / "msrun")]
    else:
        msrun = [sys.executable, "-m", "mindspore.parallel.cluster.run"]
    # msrun starts a bare `python` unless the command names another one that it knows.
    interpreter = [] if (folder / "python").exists() else ["python3"]
    port = free_port() if nodes.master_port is None else nodes.master_port
    return [
        *msrun,
        *("--worker_num", str(device_num), "--local_worker_num", str(nodes.share(device_num))),
        *("--master_addr", nodes.master_addr, "--master_port", str(port)),
        # Without it MindSpore deals out the ranks by itself, and nobody knows them before the processes have met.
        *(("--node_rank", str(nodes.rank)) if nodes.num > 1 else ()),
        *("--cluster_time_out", str(nodes.time_out)),
        *("--log_dir", str(log_dir), "--join", "True"),
        # A number that no worker has: a worker's log is shown by this launcher instead, without msrun's own lines.
        *("--tail_worker_log", str(device_num)),
        *(("--rank_table_file", str(rank_table)) if rank_table is not None else ()),
        *interpreter,
        str(script),
        *arguments,
    ]


def worker_environment(pid_folder: str, processes: int, node_rank: int = 0) -> dict[str, str]:
    """The environment of msrun and its workers, `processes` on this host: `python` is this interpreter there."""
    path = os.environ.get("PATH", os.defpath)
    return {
        "GLOG_v": "3",
        **os.environ,
        "PATH": f"{_interpreter_folder()}{os.pathsep}{path}",
        "PYTHONUNBUFFERED": "1",
        "MS_MEDQA_PID_FOLDER": pid_folder,
        "MS_MEDQA_NODE_RANK": str(node_rank),
        "MS_MEDQA_LOCAL_PROCESSES": str(processes),
    }


def _interpreter_folder() -> Path:
    # Not resolved: the python of a virtual environment is a link, and its folder is what makes it the environment's.
    return Path(os.path.abspath(sys.executable)).parent
