"""Files are whole or absent."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from ms_medqa.config import RunError, UserError
from ms_medqa.config.files import atomic_write, sha256_file, space_checked, write_json


def test_atomic_write_makes_missing_folders_and_leaves_only_the_file(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"
    with atomic_write(path) as file:
        file.write("糖尿病\n")
        assert not path.exists()
    assert path.read_bytes() == "糖尿病\n".encode()
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def _write_and_raise(path, error):
    with atomic_write(path) as file:
        file.write("new")
        raise error


def test_an_error_keeps_the_old_content_and_removes_the_temporary_file(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _write_and_raise(path, KeyboardInterrupt())
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_run_error_that_names_the_file(tmp_path, number):
    path = tmp_path / "a.bin"
    with pytest.raises(RunError, match=r"no space left writing .*a\.bin"):
        _write_and_raise(path, OSError(number, os.strerror(number)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_really_full_device_is_reported():
    with (
        pytest.raises(RunError, match="no space left writing x"),
        space_checked("x"),
        Path("/dev/full").open("w") as file,
    ):
        file.write("1" * 100_000)


def test_other_os_errors_pass_through(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file") as info, atomic_write(tmp_path / "file" / "below"):
        pass
    assert not isinstance(info.value, RunError)


def test_a_written_file_has_the_users_permissions(tmp_path):
    before = os.umask(0o022)
    try:
        write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o644


def test_write_json_keeps_order_and_characters(tmp_path):
    write_json(tmp_path / "a.json", {"b": "胰岛素", "a": 1})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == '{\n  "b": "胰岛素",\n  "a": 1\n}\n'
    assert list(json.loads(text)) == ["b", "a"]


def test_sha256_of_a_file_larger_than_a_block(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    # FIPS 180-4's example for the message `abc`.
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "a").write_bytes(b"a" * 1_000_000 + b"a" * 200_000)
    (tmp_path / "b").write_bytes(b"a" * 1_199_999 + b"b")
    assert sha256_file(tmp_path / "a") != sha256_file(tmp_path / "b")


def test_a_link_stays_and_its_file_is_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "file")
    with atomic_write(tmp_path / "link") as file:
        file.write("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_regular_file_is_never_replaced(tmp_path, kind):
    path = tmp_path / kind
    path.mkdir() if kind == "folder" else os.mkfifo(path)
    with pytest.raises(UserError, match="not a regular file"), atomic_write(path):
        pass
    assert not path.is_file()
