"""`ms-medqa train`: what reaches the terminal, and what goes into `mindspore.log`; its closing commands run."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import trainable

# Writes as MindSpore's compiled parts do, then acts as one of its errors.
_FAILING = """
import os, sys
from ms_medqa.cli.main import main
from ms_medqa.config import native_log

def move_to(path, then=native_log.move_to):
    then(path)
    from ms_medqa.config.errors import RunError
    from ms_medqa.training.trainer import Trainer

    def step(self, *arguments):
        os.write(2, b"[ERROR] DEVICE(1,python): no memory\\n")
        raise {error}

    Trainer._micro_step = step

native_log.move_to = move_to
sys.exit(main(["train", *sys.argv[1:]]))
"""


def run(folder: Path, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(trainable.ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def without_bar(said: str) -> list[str]:
    """Lines beside those of the progress bar, which a slow run writes every ten seconds where there is no terminal."""
    return [line for line in said.splitlines() if not line.startswith("training: ")]


def medqa(command: str) -> list[str]:
    """A command as it was printed, for this interpreter."""
    name, *arguments = shlex.split(command)
    assert name == "ms-medqa"
    return [sys.executable, "-m", "ms_medqa.cli.main", *arguments]


@pytest.mark.slow
def test_nothing_but_our_own_lines_reaches_the_terminal_and_all_commands_run(tmp_path: Path) -> None:
    output = tmp_path / "my run"
    config = trainable.write_config(output)
    done = run(tmp_path, medqa(shlex.join(["ms-medqa", "train", str(config)])))
    assert (done.returncode, without_bar(done.stderr)) == (0, [])
    assert not (output / "mindspore.log").exists()
    lines = done.stdout.splitlines()
    resume = next(line for line in lines if line.startswith("if it ends")).partition("goes on: ")[2]
    commands = [resume, *(line[8:] for line in lines if line[8:].startswith("ms-medqa "))]
    assert [shlex.split(command)[1] for command in commands] == ["train", "eval", "ask", "merge"]
    # The model of the tests has 80 positions.
    short = {"eval": ["eval.max_new_tokens=2"], "ask": ["--max-new-tokens", "2"]}
    for command in commands:
        done = run(tmp_path, [*medqa(command), *short.get(shlex.split(command)[1], [])])
        assert done.returncode == 0, (command, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("width", [240, 70])
def test_the_bar_of_a_terminal_tells_all_figures_as_far_as_there_is_room(tmp_path: Path, width: int) -> None:
    config = trainable.write_config(tmp_path / "out")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    command = [sys.executable, "-m", "ms_medqa.cli.main", "train", str(config)]
    environment = os.environ | {"PYTHONPATH": str(trainable.ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while chunk := _read(ours):
            said += chunk
    os.close(ours)
    assert process.returncode == 0
    # Each state of the bar; colours and moves of the cursor left out.
    states = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", said.decode()).replace("\r", "\n").splitlines()
    last = [state for state in states if state.startswith("training:")][-1]
    assert re.search(r"6/6 \[00:\d\d<00:00, .*, loss \d", last), last
    assert len(last) <= width
    if width > 200:
        figures = ("tokens/s", "samples/s", "lr ", "norm ", "epoch ", " GB", "padding ", "scale 1", "skipped 0")
        assert [name for name in figures if name not in last] == []


def _read(end: int) -> bytes:
    try:
        return os.read(end, 65536)
    except OSError:  # Linux says so when the other end is closed
        return b""


@pytest.mark.slow
def test_lines_that_the_user_asks_mindspore_for_go_into_its_log(tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = trainable.write_config(output)
    done = run(tmp_path, [sys.executable, "-m", "ms_medqa.cli.main", "train", str(config)], GLOG_v="1")
    assert (done.returncode, without_bar(done.stderr)) == (0, [])
    log = (output / "mindspore.log").read_text(encoding="utf-8")
    assert "[INFO] ME(" in log  # Python's
    assert "[INFO] PIPELINE(" in log  # C++'s


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        ("RunError('no memory left')", 1, "ms-medqa train: error: no memory left"),
        ("RuntimeError('Device out of memory')", 1, "RuntimeError: Device out of memory"),
    ],
)
@pytest.mark.slow
def test_a_failed_run_names_the_log_and_shows_its_error(tmp_path: Path, error: str, status: int, words: str) -> None:
    output = tmp_path / "out"
    config = trainable.write_config(output)
    done = run(tmp_path, [sys.executable, "-c", _FAILING.replace("{error}", error), str(config)])
    assert done.returncode == status
    assert f"MindSpore's own lines are in {output / 'mindspore.log'}" in done.stderr
    assert done.stderr.strip().endswith(words)
    assert "no memory\n" not in done.stderr.replace(words, "")
    assert (output / "mindspore.log").read_text(encoding="utf-8") == "[ERROR] DEVICE(1,python): no memory\n"


@pytest.mark.slow
def test_what_comes_before_there_is_a_folder_reaches_the_terminal(tmp_path: Path) -> None:
    config = trainable.write_config(tmp_path / "out")
    done = run(
        tmp_path, [sys.executable, "-m", "ms_medqa.cli.main", "train", str(config), "data.max_length=40"], GLOG_v="1"
    )
    assert done.returncode == 2
    assert "[INFO] ME(" in done.stderr
    assert "\nms-medqa train: error: " in done.stderr
    assert not (tmp_path / "out").exists()
