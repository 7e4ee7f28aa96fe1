"""The shell entry points: which Python they take, what they install and pass on. Python itself is a stub here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Logs how it was called; `-m venv --clear DIR` makes DIR with itself as its python.
_STUB = """#!/bin/bash
printf '%s' "$(basename "$0")" >>"$STUB_LOG"; printf ' <%s>' "$@" >>"$STUB_LOG"; echo >>"$STUB_LOG"
if [ "$1 $2" = "-m venv" ]; then
  mkdir -p "$4/bin"
  cp "$0" "$4/bin/python"
  printf '#!/bin/bash\\necho "in $PWD"; printf "<%%s>" "$@"' >"$4/bin/ms-medqa"
  chmod +x "$4/bin/ms-medqa"
fi
"""
_OLD = "#!/bin/bash\nexit 1\n"


class Project:
    """A copy of the scripts in a folder with a space, and a PATH with stubs."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "my project"
        self.bin = folder / "bin"
        self.elsewhere = folder / "else where"
        self.log = folder / "calls"
        for path in (self.bin, self.elsewhere):
            path.mkdir(parents=True)
        for name in ("run", "ms_medqa/backend/kernels"):
            shutil.copytree(ROOT / name, self.root / name)
        for name in ("setup.py", "pyproject.toml", "ms_medqa/__init__.py"):
            shutil.copy(ROOT / name, self.root / name)
        for name in ("bash", "basename", "dirname", "cat", "cksum", "mkdir", "cp", "chmod", "env", "ls"):
            (self.bin / name).symlink_to(shutil.which(name))

    def python(self, name: str, text: str = _STUB) -> Path:
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)
        return path

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script from another folder."""
        self.log.write_text("")
        clean = {
            key: value for key, value in os.environ.items() if key not in ("PYTHON", "PYTHONPATH", "MS_MEDQA_VENV")
        }
        return subprocess.run(
            ["bash", str(self.root / "run" / script), *arguments],
            cwd=self.elsewhere,
            env={**clean, "PATH": str(self.bin), "STUB_LOG": str(self.log), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def calls(self) -> str:
        return self.log.read_text()


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def test_quickstart_makes_a_venv_installs_once_and_runs_the_demo_where_the_user_is(project):
    project.python("python3", _OLD)
    project.python("python3.11")
    done = project.run("quickstart.sh", "--output", "a b")
    assert done.returncode == 0, done.stderr
    assert f"in {project.elsewhere}\n<demo><--output><a b>" in done.stdout
    assert f"python3.11 <-m> <venv> <--clear> <{project.root}/.venv>" in project.calls
    assert "python <-m> <pip> <install>" in project.calls
    assert "<-e> <.>" in project.calls

    again = project.run("quickstart.sh")
    assert "install" not in again.stdout + project.calls.replace("<pip> <--version>", "")

    for name in ("setup.py", "ms_medqa/backend/kernels/lanes.h"):
        with (project.root / name).open("a") as file:
            file.write("# something else\n")
        project.run("quickstart.sh")
        assert "<install>" in project.calls


def test_a_compiler_that_has_come_is_made_use_of(project):
    project.python("python3")
    project.run("quickstart.sh")
    project.run("quickstart.sh")
    assert "<install>" not in project.calls
    project.python("g++")
    project.run("quickstart.sh")
    assert "<install>" in project.calls


def test_quickstart_mends_a_half_made_venv(project):
    project.python("python3")
    (project.root / ".venv" / "bin").mkdir(parents=True)
    (project.root / ".venv" / "pyvenv.cfg").write_text("")
    assert project.run("quickstart.sh").returncode == 0
    assert "<-m> <venv>" in project.calls


def test_a_folder_that_is_no_venv_is_not_emptied(project):
    project.python("python3")
    (project.elsewhere / "thesis.txt").write_text("mine")
    done = project.run("quickstart.sh", MS_MEDQA_VENV=str(project.elsewhere))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is no virtual environment" in done.stderr
    assert (project.elsewhere / "thesis.txt").read_text() == "mine"
    assert "venv" not in project.calls.replace("import sys, venv", "")


def test_a_venv_that_cannot_be_made_is_one_clear_line(project):
    project.python("python3")
    done = project.run("run_tests.sh", MS_MEDQA_VENV=f"{project.log}/venv")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"{project.log}/venv cannot be made: name another folder" in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_project_that_cannot_be_written_to_is_one_clear_line(project):
    project.python("python3")
    project.root.chmod(0o555)
    done = project.run("quickstart.sh", MS_MEDQA_VENV=str(project.elsewhere / "venv"))
    project.root.chmod(0o755)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "copy the project" in done.stderr


def test_cdpath_of_the_users_shell_plays_no_part(project):
    project.python("python3")
    (project.elsewhere / "run").mkdir()
    done = subprocess.run(
        ["bash", "run/quickstart.sh"],
        cwd=project.root,
        env={"PATH": str(project.bin), "STUB_LOG": str(project.log), "CDPATH": str(project.elsewhere)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"<--clear> <{project.root}/.venv>" in project.calls


def test_a_failed_installation_is_tried_again(project):
    project.python("python3", _STUB.rstrip() + '\n[ "$3" = install ] && exit 1 || exit 0\n')
    assert project.run("quickstart.sh").returncode == 1
    project.python("python3")
    shutil.copy(project.bin / "python3", project.root / ".venv" / "bin" / "python")
    assert project.run("quickstart.sh").returncode == 0
    assert "<install>" in project.calls


@pytest.mark.parametrize("pythons", [[], ["python3", "python3.12"]])
def test_no_usable_python_is_one_clear_line(project, pythons):
    for name in pythons:
        project.python(name, _OLD)
    done = project.run("quickstart.sh")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no Python 3.10, 3.11 or 3.12" in done.stderr
    assert not (project.root / ".venv").exists()


def test_python_of_the_environment_wins(project):
    project.python("python3")
    named = project.python("my-python")
    assert project.run("quickstart.sh", PYTHON=str(named)).returncode == 0
    assert "my-python <-m> <venv>" in project.calls
    done = project.run("quickstart.sh", PYTHON="/no/python", MS_MEDQA_VENV=str(project.root / "other"))
    assert done.returncode == 2
    assert "PYTHON=/no/python is not" in done.stderr


@pytest.mark.parametrize(("parity", "extras"), [("0", "[test]"), ("1", "[test,parity]")])
def test_run_tests_installs_the_extra_and_passes_arguments_on(project, parity, extras):
    project.python("python3")
    done = project.run("run_tests.sh", "-m", "not slow", MS_MEDQA_PARITY=parity)
    assert done.returncode == 0, done.stderr
    assert f"<-e> <.{extras}>" in project.calls
    command = project.calls.splitlines()[-1]
    assert command.startswith("python <-m> <pytest> <-n> <auto>")
    assert command.endswith("<-m> <not slow>")


@pytest.mark.parametrize(
    ("script", "module"),
    [
        ("run_standalone_train.sh", "<ms_medqa.cli.main> <train>"),
        ("run_distribute_train.sh", "<ms_medqa.launch.msrun>"),
    ],
)
def test_train_scripts_prefer_the_venv_and_pass_arguments_on(project, script, module):
    project.python("python3")
    project.run("quickstart.sh")
    done = project.run(script, "my config.yaml", "train.epochs=1")
    assert done.returncode == 0, done.stderr
    assert project.calls == f"python <-m> {module} <my config.yaml> <train.epochs=1>\n"


def test_without_a_venv_the_train_scripts_take_a_python_that_has_mindspore(project):
    project.python("python", _OLD)
    project.python("python3")
    assert project.run("run_standalone_train.sh", "a.yaml").returncode == 0
    assert "python3 <-m> <ms_medqa.cli.main> <train> <a.yaml>" in project.calls


def test_without_any_python_the_train_scripts_say_what_to_do(project):
    done = project.run("run_distribute_train.sh", "8")
    assert done.returncode == 2
    assert "bash run/quickstart.sh" in done.stderr


def test_a_python_that_is_not_there_is_one_clear_line(project):
    done = project.run("run_standalone_train.sh", "a.yaml", PYTHON="/no/python")
    assert done.returncode == 2
    assert done.stderr == "run_standalone_train.sh: error: PYTHON=/no/python: no such program\n"


def test_standalone_without_a_config_shows_its_usage(project):
    done = project.run("run_standalone_train.sh")
    assert done.returncode == 2
    assert "usage:" in done.stderr
