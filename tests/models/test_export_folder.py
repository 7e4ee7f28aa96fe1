"""The output of an export: whole or absent, in files of a set size."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import mindspore as ms
import pytest
from exports import contents, tensors_of

from ms_medqa.config import RunError, UserError
from ms_medqa.models import output, shards
from ms_medqa.models.safetensors import SafetensorsFile
from ms_medqa.models.shards import Stored, parse_size, plan_shards
from ms_medqa.peft.export import export

# As the command runs it: a model that computes once is not worth compiling.
pytestmark = pytest.mark.usefixtures("pynative_mode")


class TestWholeOrAbsent:
    """The output folder is never half written, and nothing of the user's is replaced."""

    def test_an_earlier_export_is_replaced(self, base: Path, adapter: Path, tmp_path: Path) -> None:
        export(base, adapter, tmp_path / "out", max_shard_size="10KB")
        export(base, adapter, tmp_path / "out")
        assert sorted(contents(tmp_path / "out")) == ["config.json", "export.json", "model.safetensors"]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base", "out"]

    def test_an_empty_folder_is_used(self, base: Path, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        export(base, None, tmp_path / "out")
        assert (tmp_path / "out" / "config.json").exists()

    @pytest.mark.parametrize("earlier", [False, True])
    def test_foreign_files_stay(self, base: Path, tmp_path: Path, earlier: bool) -> None:
        if earlier:
            export(base, None, tmp_path / "out")
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / "notes.txt").write_text("mine")
        before = contents(tmp_path / "out")
        with pytest.raises(UserError, match=r"holds notes\.txt, which no export wrote"):
            export(base, None, tmp_path / "out")
        assert contents(tmp_path / "out") == before

    @pytest.mark.parametrize("link", [False, True])
    def test_a_folder_by_the_name_of_an_exported_file_stays(self, base: Path, tmp_path: Path, link: bool) -> None:
        export(base, None, tmp_path / "out")
        (tmp_path / "out" / "model.safetensors").unlink()
        if link:
            (tmp_path / "mine").mkdir()
            (tmp_path / "out" / "model.safetensors").symlink_to(tmp_path / "mine")
        else:
            (tmp_path / "out" / "model.safetensors").mkdir()
            (tmp_path / "out" / "model.safetensors" / "notes.txt").write_text("mine")
        with pytest.raises(UserError, match=r"holds model\.safetensors, which no export wrote"):
            export(base, None, tmp_path / "out")
        assert (tmp_path / "out" / "model.safetensors").is_dir()

    def test_a_file_is_no_folder(self, base: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        with pytest.raises(UserError, match="not a folder"):
            export(base, None, tmp_path / "out")

    @pytest.mark.parametrize("format", ["hf", "ckpt"])
    @pytest.mark.parametrize("earlier", [False, True])
    def test_a_disk_that_fills_up(
        self, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, earlier: bool
    ) -> None:
        out = tmp_path / "new" / "out"
        if earlier:
            export(base, None, out)
        before, calls = contents(out) if earlier else None, []

        def full(function: Any) -> Any:
            def write(*args: Any) -> None:
                calls.append(1)
                if len(calls) == 3:
                    raise OSError(errno.ENOSPC, "No space left on device")
                function(*args)

            return write

        monkeypatch.setattr(shards, "write_safetensors", full(shards.write_safetensors))
        monkeypatch.setattr(ms, "save_checkpoint", full(ms.save_checkpoint))
        with pytest.raises(RunError, match=f"no space left writing {out}"):
            export(base, None, out, format=format, max_shard_size="10KB")
        assert len(calls) == 3
        assert (contents(out) if out.exists() else None) == before
        found = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_dir()]
        assert sorted(found) == (["base", "new", "new/out"] if earlier else ["base"])

    def test_space_is_checked_before_writing(self, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = type("Usage", (), {"free": 10**6})
        monkeypatch.setattr(output.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(RunError, match=r"needs 1\.\d+ MB, and 1\.00 MB are free"):
            export(base, None, tmp_path / "new" / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["base"]

    def test_what_a_killed_export_left_goes(self, base: Path, tmp_path: Path) -> None:
        export(base, None, tmp_path / "out")
        before, seen = contents(tmp_path / "out"), tmp_path / "seen.json"
        # The process dies while it writes: nothing is cleaned up.
        code = f"""
import json, os
from pathlib import Path
from ms_medqa.backend.device import setup
setup("CPU", mode="pynative")
from ms_medqa.models.companions import Companions
from ms_medqa.peft.export import export
def die(self, folder):
    Path({str(seen)!r}).write_text(json.dumps(os.listdir(folder)))
    os.kill(os.getpid(), 9)
Companions.write = die
export({str(base)!r}, None, {str(tmp_path / "out")!r})
"""
        assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
        assert json.loads(seen.read_text()) == ["model.safetensors"]
        assert contents(tmp_path / "out") == before
        seen.unlink()
        export(base, None, tmp_path / "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "out"]

    def test_a_folder_that_cannot_be_replaced(
        self, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "out").mkdir()
        monkeypatch.setattr("os.path.ismount", lambda path: Path(path) == tmp_path / "out")
        with pytest.raises(UserError, match="is a mount point"):
            export(base, None, tmp_path / "out")

    def test_the_base_is_only_read(self, base: Path, adapter: Path, tmp_path: Path) -> None:
        for path in (*base.iterdir(), *adapter.iterdir()):
            path.chmod(0o444)
        before = contents(base)
        export(base, adapter, tmp_path / "out", check=True)
        assert contents(base) == before
        assert all(path.stat().st_mode & 0o200 for path in (tmp_path / "out").iterdir())


class TestShards:
    """Sizes, names and the index."""

    def test_sizes(self) -> None:
        assert [parse_size(text) for text in ("5GB", "1.5 mb", "2GiB", "1000")] == [5 * 10**9, 1500000, 2**31, 1000]
        for text in ("", "5 apples", "-1GB", "0GB", "GB", "5G", "9" * 400, "1" + "0" * 20, "٥GB", "5\u212aB"):
            with pytest.raises(UserError, match="is not a size"):
                parse_size(text)

    def test_files_are_filled_in_order(self) -> None:
        sizes = {"a": 60, "b": 60, "c": 20, "d": 300, "e": 20, "f": 99}
        plan = plan_shards({name: Stored("bfloat16", (size // 2,)) for name, size in sizes.items()}, 100)
        assert [list(tensors) for tensors in plan.files.values()] == [["a"], ["d"], ["b", "c", "e"], ["f"]]
        assert list(plan.files)[1] == "model-00002-of-00004.safetensors"
        assert plan.total_size == 558

    def test_index(self, base: Path, tmp_path: Path) -> None:
        result = export(base, None, tmp_path / "out", max_shard_size="10KB")
        index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text("utf-8"))
        paths = sorted((tmp_path / "out").glob("*.safetensors"))
        assert [path.name for path in paths] == [
            f"model-{i:05d}-of-{len(paths):05d}.safetensors" for i in range(1, len(paths) + 1)
        ]
        assert len(paths) == result.files > 2
        where = {key: path.name for path in paths for key in SafetensorsFile(path).keys()}  # noqa: SIM118
        assert index["weight_map"] == where
        assert index["metadata"]["total_size"] == sum(len(data) for _, data in tensors_of(tmp_path / "out").values())
        assert all(SafetensorsFile(path).metadata == {"format": "pt"} for path in paths)
