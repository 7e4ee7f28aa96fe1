"""Run one script in several processes with msrun, show what rank 0 says, and report a failure at once."""

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

from ms_medqa.config.errors import UserError
from ms_medqa.launch.process import die_with_parent, free_port

_FAILURE = re.compile(r"Worker process (\d+) exit with exception\. Error code: (-?\d+)")
# MindSpore's own lines, such as `[INFO] DISTRIBUTED(123,…`: they stay in the log file.
_MINDSPORE_LINE = re.compile(r"\[(DEBUG|INFO|WARNING)\] [A-Z_]+\(\d+")
_POLL_SECONDS = 0.2
# msrun kills the other workers right after it has named the first dead one; then its scheduler waits half a minute for
# their heartbeat. There is nothing to wait for.
_GRACE_SECONDS = 3.0
# For the step that the workers are at, and its checkpoint; what platforms mostly leave before they kill.
_SAVE_SECONDS = 30.0
_TAIL_LINES = 40


class _Stopped(Exception):
    """A signal asked the launcher to stop."""


def run_workers(
    script: Path, arguments: Sequence[str], device_num: int, log_dir: Path, rank_table: Path | None = None
) -> int:
    """Run `python SCRIPT ARGUMENTS` in `device_num` processes of this machine and wait for them.

    Args:
        script: started in every worker, and in msrun's scheduler (MS_ROLE is MS_SCHED there).
        arguments: of the script.
        device_num: number of workers; worker N gets RANK_ID and DEVICE_ID N.
        log_dir: gets `worker_N.log`, `scheduler.log` and `msrun.log`; those of an earlier run are removed.
        rank_table: exported to the workers as RANK_TABLE_FILE.

    Returns:
        0, or the status of the worker that failed first (128 + signal where a signal ended it).
    """
    log_dir.mkdir(parents=True, exist_ok=True)
    for old in [*log_dir.glob("worker_*.log"), log_dir / "scheduler.log"]:
        old.unlink(missing_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="ms_medqa-") as pid_folder,
        # Not the locale's encoding: a character that it lacks would end the thread that empties msrun's pipe.
        (log_dir / "msrun.log").open("w", encoding="utf-8") as log,
    ):
        command = msrun_command(script, arguments, device_num, log_dir, rank_table)
        process = subprocess.Popen(
            command,
            env=worker_environment(pid_folder),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            # A group of its own, so that msrun and its scheduler can be ended together.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        failure = _watch(process, log, log_dir / "worker_0.log", Path(pid_folder))
        if process.returncode == 0 and failure is None:
            return 0
        rank, status = _first_failure(failure, Path(pid_folder), process.returncode)
    _report(log_dir, rank, status)
    return status if status > 0 else 128 - status


def msrun_command(
    script: Path, arguments: Sequence[str], device_num: int, log_dir: Path, rank_table: Path | None
) -> list[str]:
    """The msrun command line."""
    folder = _interpreter_folder()
    if (folder / "msrun").exists():
        msrun = [sys.executable, str(folder / "msrun")]
    else:
        msrun = [sys.executable, "-m", "mindspore.parallel.cluster.run"]
    # msrun starts a bare `python` unless the command names another one that it knows.
    interpreter = [] if (folder / "python").exists() else ["python3"]
    return [
        *msrun,
        *("--worker_num", str(device_num), "--local_worker_num", str(device_num)),
        *("--master_addr", "127.0.0.1", "--master_port", str(free_port())),
        *("--log_dir", str(log_dir), "--join", "True"),
        # A number that no worker has: rank 0's log is shown by this launcher instead, without msrun's own lines.
        *("--tail_worker_log", str(device_num)),
        *(("--rank_table_file", str(rank_table)) if rank_table is not None else ()),
        *interpreter,
        str(script),
        *arguments,
    ]


def worker_environment(pid_folder: str) -> dict[str, str]:
    """The environment of msrun and its workers: `python` is this interpreter there."""
    path = os.environ.get("PATH", os.defpath)
    return {
        "GLOG_v": "3",
        **os.environ,
        "PATH": f"{_interpreter_folder()}{os.pathsep}{path}",
        "PYTHONUNBUFFERED": "1",
        "MS_MEDQA_PID_FOLDER": pid_folder,
    }


def log_tail(path: Path, lines: int = _TAIL_LINES) -> str:
    """The last traceback of a log, or its last lines where there is none."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace").rstrip().splitlines()
    except OSError:
        return "(no log)"
    text = [line for line in text if not _MINDSPORE_LINE.match(line)]
    start = max((n for n, line in enumerate(text) if line.startswith("Traceback (most recent call last)")), default=0)
    return "\n".join(text[max(start, len(text) - lines) :]) or "(the log is empty)"


def _interpreter_folder() -> Path:
    # Not resolved: the python of a virtual environment is a link, and its folder is what makes it the environment's.
    return Path(os.path.abspath(sys.executable)).parent


def _watch(process: subprocess.Popen[str], log: IO[str], shown: Path, pid_folder: Path) -> tuple[int, int] | None:
    """Wait for msrun while showing rank 0's log; return (pid, status) of the worker that failed first, if any did.

    SIGTERM is passed on to the workers, which save and end; SIGINT ends them at once.
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
    position = 0
    deadline = float("inf")
    try:
        while process.poll() is None:
            position = _show(shown, position)
            if failures and deadline == float("inf"):
                deadline = time.monotonic() + _GRACE_SECONDS
            if time.monotonic() > deadline:
                _end_group(process)
                break
            time.sleep(_POLL_SECONDS)
    except _Stopped as stopped:
        if stopped.args[0] == signal.SIGTERM and _pass_on(signal.SIGTERM, pid_folder):
            deadline = time.monotonic() + _SAVE_SECONDS
            while process.poll() is None and time.monotonic() < deadline:
                time.sleep(_POLL_SECONDS)
                if failures:  # they end with the signal's status, the checkpoint is there
                    deadline = min(deadline, time.monotonic() + _GRACE_SECONDS)
        _end_group(process)
        _show(shown, position)
        raise SystemExit(128 + stopped.args[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        process.wait()
        reader.join(timeout=5)
    _show(shown, position)
    return failures[0] if failures else None


def _show(path: Path, position: int) -> int:
    try:
        with path.open("rb") as file:
            file.seek(position)
            text = file.read()
    except FileNotFoundError:
        return position
    # Only whole lines: a character of several bytes may be half written.
    end = text.rfind(b"\n") + 1
    for line in text[:end].decode("utf-8", errors="replace").splitlines(keepends=True):
        if not _MINDSPORE_LINE.match(line):
            sys.stdout.write(line)
    sys.stdout.flush()
    return position + end


def _pass_on(number: signal.Signals, pid_folder: Path) -> bool:
    """Send a signal to all workers that have begun; whether there are any."""
    workers = [int(path.name) for path in pid_folder.iterdir()]
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


def _report(log_dir: Path, rank: int | None, status: int) -> None:
    how = f"ended by signal {-status}" if status < 0 else f"exit status {status}"
    log = log_dir / ("msrun.log" if rank is None else f"worker_{rank}.log")
    who = "msrun" if rank is None else f"worker {rank}"
    tail = log_tail(log)
    # Rank 0's log is on the screen already, and a user's fault is one line.
    if rank == 0 or status == 2:
        tail = tail.splitlines()[-1]
    print(f"{who} failed ({how}), the end of {log}:\n{tail}", file=sys.stderr)


def check_device_num(text: str) -> int:
    """The number of devices from the command line.

    Raises:
        UserError: it is not a number of at least 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"DEVICE_NUM {text!r}: it must be a number of at least 1, such as 8")
    return int(text)
