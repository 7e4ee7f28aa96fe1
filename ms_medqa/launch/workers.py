"""Run one script in several processes with msrun, show what the first one says, and report a failure at once."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import IO

from ms_medqa.config.errors import RunError, UserError
from ms_medqa.launch.command import msrun_command, worker_environment
from ms_medqa.launch.logs import LogView, log_tail, remove_old_logs
from ms_medqa.launch.nodes import ALONE, Nodes
from ms_medqa.launch.peers import Peers
from ms_medqa.launch.process import die_with_parent
from ms_medqa.launch.worker import DONE

_FAILURE = re.compile(r"Worker process (\d+) exit with exception\. Error code: (-?\d+)")
_POLL_SECONDS = 0.2
# msrun kills the other workers right after it has named the first dead one; then its scheduler waits half a minute for
# their heartbeat. There is nothing to wait for.
_GRACE_SECONDS = 3.0
# For the step that the workers are at, and its checkpoint; what platforms mostly leave before they kill.
_SAVE_SECONDS = 30.0
# What a worker ends with that has saved itself on SIGTERM, which another host's launcher may have been sent.
_TERMINATED = 128 + signal.SIGTERM


class _Stopped(Exception):
    """A signal asked the launcher to stop."""


def run_workers(
    script: Path,
    arguments: Sequence[str],
    device_num: int,
    log_dir: Path,
    rank_table: Path | None = None,
    nodes: Nodes = ALONE,
) -> int:
    """Run `python SCRIPT ARGUMENTS` in this host's share of `device_num` processes and wait for them.

    Args:
        script: started in every worker, and in msrun's scheduler (MS_ROLE is MS_SCHED there).
        arguments: of the script.
        device_num: number of workers on all hosts; the N-th one gets RANK_ID N, and on its host a DEVICE_ID from 0.
        log_dir: gets `worker_N.log`, `scheduler.log` and `msrun.log`; those of an earlier run are removed. Hosts may
            share it.
        rank_table: exported to the workers as RANK_TABLE_FILE.
        nodes: the hosts of the run.

    Returns:
        0, also where a worker fails when all of this host's have done their work; or the status of this host's worker
        that failed first (128 + signal where a signal ended it).

    Raises:
        RunError: another host's part of the run has ended, and this one's would wait for it.
    """
    ranks = nodes.ranks(device_num)
    log_dir.mkdir(parents=True, exist_ok=True)
    remove_old_logs(log_dir, ranks, device_num)
    msrun_log = log_dir / ("msrun.log" if nodes.num == 1 else f"msrun_node_{nodes.rank}.log")
    with (
        tempfile.TemporaryDirectory(prefix="ms_medqa-") as pid_folder,
        # Not the locale's encoding: a character that it lacks would end the thread that empties msrun's pipe.
        msrun_log.open("w", encoding="utf-8") as log,
    ):
        command = msrun_command(script, arguments, device_num, log_dir, rank_table, nodes)
        process = subprocess.Popen(
            command,
            env=worker_environment(pid_folder, len(ranks), nodes.rank),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            # A group of its own, so that msrun and its scheduler can be ended together.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        peers = Peers(nodes)
        failure = _watch(process, log, LogView(log_dir / f"worker_{ranks[0]}.log"), Path(pid_folder), peers)
        if process.returncode == 0 and failure is None:
            return 0
        rank, status = _first_failure(failure, Path(pid_folder), process.returncode)
        done = len(list(Path(pid_folder).glob(f"*{DONE}")))
    if done == len(ranks):
        print(f"note: {_told(rank, status)} when all workers had done their work", file=sys.stderr)
        return 0
    _report(msrun_log if rank is None else log_dir / f"worker_{rank}.log", rank, status, shown=rank == ranks[0])
    if status != 2 and (elsewhere := peers.failed_first(log_dir, device_num)) is not None:
        print(elsewhere, file=sys.stderr)
        # MindSpore ends its workers by SIGTERM then, which nobody has sent here.
        return 1
    return status if status > 0 else 128 - status


def _watch(
    process: subprocess.Popen[str], log: IO[str], view: LogView, pid_folder: Path, peers: Peers
) -> tuple[int, int] | None:
    """Wait for msrun while showing a log; return (pid, status) of the worker that failed first, if any did.

    SIGTERM is passed on to the workers, which save and end; SIGINT ends them at once.

    Raises:
        RunError: the other hosts are gone.
    """
    failures: list[tuple[int, int]] = []

    def read_msrun() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            if match := _FAILURE.search(line):
                failures.append((int(match.group(1)), int(match.group(2))))

    def stop(number: int, frame: FrameType | None) -> None:
        raise _Stopped(number)

    reader = threading.Thread(target=read_msrun, daemon=True)
    reader.start()
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    deadline = float("inf")
    try:
        while process.poll() is None:
            view.show()
            if failures and deadline == float("inf"):
                deadline = time.monotonic() + _GRACE_SECONDS
            if time.monotonic() > deadline:
                _end_group(process)
                break
            if deadline == float("inf") and peers.lost:
                _end_group(process)
                raise RunError(peers.what_is_lost)
            time.sleep(_POLL_SECONDS)
    except _Stopped as stopped:
        if stopped.args[0] == signal.SIGTERM and _pass_on(signal.SIGTERM, pid_folder):
            deadline = time.monotonic() + _SAVE_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                if failures:  # they end with the signal's status, the checkpoint is there
                    deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
        _end_group(process)
        view.show()
        raise SystemExit(128 + stopped.args[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        process.wait()
        reader.join(timeout=5)
    view.show()
    return failures[0] if failures else None


def _pass_on(number: signal.Signals, pid_folder: Path) -> bool:
    """Send a signal to all workers that have begun; whether there are any."""
    workers = [int(path.name) for path in pid_folder.iterdir() if path.suffix != DONE]
    for worker in workers:
        with suppress(ProcessLookupError):
            os.kill(worker, number)
    return bool(workers)


def _end_group(process: subprocess.Popen[str]) -> None:
    """End msrun and its scheduler; the workers end with msrun (see `die_with_parent`)."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            continue
        except ProcessLookupError:
            pass
        return


def _first_failure(failure: tuple[int, int] | None, pid_folder: Path, returncode: int) -> tuple[int | None, int]:
    if failure is None:
        return None, returncode
    pid, status = failure
    try:
        return int((pid_folder / str(pid)).read_text(encoding="ascii")), status
    except (OSError, ValueError):
        return None, status


def _report(log: Path, rank: int | None, status: int, shown: bool) -> None:
    tail = log_tail(log)
    # A user's fault, and the end by a signal that has been passed on, are one line; rank 0's log is on the screen.
    if shown or status in (2, _TERMINATED):
        tail = tail.splitlines()[-1]
    if status == _TERMINATED:
        if not shown:
            print(tail, file=sys.stderr)
        return
    print(f"{_told(rank, status)}, the end of {log}:\n{tail}", file=sys.stderr)


def _told(rank: int | None, status: int) -> str:
    how = f"ended by signal {-status}" if status < 0 else f"exit status {status}"
    return f"{'msrun' if rank is None else f'worker {rank}'} failed ({how})"


def check_device_num(text: str) -> int:
    """The number of devices from the command line.

    Raises:
        UserError: it is not a number of at least 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"DEVICE_NUM {text!r}: it must be a number of at least 1, such as 8")
    return int(text)
