"""MindSpore's own files stay out of the user's folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from ms_medqa.config import RunError
from ms_medqa.config.scratch import redirect_droppings, scratch_folder


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_the_folder_is_private_and_the_same_each_time(temporary):
    folder = scratch_folder()
    assert folder.parent == temporary
    assert folder.stat().st_mode & 0o077 == 0
    assert scratch_folder() == folder


def test_no_temporary_folder_is_a_run_error(monkeypatch):
    def none():
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    with pytest.raises(RunError, match=r"No usable temporary directory .*: free some space, or .* TMPDIR"):
        scratch_folder()


def test_a_folder_that_is_a_link_is_not_used(temporary):
    target = temporary / "elsewhere"
    target.mkdir()
    (temporary / f"ms_medqa-{os.getuid()}").symlink_to(target)
    assert scratch_folder().resolve() != target.resolve()


def test_variables_are_set_unless_the_user_has_set_them(temporary):
    environment = {"MS_OM_PATH": "/mine"}
    redirect_droppings(environment)
    assert environment["MS_OM_PATH"] == "/mine"
    assert Path(environment["MS_COMPILER_CACHE_PATH"]) == Path(environment["ASCEND_WORK_PATH"]) == scratch_folder()
    # Administrators look for CANN's logs here; ASCEND_WORK_PATH alone would move them.
    assert environment["ASCEND_PROCESS_LOG_PATH"].endswith("ascend/log")


def test_a_user_who_set_the_work_path_keeps_the_log_path(temporary):
    environment = {"ASCEND_WORK_PATH": "/mine"}
    redirect_droppings(environment)
    assert environment["ASCEND_WORK_PATH"] == "/mine"
    assert "ASCEND_PROCESS_LOG_PATH" not in environment
