"""One process at a time makes a result folder."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.config import UserError
from ms_medqa.data.folder import new_folder


def make(output: Path) -> Any:
    return new_folder(output, mark="mark", names=["mark"])


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with make(tmp_path / "out") as work:
        (work / "mark").touch()
        with pytest.raises(UserError, match="another process is writing it"), make(tmp_path / "out"):
            pass
    with make(tmp_path / "out") as work:
        (work / "mark").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def late_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The holder before removes its lock file between the opening of the file here and its lock."""
    locked: list[int] = []

    def flock(file: Any, operation: int) -> None:
        if not locked:
            (tmp_path / ".out.lock").unlink()
        locked.append(file.fileno())
        fcntl_flock(file, operation)

    fcntl_flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)
    return locked


def test_the_lock_of_a_removed_file_is_no_lock(tmp_path: Path, late_lock: list[int]) -> None:
    with make(tmp_path / "out") as work:
        assert len(late_lock) == 2
        assert (tmp_path / ".out.lock").exists()
        with pytest.raises(UserError, match="another process is writing it"), make(tmp_path / "out"):
            pass
        (work / "mark").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
