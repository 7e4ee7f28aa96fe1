"""An adapter on disk, in the format of Hugging Face PEFT."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.models.bin_files import ADAPTER_FILE as PICKLE_FILE
from ms_medqa.models.safetensors import SafetensorsFile
from ms_medqa.peft.options import CONFIG_FILE, read_options, scaling_of
from ms_medqa.peft.select import Targets

WEIGHTS_FILE = "adapter_model.safetensors"
_FLOATS = ("F64", "F32", "F16", "BF16")
PREFIX = "base_model.model."


@dataclass(frozen=True)
class LoraPair:
    """The two halves of one layer's update.

    Attributes:
        a: float32 (r, in).
        b: float32 (out, r).
    """

    a: np.ndarray
    b: np.ndarray
    alpha: float
    use_rslora: bool = False

    @property
    def r(self) -> int:
        """Rank."""
        return len(self.a)

    @property
    def scaling(self) -> float:
        """What B A is multiplied by."""
        return scaling_of(self.r, self.alpha, self.use_rslora)


@dataclass(frozen=True)
class SavedTensor:
    """A tensor that the adapter's file holds whole. It stays there until it is read: an embedding is large."""

    file: SafetensorsFile
    key: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.file.shape(self.key)

    def read(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """float32: its rows from `start` to `stop`, by default all."""
        rows, *width = self.shape
        out = np.empty((min(rows, rows if stop is None else stop) - start, *width), np.float32)
        self.file.read_into(self.key, out, start)
        return out


@dataclass(frozen=True)
class Adapter:
    """An adapter read from disk. Paths and names are those of the base's checkpoint, as the files have them.

    Attributes:
        layers: path of a module -> its update.
        saved: tensors that replace the base's, by name (`modules_to_save`); an update of the same layer comes on top.
        modules_to_save: ends of the paths of the modules that were trained whole.
        notes: what a user should know about its options, a line each.
        targets: the modules that its options give an update; None where they do not tell.
    """

    folder: Path
    layers: dict[str, LoraPair]
    saved: dict[str, SavedTensor]
    modules_to_save: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    targets: Targets | None = None


def read_adapter(folder: str | Path) -> Adapter:
    """Read an adapter folder.

    Raises:
        UserError: files are missing or broken, or an option is set that this framework does not apply.
    """
    folder = user_path(folder)
    options = read_options(folder)
    if (folder / PICKLE_FILE).is_file() and not (folder / WEIGHTS_FILE).exists():
        raise UserError(
            f"{folder}: weights must be *.safetensors, and pickles such as {PICKLE_FILE} are never read here",
            f"`ms-medqa import-bin {folder} --output DIR` turns them into safetensors",
        )
    file = SafetensorsFile(folder / WEIGHTS_FILE)
    halves: dict[str, dict[str, np.ndarray]] = {}
    saved: dict[str, SavedTensor] = {}
    for key in file.keys():  # noqa: SIM118
        if file.dtype(key) not in _FLOATS:
            raise UserError(f"{file.path}: tensor {key} has type {file.dtype(key)}", f"supported: {', '.join(_FLOATS)}")
        name = key.removeprefix(PREFIX)
        path, _, kind = name.rpartition(".lora_")
        if path and kind in ("A.weight", "B.weight"):
            halves.setdefault(path, {})[kind[0]] = file.read(key).astype(np.float32)
        elif ".lora_" not in name and name.endswith((".weight", ".bias")):
            # Beside an adapter on the head, PEFT also saves the weights below it.
            saved[name.replace(".base_layer.", ".")] = SavedTensor(file, key)
        else:
            raise UserError(f"{file.path}: unexpected tensor {key}")
    layers = {}
    for path, pair in halves.items():
        a, b, rank = pair.get("A"), pair.get("B"), options.rank_of(path)
        if a is None or b is None or a.ndim != 2 or b.ndim != 2 or (a.shape[0], b.shape[1]) != (rank, rank):
            raise UserError(f"{file.path}: {path} needs lora_A ({rank}, in) and lora_B (out, {rank})")
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise UserError(f"{file.path}: {path} holds NaN or infinity", "take an earlier checkpoint of the training")
        layers[path] = LoraPair(a, b, options.alpha_of(path), options.use_rslora)
    if not layers and not saved:
        raise UserError(f"{file.path}: no adapter tensors")
    if options.modules_to_save and not saved:
        names = ", ".join(options.modules_to_save)
        raise UserError(f"{file.path}: no tensor of modules_to_save = {names}")
    notes = ()
    if options.fan_in_fan_out:
        # PEFT does so, too: the option tells how a base stores its weights, and the adapter's halves never change.
        notes = (f"{folder / CONFIG_FILE}: fan_in_fan_out = true is for layers stored (in, out); here it is false",)
    return Adapter(folder, layers, saved, options.modules_to_save, notes, options.targets)
