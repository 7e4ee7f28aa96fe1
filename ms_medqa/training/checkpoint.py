"""Checkpoints that are whole or not there.

A checkpoint is written under a temporary name, synced, renamed, and then marked complete; without the mark it does
not exist for a later run. The mark holds the sha256 of each file.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from ms_medqa.config.errors import RunError, UserError
from ms_medqa.config.files import atomic_write, sha256_file, space_checked, sync_folder, write_json
from ms_medqa.models.checkpoint import read_json
from ms_medqa.models.safetensors import SafetensorsFile
from ms_medqa.models.safetensors_writer import write_safetensors

_MARK = "complete.json"
_NAME = re.compile(r"step-(\d+)")
_TEMPORARY = ".tmp-"
_WEIGHTS, _OPTIMIZER, _STATE = "weights.safetensors", "optimizer.safetensors", "trainer_state.json"


@dataclass
class TrainerState:
    """Where a run stands.

    Attributes:
        step: optimizer steps taken, skipped ones included: the position in the order of samples.
        skipped: steps discarded for overflow.
        best, best_step: best value of `train.best_metric`, and where it was.
        not_better: evaluations since then.
        stopped: why the run ended before its last step; None where it did not.
        steps_per_epoch: for reading `step` as an epoch.
        settings: everything that decides the run's course; a run resumes only under the same.
    """

    step: int = 0
    skipped: int = 0
    best: float | None = None
    best_step: int | None = None
    not_better: int = 0
    stopped: str | None = None
    steps_per_epoch: int = 0
    settings: dict[str, Any] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run, in `folder`.

    Args:
        folder: made when the first one is saved.
        keep: newest ones that are kept, besides the best.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep

    def path(self, step: int) -> Path:
        """Folder of the checkpoint of a step."""
        return self.folder / f"step-{step:06d}"

    def save(self, weights: Mapping[str, np.ndarray], optimizer: Mapping[str, np.ndarray], state: TrainerState) -> Path:
        """Write a checkpoint, then drop those that are no longer kept.

        Raises:
            RunError: no space left; the earlier checkpoints are untouched.
        """
        target = self.path(state.step)
        temporary = self.folder / f"{_TEMPORARY}{target.name}"
        with space_checked(target):
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            try:
                for name, tensors in ((_WEIGHTS, weights), (_OPTIMIZER, optimizer)):
                    with atomic_write(temporary / name, "wb") as file:
                        # Tensor by tensor: of all weights and both moments, a copy would set the peak of memory.
                        shapes = {key: (value.dtype.name, value.shape) for key, value in tensors.items()}
                        write_safetensors(file, shapes, tensors.items())
                write_json(temporary / _STATE, asdict(state))
                digests = {name: sha256_file(temporary / name) for name in (_WEIGHTS, _OPTIMIZER, _STATE)}
                _remove(target)
                temporary.rename(target)
                sync_folder(self.folder)
                write_json(target / _MARK, {"sha256": digests})
            except BaseException as error:
                shutil.rmtree(temporary, ignore_errors=True)
                if not (target / _MARK).exists():
                    shutil.rmtree(target, ignore_errors=True)
                if isinstance(error, RunError):
                    # The temporary folder is gone when the message is read.
                    raise RunError(str(error).replace(temporary.name, target.name)) from error
                raise
        self._prune(state)
        return target

    def complete(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        if not self.folder.is_dir():
            return []
        found = [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and (path / _MARK).exists()]
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def _prune(self, state: TrainerState) -> None:
        kept = self.complete()[-self.keep :]
        if state.best_step is not None:
            kept.append(self.path(state.best_step))
        for path in self.folder.iterdir():
            # A killed process may have left a temporary folder, or one without the mark.
            if path not in kept and (_NAME.fullmatch(path.name) or path.name.startswith(_TEMPORARY)):
                _remove(path)


def _remove(folder: Path) -> None:
    """Remove a checkpoint, its mark first: what a kill leaves of it must not pass for complete."""
    if folder.is_dir():
        (folder / _MARK).unlink(missing_ok=True)
        sync_folder(folder)
        shutil.rmtree(folder)


def load_checkpoint(folder: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], TrainerState]:
    """(weights, optimizer state, trainer state) of a complete checkpoint.

    Raises:
        UserError: it is not complete, or a file is not what was written.
    """
    if not (folder / _MARK).exists():
        raise UserError(f"{folder}: not a complete checkpoint", "choose another, or resume with `auto`")
    for name, digest in read_json(folder / _MARK)["sha256"].items():
        if not (folder / name).exists() or sha256_file(folder / name) != digest:
            raise UserError(
                f"{folder / name}: changed or missing since it was written", "resume from another checkpoint"
            )
    values = read_json(folder / _STATE)
    if values.keys() != {each.name for each in fields(TrainerState)}:
        raise UserError(f"{folder}: written by another version of ms_medqa", "start anew without --resume")
    state = TrainerState(**values)
    return _read(folder / _WEIGHTS), _read(folder / _OPTIMIZER), state


def load_weights(folder: Path) -> dict[str, np.ndarray]:
    """The trained weights of a checkpoint alone."""
    return _read(folder / _WEIGHTS)


def _read(path: Path) -> dict[str, np.ndarray]:
    file = SafetensorsFile(path)
    return {key: np.array(file.read(key)) for key in file.keys()}  # noqa: SIM118
