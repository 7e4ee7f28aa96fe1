"""Write the adapters of a model as PEFT does."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ms_medqa.config.files import atomic_write, write_json
from ms_medqa.models.checkpoint import EMBEDDING, HEAD
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.naming import Naming, naming_of_config
from ms_medqa.models.safetensors_writer import encode, write_safetensors
from ms_medqa.peft.adapter import PREFIX, WEIGHTS_FILE, LoraPair
from ms_medqa.peft.base import write_base
from ms_medqa.peft.inject import lora_layers
from ms_medqa.peft.lora import LoraLinear
from ms_medqa.peft.options import CONFIG_FILE
from ms_medqa.peft.select import EMBEDDING_PATH, HEAD_PATH
from ms_medqa.peft.whole import whole_modules


def save_adapter(model: CausalLM, folder: Path, base: str, fingerprint: str | None = None) -> None:
    """Write the adapters of a model so that PEFT loads them on the base's own checkpoint.

    Args:
        model: with injected adapters.
        folder: made if absent.
        base: what `base_model_name_or_path` shall say.
        fingerprint: of the base weights, for `base.json`; None for weights that no folder holds.
    """
    layers = dict(lora_layers(model))
    assert layers, "there is no adapter to save"
    naming = naming_of_config(model.config)
    pairs = join_fused({path: _pair(layer) for path, layer in layers.items()}, naming)
    whole = _whole_tensors(model, naming)
    first = next(iter(layers.values()))
    r, rank_pattern = _with_pattern({path: pair.r for path, pair in pairs.items()})
    alpha, alpha_pattern = _with_pattern({path: _plain_number(pair.alpha) for path, pair in pairs.items()})
    tied = EMBEDDING_PATH in whole_modules(model) and HEAD not in naming.shapes
    modules = {name.rpartition(".")[0] for name in whole} - {HEAD_PATH if tied else "", *pairs}
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": rank_pattern,
        "alpha_pattern": alpha_pattern,
        "lora_dropout": first.dropout.rate if first.dropout is not None else 0.0,
        "target_modules": _targets(pairs, naming),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "use_rslora": first.use_rslora,
        "modules_to_save": sorted(modules) or None,
    }
    if tied:
        # Only there, because PEFT before 0.18 stops at a key that it does not know.
        config["ensure_weight_tying"] = True
    tensors = {}
    for name, value in whole.items():
        path, _, leaf = name.rpartition(".")
        tensors[f"{PREFIX}{path}.base_layer.{leaf}" if path in pairs else PREFIX + name] = value
    for path, pair in pairs.items():
        tensors |= {f"{PREFIX}{path}.lora_A.weight": pair.a, f"{PREFIX}{path}.lora_B.weight": pair.b}
    shapes = {name: ("float32", tensors[name].shape) for name in sorted(tensors)}
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_write(folder / WEIGHTS_FILE, "wb") as file:
        write_safetensors(file, shapes, ((name, encode(tensors[name], "float32")) for name in shapes))
    write_json(folder / CONFIG_FILE, config)
    write_base(folder, fingerprint, base)


def join_fused(layers: Mapping[str, LoraPair], naming: Naming) -> dict[str, LoraPair]:
    """The updates of a decoder's layers as updates of the checkpoint's modules.

    Parts of a fused module become one update of the same product. Where all share A, their B stand above each other.
    Otherwise their A do, with their B as blocks on the diagonal and zeros in the rows of a part without an update;
    alpha rises with the rank, so that the scale stays.
    """
    joined = {}
    for path in dict.fromkeys(map(naming.module, layers)):
        parts = naming.modules(path)
        own = [layers[part] for part in parts if part in layers]
        if len(parts) == 1:
            joined[path] = own[0]
            continue
        first = own[0]
        alike = all(pair.alpha == first.alpha and np.array_equal(pair.a, first.a) for pair in own)
        if alike and len(own) == len(parts):
            joined[path] = replace(first, b=np.concatenate([pair.b for pair in own]))
            continue
        scaling, rank = own[0].scaling, sum(pair.r for pair in own)
        b = np.zeros((naming.shape(f"{path}.weight")[0], rank), np.float32)
        column = 0
        for part in parts:
            if part in layers:
                pair, place = layers[part], naming.places[f"{part}.weight"]
                block = pair.b if pair.scaling == scaling else pair.b * np.float32(pair.scaling / scaling)
                b[place.start : place.stop, column : column + pair.r] = block
                column += pair.r
        alpha = scaling * (math.sqrt(rank) if own[0].use_rslora else rank)
        joined[path] = LoraPair(np.concatenate([pair.a for pair in own]), b, alpha, own[0].use_rslora)
    return joined


def _pair(layer: LoraLinear) -> LoraPair:
    return LoraPair(layer.lora_a.asnumpy(), layer.lora_b.asnumpy(), layer.alpha, layer.use_rslora)


def _whole_tensors(model: CausalLM, naming: Naming) -> dict[str, np.ndarray]:
    """float32: the tensors of modules that the adapter holds whole, under the checkpoint's names."""
    chosen = set(whole_modules(model))
    parameters = {parameter.name: parameter for parameter in model.get_parameters()}
    tensors = {}
    for name, parts in naming.contents.items():
        if any(part.rpartition(".")[0] in chosen for part in parts):
            tensors[name] = np.concatenate([parameters[part].float().asnumpy() for part in parts])
    if HEAD not in naming.shapes and naming.places[EMBEDDING].name in tensors:
        # PEFT reads a tied weight under both names.
        tensors[HEAD] = tensors[naming.places[EMBEDDING].name]
    return tensors


def _targets(pairs: Iterable[str], naming: Naming) -> list[str]:
    """Names that select these modules among all of the checkpoint, short ones where they do."""
    adapted = set(pairs)
    modules = {name.rpartition(".")[0] for name in naming.contents}
    short = {path.rpartition(".")[2] for path in adapted}
    return sorted(short if {path for path in modules if path.rpartition(".")[2] in short} == adapted else adapted)


def _with_pattern(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The commonest value, and the path of each module that has another."""
    common = Counter(values.values()).most_common(1)[0][0]
    return common, {path: value for path, value in values.items() if value != common}


def _plain_number(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value
