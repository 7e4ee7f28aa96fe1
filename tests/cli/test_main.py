"""The command line: help, errors in one line, exit statuses."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import pytest

import ms_medqa
from ms_medqa.cli import main as cli
from ms_medqa.config import RunError, UserError
from ms_medqa.config.assets import LORA_CONFIG, MEDQA_MINI

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def command(monkeypatch):
    """Make `ms-medqa train` run a function of the test's own."""

    def install(run, add_arguments=lambda parser: None):
        module = types.ModuleType("ms_medqa.cli.fake", "A command of a test.")
        module.run, module.add_arguments = run, add_arguments
        monkeypatch.setitem(sys.modules, "ms_medqa.cli.fake", module)
        monkeypatch.setitem(cli.COMMANDS, "train", ("ms_medqa.cli.fake", "a fake"))

    return install


def _raise(error):
    def run(args):
        raise error

    return run


def test_help_lists_every_command(capsys):
    assert cli.main(["--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    for name, (_, text) in cli.COMMANDS.items():
        assert f"  {name}" in out
        assert text in out


def test_help_is_fast_and_imports_neither_mindspore_nor_the_config():
    code = (
        "import sys; from ms_medqa.cli.main import main; main(['--help']);"
        "sys.exit(any(name in sys.modules for name in ('mindspore', 'numpy', 'pydantic')))"
    )
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    # The fastest of three: another program may have taken the processor.
    assert min(seconds) < 0.5


@pytest.mark.parametrize("name", sorted(cli.COMMANDS))
def test_a_commands_help_does_not_load_mindspore(name):
    code = (
        f"import sys; from ms_medqa.cli.main import main; status = main([{name!r}, '--help']);"
        "sys.exit(status or 'mindspore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: ms-medqa {name} ")
    assert done.stderr == ""


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"ms-medqa {ms_medqa.__version__}\n"


def test_no_command_shows_the_help_and_fails(capsys):
    assert cli.main([]) == 2
    assert "usage: ms-medqa COMMAND" in capsys.readouterr().out


@pytest.mark.parametrize(("typed", "hint"), [("tarin", "did you mean 'train'?"), ("xyzzy", "commands: convert, train")])
def test_an_unknown_command_names_the_nearest(capsys, typed, hint):
    assert cli.main([typed]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert hint in err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (UserError("a.json: broken", "mend it"), 2, "ms-medqa train: error: a.json: broken: mend it\n"),
        (UserError("two\nlines"), 2, "ms-medqa train: error: two lines\n"),
        (RunError("no space left writing a"), 1, "ms-medqa train: error: no space left writing a\n"),
        (OSError(errno.ENOSPC, "full", "a.bin"), 1, "ms-medqa train: error: no space left writing a.bin\n"),
        (OSError(errno.ENOSPC, "full"), 1, "ms-medqa train: error: no space left writing a file\n"),
        (
            PermissionError(errno.EACCES, "Permission denied", "out"),
            2,
            "ms-medqa train: error: out: Permission denied\n",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "out"),
            2,
            "ms-medqa train: error: out: Read-only file system\n",
        ),
        (
            ModuleNotFoundError("No module named 'mindspore'", name="mindspore"),
            1,
            "ms-medqa train: error: No module named 'mindspore': `ms-medqa doctor` says what is broken\n",
        ),
        (KeyboardInterrupt(), 130, "ms-medqa train: interrupted\n"),
    ],
)
def test_an_error_is_one_line_and_a_status(command, capsys, error, status, line):
    command(_raise(error))
    assert cli.main(["train"]) == status
    assert capsys.readouterr() == ("", line)


@pytest.mark.parametrize("arguments", [["train", "--debug"], ["--debug", "train"]])
def test_debug_adds_the_traceback(command, capsys, arguments):
    command(_raise(UserError("a.json: broken")))
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert err.endswith("ms-medqa train: error: a.json: broken\n")


@pytest.mark.parametrize(
    "error", [KeyError("inner"), OSError(errno.EIO, "broken", "a"), ImportError("x", name="ms_medqa.data")]
)
def test_a_fault_of_ours_keeps_its_traceback(command, error):
    command(_raise(error))
    with pytest.raises(type(error)):
        cli.main(["train"])


def test_the_commands_status_is_the_exit_status(command):
    command(lambda args: 7)
    assert cli.main(["train"]) == 7


def test_positional_arguments_may_follow_options(command):
    seen = []

    def add_arguments(parser):
        parser.add_argument("inputs", nargs="+")
        parser.add_argument("--output")

    command(lambda args: seen.append((args.inputs, args.output)) or 0, add_arguments)
    assert cli.main(["train", "a.json", "--output", "out", "data.max_length=64", "b.json"]) == 0
    assert seen == [(["a.json", "data.max_length=64", "b.json"], "out")]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--outptu", "x"], "unknown argument '--outptu', did you mean --output?"),
        (["--outptu=x"], "did you mean --output?"),
        (["--out", "x"], "did you mean --output?"),
        (["--number", "x"], "argument --number: invalid int value: 'x'"),
    ],
)
def test_a_wrong_option_is_one_line_with_the_nearest(command, capsys, arguments, part):
    def add_arguments(parser):
        parser.add_argument("--output")
        parser.add_argument("--number", type=int)

    command(lambda args: 0, add_arguments)
    assert cli.main(["train", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("ms-medqa train: error: ")
    assert part in err


def test_a_reader_that_has_gone_is_no_error():
    code = """
import sys, types
from ms_medqa.cli import main as cli
module = types.ModuleType("fake")
module.add_arguments = lambda parser: None
module.run = lambda args: [print("x" * 100) for _ in range(10000)] and 0
sys.modules["fake"] = module
cli.COMMANDS["train"] = ("fake", "")
sys.exit(cli.main(["train"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=20) == 141
    assert process.stderr.read() == b""


def test_mindspores_own_files_and_warnings_are_sent_away_before_a_command_starts(command, monkeypatch):
    monkeypatch.delenv("MS_OM_PATH", raising=False)
    monkeypatch.delenv("GLOG_v", raising=False)
    seen = []
    command(lambda args: seen.append({**os.environ}) or 0)
    cli.main(["train"])
    folder = Path(seen[0]["MS_OM_PATH"])
    assert folder != Path.cwd()
    assert folder.is_dir()
    assert seen[0]["GLOG_v"] == "3"


def test_ctrl_c_during_the_first_imports_is_one_line(capsys, monkeypatch):
    class Interrupt:
        def find_spec(self, name, path=None, target=None):
            if name == "ms_medqa.config.errors":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "ms_medqa.config.errors")
    monkeypatch.delitem(sys.modules, "ms_medqa.backend.device", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Interrupt(), *sys.meta_path])
    assert cli.main(["convert"]) == 130
    assert capsys.readouterr().err == "ms-medqa convert: interrupted\n"


# A command that starts a file, says so, and removes it when it is interrupted.
HALF_WRITTEN = """
import os, pathlib, signal, sys, time, types
from ms_medqa.cli import main as cli

def run(args):
    half = pathlib.Path(os.environ["HALF"])
    try:
        half.touch()
        print("writing", flush=True)
        time.sleep(60)
    finally:
        if "TWICE" in os.environ:
            os.kill(os.getpid(), signal.SIGTERM)
        half.unlink()

module = types.ModuleType("fake")
module.add_arguments, module.run = lambda parser: None, run
sys.modules["fake"] = module
cli.COMMANDS["train"] = ("fake", "")
sys.exit(cli.main(["train"]))
"""


def _stop(tmp_path, number, prefix=(), environment=(), seconds=20):
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", HALF_WRITTEN],
        cwd=ROOT,
        env={**os.environ, "HALF": str(tmp_path / "half"), **dict(environment)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "writing\n"
        process.send_signal(number)
        _, errors = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return process.returncode, errors


@pytest.mark.usefixtures("hangup_counts")
@pytest.mark.parametrize("environment", [{}, {"TWICE": "1"}])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_end_cleans_up(tmp_path, number, environment):
    line = f"ms-medqa train: ended by {number.name}\n"
    assert _stop(tmp_path, number, environment=environment) == (128 + number, line)
    assert not (tmp_path / "half").exists()


@pytest.mark.parametrize("environment", [{"MS_ROLE": "MS_WORKER"}, {"RANK_SIZE": "8"}])
def test_one_rank_of_several_ends_at_once(tmp_path, environment):
    assert _stop(tmp_path, signal.SIGTERM, environment=environment) == (-signal.SIGTERM, "")


def test_nohup_still_counts(tmp_path):
    code = "import os, signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    with pytest.raises(subprocess.TimeoutExpired):
        _stop(tmp_path, signal.SIGHUP, [sys.executable, "-c", code], seconds=2)


def test_memory_that_runs_out_is_one_line(command, capsys):
    command(_raise(MemoryError("Unable to allocate 9.31 TiB")))
    assert cli.main(["train"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("ms-medqa train: error: out of memory (Unable to allocate 9.31 TiB): ")
    assert error.count("\n") == 1


def test_a_library_caller_keeps_its_handlers(command):
    seen = []
    command(lambda args: seen.append(signal.getsignal(signal.SIGTERM)) or 0)
    assert cli.main(["train"]) == 0
    assert callable(seen[0])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        mine = signal.getsignal(signal.SIGTERM)
        assert cli.main(["train"]) == 0
        assert seen[1] is mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "command",
    [
        ["convert", "~no-such-user/x", "--output", "{}/out"],
        ["convert", str(MEDQA_MINI), "--output", "~no-such-user/x"],
        ["train", "~no-such-user/x"],
        ["eval", "--data", "~no-such-user/x", "--output", "{}/out"],
        ["ask", "头痛", "--model", "~no-such-user/x"],
        ["ask", "头痛", "--adapter", "~no-such-user/x"],
        ["serve", "--model", "~no-such-user/x"],
        ["export", "--model", "~no-such-user/x", "--output", "{}/out"],
        ["merge", "--model", "{}", "--adapter", "~no-such-user/x", "--output", "{}/out"],
        ["import-bin", "~no-such-user/x", "--output", "{}/out"],
        ["inspect", "~no-such-user/x"],
        ["rank-table", "--check", "~no-such-user/x"],
        ["demo", "--output", "~no-such-user/x"],
        ["ask", "--input=~no-such-user/x", "--output=x"],
        ["ask", "--input=x", "--output=~no-such-user/x"],
        ["ask", "头痛", "--config=~no-such-user/x"],
        ["train", str(LORA_CONFIG), "data.path=~no-such-user/x"],
        ["train", str(LORA_CONFIG), "output_dir=~no-such-user/x"],
    ],
    ids=lambda words: " ".join(words[:1] + [word for word in words if "~" in word]),
)
def test_a_user_that_is_not_there_is_one_line(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([word.format(tmp_path) for word in command]) == 2
    error = capsys.readouterr().err
    assert "~no-such-user/x: there is no such user" in error
    assert "Traceback" not in error
