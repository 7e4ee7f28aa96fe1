"""Checkpoints are whole or not there: marks, checksums, pruning, a full disk, a kill at any moment."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ms_medqa.config import Config, RunError, UserError
from ms_medqa.training.checkpoint import Checkpoints, TrainerState, load_checkpoint, load_weights
from ms_medqa.training.run import find_checkpoint


def content(step: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], TrainerState]:
    rng = np.random.default_rng(step)
    weights = {"a.lora_a": rng.random((3, 4), np.float32), "b": rng.random(5, np.float32)}
    optimizer = {"adam_m.b": rng.random(5, np.float32), "global_step": np.array(step - 1, np.int32)}
    return weights, optimizer, TrainerState(step, 1, 0.5, 2, 7, {"train.epochs": 3, "lora": {"r": 4}, "x": None})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_whole(path: Path, step: int) -> None:
    for found, expected in zip(load_checkpoint(path)[:2], content(step)[:2], strict=True):
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            assert found[name].shape == value.shape
            assert np.array_equal(found[name], value)


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    """Steps 3 and 12 are there."""
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints", 3)
    for step in (3, 12):
        checkpoints.save(*content(step))
    return checkpoints


def test_round_trip(checkpoints: Checkpoints) -> None:
    assert [path.name for path in checkpoints.complete()] == ["step-000003", "step-000012"]
    for step in (3, 12):
        assert_whole(checkpoints.path(step), step)
    assert load_checkpoint(checkpoints.path(12))[2] == content(12)[2]
    assert np.array_equal(load_weights(checkpoints.path(3))["b"], content(3)[0]["b"])


def test_nothing_is_complete_before_the_first_one(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none", 3).complete() == []


def test_without_the_mark_it_does_not_exist(checkpoints: Checkpoints) -> None:
    (checkpoints.path(12) / "complete.json").unlink()
    assert [path.name for path in checkpoints.complete()] == ["step-000003"]
    with pytest.raises(UserError, match="step-000012: not a complete checkpoint"):
        load_checkpoint(checkpoints.path(12))


@pytest.mark.parametrize("name", ["weights.safetensors", "optimizer.safetensors", "trainer_state.json"])
def test_a_flipped_byte_or_a_lost_file_is_refused(checkpoints: Checkpoints, name: str) -> None:
    path = checkpoints.path(12) / name
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=rf"step-000012/{name}: changed or missing .*another checkpoint"):
        load_checkpoint(checkpoints.path(12))
    path.unlink()
    with pytest.raises(UserError, match=rf"step-000012/{name}: changed or missing"):
        load_checkpoint(checkpoints.path(12))


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 2)
    for step, best in ((1, None), (2, 2), (3, 2), (4, 2), (5, 5), (6, 5), (7, 5), (8, 5)):
        weights, optimizer, state = content(step)
        state.best_step = best
        checkpoints.save(weights, optimizer, state)
        if step == 4:
            assert names(tmp_path) == ["step-000002", "step-000003", "step-000004"]
            # What a killed process left is no reason to keep a file less.
            (tmp_path / "step-000099").mkdir()
    assert names(tmp_path) == ["step-000005", "step-000007", "step-000008"]
    assert_whole(checkpoints.path(5), 5)


def test_a_step_saved_again_takes_the_place_of_the_earlier_one(checkpoints: Checkpoints) -> None:
    weights, optimizer, state = content(12)
    weights["b"] = weights["b"] + 1
    checkpoints.save(weights, optimizer, state)
    assert names(checkpoints.folder) == ["step-000003", "step-000012"]
    assert np.array_equal(load_checkpoint(checkpoints.path(12))[0]["b"], weights["b"])


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace", "rename"])
def test_a_full_disk_at_any_moment_leaves_the_earlier_ones(
    checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch, call: str, error: int
) -> None:
    real = getattr(os, call)
    failures = 0
    for moment in range(1, 50):
        calls = 0

        def full(*arguments: object, moment: int = moment) -> object:
            nonlocal calls
            calls += 1
            if calls == moment:
                raise OSError(error, os.strerror(error))
            return real(*arguments)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, full)
            said = ""
            try:
                checkpoints.save(*content(20))
            except RunError as stopped:
                said = str(stopped)
        if not said:
            break
        failures += 1
        # A path that the user knows, not that of a temporary folder which is gone.
        assert f"no space left writing {checkpoints.path(20)}" in said
        if "step-000020" in names(checkpoints.folder):
            # It failed after the mark was in place: then the checkpoint is whole.
            assert_whole(checkpoints.path(20), 20)
            shutil.rmtree(checkpoints.path(20))
        assert names(checkpoints.folder) == ["step-000003", "step-000012"], moment
        for step in (3, 12):
            assert names(checkpoints.path(step)) == [
                "complete.json",
                "optimizer.safetensors",
                "trainer_state.json",
                "weights.safetensors",
            ]
            assert_whole(checkpoints.path(step), step)
    assert failures >= (1 if call == "rename" else 4)
    assert [path.name for path in checkpoints.complete()][-1] == "step-000020"


# Forks one process a moment; it kills itself there, as a power cut would: no clean-up runs.
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_checkpoint import Checkpoints, content, load_checkpoint
checkpoints = Checkpoints(Path(sys.argv[1]), 3)
for step in (3, 12):
    checkpoints.save(*content(step))
for moment in range(1, 99):
    child = os.fork()
    if child == 0:
        calls = 0
        def counted(real):
            def call(*arguments, **options):
                global calls
                calls += 1
                if calls == moment:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments, **options)
            return call
        for name in ("fsync", "replace", "rename", "mkdir", "rmdir", "unlink"):
            setattr(os, name, counted(getattr(os, name)))
        checkpoints.save(*content(12 if moment % 2 else 20))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    found = [int(path.name[5:]) for path in checkpoints.complete()]
    for path in checkpoints.complete():
        load_checkpoint(path)
    print(moment, "killed" if os.WIFSIGNALED(status) else "done", *found)
    if not os.WIFSIGNALED(status) and moment % 2 == 0:
        break
    if 12 not in found:
        checkpoints.save(*content(12))
    if 20 in found:
        (checkpoints.path(20) / "complete.json").unlink()
checkpoints.save(*content(20))
print(*sorted(path.name for path in checkpoints.folder.iterdir()))
"""


def test_a_kill_at_any_moment_leaves_only_whole_checkpoints(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "run"), str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    *moments, last = done.stdout.splitlines()
    killed = [line for line in moments if "killed" in line]
    assert len(killed) > 15
    for line in moments:
        assert line.split()[2] == "3", line  # an earlier one never goes before the new one is there
    assert any(line.split()[-1] == "12" for line in killed)
    assert last == "step-000003 step-000012 step-000020"  # no leftovers of any kill


class TestFind:
    """Which checkpoint a run goes on from."""

    def test_auto_takes_the_newest_complete_one_by_number(self, tmp_path: Path) -> None:
        config = Config(output_dir=str(tmp_path))
        config.train.resume = "auto"
        checkpoints = Checkpoints(tmp_path / "checkpoints", 9)
        for step in (999_999, 1_000_000, 7):
            checkpoints.save(*content(step))
        (tmp_path / "checkpoints" / "step-2000000").mkdir()
        (tmp_path / "checkpoints" / "step-3000000.bak").mkdir()
        assert find_checkpoint(config, tmp_path) == checkpoints.path(1_000_000)

    def test_auto_with_nothing_there_starts_anew(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config = Config()
        config.train.resume = "auto"
        assert find_checkpoint(config, tmp_path) is None
        assert "nothing to resume" in capsys.readouterr().out

    def test_a_folder_that_is_named_must_be_there(self, tmp_path: Path) -> None:
        config = Config()
        config.train.resume = str(tmp_path / "step-000001")
        with pytest.raises(UserError, match=r"train\.resume = .*step-000001'?: no such folder"):
            find_checkpoint(config, tmp_path)

    def test_without_resume_nothing_is_looked_for(self, tmp_path: Path) -> None:
        Checkpoints(tmp_path / "checkpoints", 9).save(*content(3))
        assert find_checkpoint(Config(), tmp_path) is None
