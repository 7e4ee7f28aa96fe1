"""Several processes under a real msrun, with small scripts in place of the training."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from processes import alive, wait_for

from ms_medqa.launch.command import msrun_command
from ms_medqa.launch.logs import log_tail
from ms_medqa.launch.workers import run_workers

ROOT = Path(__file__).resolve().parents[2]
# What launch/worker.py does, without MindSpore: the scheduler waits as MindSpore's does when a worker has died.
_START = """
import os, sys, time
sys.path[0] = {root!r}
from ms_medqa.launch.process import die_with_parent
die_with_parent()
if os.environ["MS_ROLE"] == "MS_SCHED":
    time.sleep(60 if {waits} else 0)
    sys.exit()
rank = os.environ["RANK_ID"]
open(os.path.join(os.environ["MS_MEDQA_PID_FOLDER"], str(os.getpid())), "w").write(rank)
"""


@pytest.fixture
def write_script(tmp_path):
    def write(body: str, scheduler_waits: bool = True) -> Path:
        # A folder with a space, as users have.
        folder = tmp_path / "my project"
        folder.mkdir(exist_ok=True)
        path = folder / "script.py"
        path.write_text(_START.format(root=str(ROOT), waits=scheduler_waits) + textwrap.dedent(body), encoding="utf-8")
        return path

    return write


def test_workers_get_arguments_ranks_and_our_interpreter(write_script, tmp_path, capfd):
    script = write_script(
        """
        print("[INFO] DISTRIBUTED(12,7f): noise of MindSpore")
        print(rank, os.environ["RANK_SIZE"], os.environ["DEVICE_ID"], sys.argv[1:], sys.executable)
        """,
        scheduler_waits=False,
    )
    logs = tmp_path / "out put" / "msrun_log"
    logs.mkdir(parents=True)
    (logs / "worker_7.log").write_text("of an earlier run")
    assert run_workers(script, ["a b", "c=1"], 2, logs) == 0
    shown = capfd.readouterr().out
    executable = os.path.abspath(sys.executable)
    folder = Path(executable).parent
    assert shown.startswith("0 2 0 ['a b', 'c=1'] ")
    assert Path(shown.split()[-1]).parent == folder
    assert (logs / "worker_1.log").read_text().splitlines()[1].startswith("1 2 1 ['a b', 'c=1'] ")
    assert not (logs / "worker_7.log").exists()


def test_a_failed_worker_ends_the_run_at_once_with_its_traceback(write_script, tmp_path, capfd):
    script = write_script(
        """
        if rank == "1":
            raise ValueError("this one failed")
        time.sleep(60)
        """
    )
    began = time.monotonic()
    assert run_workers(script, [], 2, tmp_path) == 1
    # msrun alone takes about 44 s.
    assert time.monotonic() - began < 40
    errors = capfd.readouterr().err
    assert "worker 1 failed (exit status 1)" in errors
    assert "Traceback (most recent call last)" in errors
    assert "ValueError: this one failed" in errors
    assert str(tmp_path / "worker_1.log") in errors


def test_a_users_fault_is_one_line_and_keeps_its_status(write_script, tmp_path, capfd):
    script = write_script(
        """
        print("loading")
        print("ms-medqa train: error: no such folder", file=sys.stderr)
        print("[INFO] DISTRIBUTED(12,7f): MindSpore says goodbye", file=sys.stderr)
        sys.exit(2)
        """
    )
    assert run_workers(script, [], 2, tmp_path) == 2
    errors = capfd.readouterr().err
    assert errors.splitlines()[-1] == "ms-medqa train: error: no such folder"
    assert "loading" not in errors


def test_a_killed_worker_is_told_by_its_signal(write_script, tmp_path, capfd):
    script = write_script(
        """
        print("rank", rank, flush=True)
        if rank == "1":
            os.kill(os.getpid(), 9)
        time.sleep(60)
        """
    )
    assert run_workers(script, [], 2, tmp_path) == 128 + 9
    assert "worker 1 failed (ended by signal 9)" in capfd.readouterr().err


@pytest.mark.parametrize("works", [False, True], ids=["when all are done", "while another works"])
def test_a_worker_that_crashes_at_its_very_end(works, tmp_path, capfd):
    """As MindSpore's clean-up does now and then; what a worker runs is `launch/worker.py`."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import atexit, os, sys, time
            sys.path[0] = {str(ROOT)!r}
            from ms_medqa.launch import worker
            if os.environ["MS_ROLE"] == "MS_SCHED":
                time.sleep(60)
                sys.exit()
            if os.environ["RANK_ID"] == "1":
                time.sleep({0 if works else 2})
                atexit.register(os.kill, os.getpid(), 11)
            else:
                time.sleep({60 if works else 0})
            worker.main()
            """
        )
    )
    status = run_workers(script, ["--version"], 2, tmp_path / "logs")
    said = capfd.readouterr()
    if works:
        assert status == 128 + 11
        assert "worker 1 failed (ended by signal 11), the end of " in said.err
    else:
        assert status == 0
        assert said.out.startswith("ms-medqa ")
        assert said.err == "note: worker 1 failed (ended by signal 11) when all workers had done their work\n"


def test_workers_that_another_hosts_sigterm_has_ended_are_no_failure(write_script, tmp_path, capfd):
    script = write_script(
        """
        if rank == "0":
            time.sleep(60)
        print("loading")
        print("ms-medqa train: ended by SIGTERM: step 7 is saved", flush=True)
        sys.exit(143)
        """
    )
    assert run_workers(script, [], 2, tmp_path) == 143
    assert capfd.readouterr().err == "ms-medqa train: ended by SIGTERM: step 7 is saved\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_worker_outlives_the_launcher(write_script, tmp_path, number):
    script = write_script(
        """
        open(os.path.join(sys.argv[1], f"pid_{rank}"), "w").write(str(os.getpid()))
        time.sleep(60)
        """
    )
    code = (
        "import sys; from pathlib import Path; from ms_medqa.launch.workers import run_workers;"
        f"sys.exit(run_workers(Path({str(script)!r}), [{str(tmp_path)!r}], 2, Path({str(tmp_path / 'logs')!r})))"
    )
    # A killed launcher cannot remove its temporary folder, so that lies where pytest cleans up.
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    launcher = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=environment)
    try:
        files = [tmp_path / f"pid_{rank}" for rank in range(2)]
        assert wait_for(lambda: all(file.exists() and file.read_text() for file in files), 60)
        pids = [int(file.read_text()) for file in files]
        launcher.send_signal(number)
        expected = -number if number == signal.SIGKILL else 128 + number
        assert launcher.wait(timeout=20) == expected
        assert wait_for(lambda: not any(alive(pid) for pid in pids), 10)
    finally:
        launcher.kill()


def test_the_rank_table_reaches_the_workers(write_script, tmp_path, capfd):
    script = write_script("print(os.environ['RANK_TABLE_FILE'])", scheduler_waits=False)
    table = tmp_path / "table.json"
    assert run_workers(script, [], 2, tmp_path / "logs", table) == 0
    assert capfd.readouterr().out.strip() == str(table)


def test_each_run_takes_a_port_of_its_own(tmp_path):
    def port(command):
        return int(command[command.index("--master_port") + 1])

    ports = {port(msrun_command(Path("script.py"), [], 2, tmp_path, None)) for _ in range(5)}
    assert len(ports) > 1
    assert all(1024 <= port <= 65535 for port in ports)


def test_the_tail_of_a_log_is_its_last_traceback(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "a\nTraceback (most recent call last):\n one\nE: 1\nTraceback (most recent call last):\n two\nE: 2\n"
    )
    assert log_tail(log) == "Traceback (most recent call last):\n two\nE: 2"
    log.write_text("\n".join(map(str, range(100))))
    assert log_tail(log, lines=2) == "98\n99"
    assert log_tail(tmp_path / "none") == "(no log)"


def test_places_in_mindspores_c_code_do_not_hide_its_error(tmp_path):
    log = tmp_path / "log"
    dashes = "-" * 52
    log.write_text(
        f"Traceback (most recent call last):\nE: 1\n\n{dashes}\n- C++ Call Stack: (For …)\n{dashes}\na.cc:1\n"
    )
    assert log_tail(log) == "Traceback (most recent call last):\nE: 1"


@pytest.mark.slow
def test_two_mindspore_processes_sum_over_ranks_and_leave_nothing_behind(tmp_path, capfd, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, sys
            sys.path[0] = {str(ROOT)!r}
            from ms_medqa.launch.scheduler import is_scheduler, schedule
            if is_scheduler():
                schedule()
                sys.exit()
            from ms_medqa.config.scratch import redirect_droppings
            redirect_droppings()
            import mindspore as ms
            from mindspore import ops
            from mindspore.communication import get_rank, init
            ms.set_device("CPU")
            init()
            print("sum", ops.AllReduce()(ms.Tensor([1.0 + get_rank()], ms.float32)).asnumpy().tolist())
            """
        )
    )
    empty = tmp_path / "working folder"
    empty.mkdir()
    monkeypatch.chdir(empty)
    assert run_workers(script, [], 2, tmp_path / "logs") == 0
    assert capfd.readouterr().out.splitlines() == ["sum [3.0]"]
    assert list(empty.iterdir()) == []
