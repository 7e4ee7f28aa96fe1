"""Adapters on disk, in the format of Hugging Face PEFT, both ways."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import atomic_write, write_json
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.layers import Linear
from ms_medqa.models.loading import assign, read_json
from ms_medqa.models.safetensors import SafetensorsFile
from ms_medqa.peft.inject import add_to_weight, inject_lora, lora_layers

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."

# Options of PEFT that do not change what a trained adapter computes, whatever they say: names, the course of the
# training, and settings of options that are refused themselves.
_HARMLESS = frozenset(
    (
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "eva_config",
        "inference_mode",
        "layers_pattern",
        "loftq_config",
        "lora_alpha",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_type",
        "peft_version",
        "qalora_group_size",
        "r",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "velora_config",
    )
)
# Every other option, also one that is unknown here, must say nothing.
_NOTHING: tuple[Any, ...] = (None, False, [], {})
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    # Other starts (PiSSA, OLoRA, CorDA, LoftQ, …) change the base weights, which the adapter's files do not tell.
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}


@dataclass(frozen=True)
class Adapter:
    """An adapter read from disk: (A, B) for each layer's path, float32, and the scale of their product."""

    folder: Path
    r: int
    alpha: float
    layers: dict[str, tuple[np.ndarray, np.ndarray]]

    @property
    def scaling(self) -> float:
        """alpha / r."""
        return self.alpha / self.r


def save_adapter(model: CausalLM, folder: Path, base: str) -> None:
    """Write the adapters of a model so that PEFT loads them.

    Args:
        model: with injected adapters.
        folder: made if absent.
        base: what `base_model_name_or_path` shall say.
    """
    layers = lora_layers(model)
    assert layers, "there is no adapter to save"
    first = layers[0][1]
    targets = sorted({path.rsplit(".", 1)[-1] for path, _ in layers})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": first.r,
        "lora_alpha": _plain_number(first.scaling * first.r),
        "lora_dropout": first.dropout.rate if first.dropout is not None else 0.0,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": False,
        "modules_to_save": None,
    }
    tensors = {}
    for path, layer in layers:
        tensors[f"{_PREFIX}{path}.lora_A.weight"] = layer.lora_a.asnumpy()
        tensors[f"{_PREFIX}{path}.lora_B.weight"] = layer.lora_b.asnumpy()
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / WEIGHTS_FILE, "wb") as file:
        file.write(save(tensors, metadata={"format": "pt"}))
    write_json(folder / CONFIG_FILE, config)


def read_adapter(folder: str | Path) -> Adapter:
    """Read an adapter folder.

    Raises:
        UserError: files are missing or broken, or an option is set that this framework does not apply.
    """
    folder = Path(folder).expanduser()
    config = read_json(folder / CONFIG_FILE, "is this an adapter folder?")
    where = folder / CONFIG_FILE
    if config.get("peft_type") != "LORA":
        raise UserError(f"{where}: peft_type {config.get('peft_type')!r} is not supported", "supported: LORA")
    for option, value in config.items():
        if option not in _HARMLESS and value not in _NEUTRAL.get(option, _NOTHING):
            raise UserError(f"{where}: option {option} = {json.dumps(value)} is not supported")
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, (int, float)):
        raise UserError(f"{where}: r = {rank!r} and lora_alpha = {alpha!r} must be numbers, r at least 1")
    file = SafetensorsFile(folder / WEIGHTS_FILE)
    halves: dict[str, dict[str, np.ndarray]] = {}
    for key in file.keys():  # noqa: SIM118
        path, _, kind = key.removeprefix(_PREFIX).rpartition(".lora_")
        if not path or kind not in ("A.weight", "B.weight"):
            raise UserError(f"{file.path}: unexpected tensor {key}")
        halves.setdefault(path, {})[kind[0]] = file.read(key).astype(np.float32)
    for path, pair in halves.items():
        a, b = pair.get("A"), pair.get("B")
        if a is None or b is None or a.shape[:1] != (rank,) or b.shape[1:] != (rank,):
            raise UserError(f"{file.path}: {path} needs lora_A ({rank}, in) and lora_B (out, {rank})")
    if not halves:
        raise UserError(f"{file.path}: no adapter tensors")
    return Adapter(folder, rank, float(alpha), {path: (pair["A"], pair["B"]) for path, pair in halves.items()})


def load_adapter(model: CausalLM, folder: str | Path, merge: bool = True) -> Adapter:
    """Apply an adapter to a model in place.

    Args:
        model: a base model.
        folder: the adapter.
        merge: fold it into the weights (the Cells stay, so nothing compiles anew); otherwise keep it apart.

    Raises:
        UserError: the adapter was made for another model, or the model has one already; nothing has been changed then.
    """
    adapter = read_adapter(folder)
    if lora_layers(model) or model.__dict__.get("_merged_adapter"):
        raise UserError("this model has an adapter already", "load the base model anew")
    cells = dict(model.cells_and_names())
    faults = []
    for path, (a, b) in adapter.layers.items():
        cell = cells.get(path)
        if not isinstance(cell, Linear):
            faults.append(f"{path} is not in the model")
        elif (b.shape[0], a.shape[1]) != (cell.out_features, cell.in_features):
            shape = (cell.out_features, cell.in_features)
            faults.append(f"{path} is ({b.shape[0]}, {a.shape[1]}), the model's is {shape}")
    if faults:
        more = f" and {len(faults) - 1} more" if len(faults) > 1 else ""
        raise UserError(f"adapter {adapter.folder} was made for another model", f"{faults[0]}{more}")
    if merge:
        for path, (a, b) in adapter.layers.items():
            add_to_weight(cells[path].weight, (b @ a) * np.float32(adapter.scaling))
        # Nothing else tells that these are no base weights any more, and a second adapter would add to the first.
        model.__dict__["_merged_adapter"] = adapter.folder
        return adapter
    targets = {path.rsplit(".", 1)[-1] for path in adapter.layers}
    inject_lora(model, adapter.r, adapter.alpha, sorted(targets))
    for path, layer in lora_layers(model):
        # A layer that the adapter leaves out keeps its zero B, which changes nothing.
        if path in adapter.layers:
            a, b = adapter.layers[path]
            assign(layer.lora_a, a)
            assign(layer.lora_b, b)
    return adapter


def _plain_number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value
