"""Load a model from a folder in Hugging Face layout."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from ms_medqa.backend.device import resolve_dtype
from ms_medqa.config.assets import resolve_model
from ms_medqa.config.console import is_main_rank
from ms_medqa.config.errors import UserError
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.families import read_config, read_end_tokens
from ms_medqa.models.naming import Naming
from ms_medqa.models.safetensors import SafetensorsFile, reading_threads

_PICKLES = ("*.bin", "*.pt", "*.pth")
# Codes of safetensors.
_FLOATS = ("F32", "F16", "BF16", "F64")


def load_model(path: str | Path, dtype: str = "auto", init: str = "pretrained", seed: int = 0) -> CausalLM:
    """A model with its weights.

    Args:
        path: a folder with `config.json` and `*.safetensors`, or the name of a shipped model.
        dtype: `auto`, `float32`, `float16` or `bfloat16`: the type the weights get.
        init: `pretrained`, or `random` for fresh weights drawn with `seed`.

    Raises:
        UserError: no such folder, an unsupported family, or weights that do not fit.
    """
    folder = resolve_model(path)
    model = CausalLM(load_config(folder), _compute_dtype(dtype), folder)
    if init == "random":
        initialize(model, seed)
    else:
        _fill(model, folder)
    model.set_train(False)
    return model


def load_config(folder: Path) -> ModelConfig:
    """The shape of the model in a folder, with the end tokens that `generation_config.json` adds.

    A chat model often ends its answers with more tokens than `config.json` names, and only the other file tells.
    """
    path, generation = folder / "config.json", folder / "generation_config.json"
    config = read_config(read_json(path, "is this a model folder in Hugging Face layout?"), str(path))
    if not generation.is_file():
        return config
    more = read_end_tokens(read_json(generation), str(generation))
    return replace(config, eos_token_ids=tuple(dict.fromkeys((*config.eos_token_ids, *more))))


def read_json(path: Path, hint: str | None = None) -> dict[str, Any]:
    """A JSON object from a file that a user gave."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file", hint) from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable JSON ({error})") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: not a JSON object", hint)
    return raw


def initialize(model: CausalLM, seed: int) -> None:
    """Fresh weights as transformers draws them: normal(0, initializer_range) for matrices, zero biases, unit norms."""
    scale = model.config.initializer_range
    for index, parameter in enumerate(model.get_parameters()):
        if parameter.ndim == 2:
            generator = np.random.Generator(np.random.Philox([seed, index]))
            value = generator.standard_normal(parameter.shape, np.float32) * scale
        else:
            value = np.full(parameter.shape, 1.0 if "norm" in parameter.name else 0.0, np.float32)
        assign(parameter, value)


def assign(parameter: Parameter, value: np.ndarray) -> None:
    """Give a parameter a value, cast to its own type.

    It is written in place: a graph of `ms.jit` goes on reading the memory it was traced with.
    """
    ops.assign(parameter, Tensor(np.asarray(value, order="C"), parameter.dtype))


class Arena:
    """Arrays without values, side by side in one stretch of fresh memory.

    Handing out a page costs the system more than filling it, and NumPy asks for huge pages only from 4 MB on: weights
    in arrays of their own took twice the time. The memory goes back when the last of the arrays is gone.
    """

    # Where vector instructions like an array to start, in bytes.
    _ALIGNMENT = 64

    def __init__(self, sizes: Iterable[int]) -> None:
        """Room for arrays of these sizes, in bytes."""
        self._memory = np.empty(sum(map(self._padded, sizes)) + self._ALIGNMENT, np.uint8)
        self._next = -self._memory.ctypes.data % self._ALIGNMENT

    def take(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """The next array."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        start, self._next = self._next, self._next + self._padded(size)
        assert start + size <= len(self._memory)
        return self._memory[start : start + size].view(dtype).reshape(shape)

    def _padded(self, size: int) -> int:
        return -(-size // self._ALIGNMENT) * self._ALIGNMENT


def give(parameter: Parameter, value: np.ndarray) -> None:
    """Make an array the memory of a parameter that no graph has read yet.

    Nothing is copied: the array belongs to the parameter from now on.
    """
    parameter.set_data(Tensor.from_numpy(value))


def _compute_dtype(dtype: str) -> str:
    return resolve_dtype(dtype, ms.get_context("device_target"))[0]


def naming_of(model: CausalLM) -> Naming:
    """Where the weights of a plain model (no adapter in it) lie in its family's checkpoints."""
    return Naming(model.config, {p.name: p.shape for p in model.get_parameters()})


def _fill(model: CausalLM, folder: Path) -> None:
    naming, files = naming_of(model), weight_files(folder)
    check_weights(naming, files, folder)
    _note_other_head(naming, files, folder)
    parameters = list(model.get_parameters())
    largest = max(parameter.size for parameter in parameters)

    def order(parameter: Parameter) -> tuple[bool, Path, int]:
        # The largest first: while it is converted, nothing else is in memory yet. The others as they lie on the disk.
        place = naming.places[parameter.name]
        file = files[place.name]
        return parameter.size < largest, file.path, file.offset(place.name) + place.start

    # NumPy has no bfloat16: those are converted once more, one at a time.
    arena = Arena(p.size * p.itemsize for p in parameters if p.dtype != ms.bfloat16)
    with reading_threads() as pool:
        running: list[Future[None]] = []
        for parameter in sorted(parameters, key=order):
            place = naming.places[parameter.name]
            dtype = np.float16 if parameter.dtype == ms.float16 else np.float32
            copied = parameter.dtype == ms.bfloat16
            value = np.empty(parameter.shape, dtype) if copied else arena.take(parameter.shape, dtype)
            running += map(pool.submit, files[place.name].pieces(place.name, value, place.start))
            normalized = model.config.normalized_head and parameter.name == "lm_head.weight"
            if normalized or copied:
                _wait(running)
            if normalized:
                _normalize(value)
                model.normalize_head = False
            if copied:
                assign(parameter, value)
            else:
                give(parameter, value)
        _wait(running)


def _wait(running: list[Future[None]]) -> None:
    for task in running:
        task.result()
    running.clear()


def check_weights(naming: Naming, files: dict[str, SafetensorsFile], folder: Path) -> None:
    """Compare what a checkpoint holds with what a model needs.

    Raises:
        UserError: tensors are missing, unexpected, of another shape or no floating-point numbers; all of them are
            counted, the first ten named.
    """
    faults = [f"missing {name}" for name in naming.contents if name not in files]
    faults += [f"unexpected {name}" for name in files if name not in naming.contents and not _is_computed(name, naming)]
    for name in [name for name in naming.contents if name in files]:
        shape, code = files[name].shape(name), files[name].dtype(name)
        if shape != naming.shape(name):
            faults.append(f"{name} has shape {shape}, expected {naming.shape(name)}")
        elif code not in _FLOATS:
            faults.append(f"{name} has type {code}, expected {', '.join(_FLOATS)}")
    if faults:
        more = f" and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise UserError(f"{folder}: the weights do not fit config.json: {'; '.join(faults[:10])}{more}")


def _is_computed(name: str, naming: Naming) -> bool:
    """Tensors that some files carry though they follow from others: rotary frequencies, the copy of a tied head."""
    tied = name == "lm_head.weight" and "lm_head.weight" not in naming.shapes
    return tied or name.endswith("rotary_emb.inv_freq")


def _note_other_head(naming: Naming, files: dict[str, SafetensorsFile], folder: Path) -> None:
    """Say where a tied model's files carry a head that is not the embedding: some programs would take it."""
    head, embedding = "lm_head.weight", naming.places["model.embed_tokens.weight"].name
    if head in naming.shapes or head not in files or not is_main_rank():
        return
    places = np.linspace(0, math.prod(naming.shape(embedding)) - 1, 1024).astype(np.int64)
    same = files[head].shape(head) == naming.shape(embedding) and np.array_equal(
        files[head].values_at(head, places), files[embedding].values_at(embedding, places)
    )
    if not same:
        print(
            f"note: {folder}: {head} is not used: config.json says that the head is {embedding} "
            "(tie_word_embeddings), from which it differs",
            file=sys.stderr,
        )


def normalize_rows(weight: Parameter) -> None:
    """Scale each row to length 1 in place."""
    value = (weight.float() if weight.dtype == ms.bfloat16 else weight).asnumpy().copy()
    _normalize(value)
    assign(weight, value)


def _normalize(value: np.ndarray) -> None:
    # In blocks: the matrix is among the largest of a model, and a second one beside it would set the peak of memory.
    for start in range(0, len(value), 4096):
        block = value[start : start + 4096].astype(np.float32)
        value[start : start + 4096] = block / np.maximum(np.linalg.norm(block, axis=1, keepdims=True), 1e-12)


def has_weights(folder: Path) -> bool:
    """Whether a folder has files of weights, of whatever kind; `weight_files` tells what is wrong with them."""
    return any(
        path for pattern in ("*.safetensors", "*.safetensors.index.json", *_PICKLES) for path in folder.glob(pattern)
    )


def weight_files(folder: Path) -> dict[str, SafetensorsFile]:
    """Tensor name -> the file that holds it.

    As in transformers, `model.safetensors` alone is the model where it exists, else the files of the index; other files
    beside them (an older copy, an adapter) are not part of it.
    """
    index = folder / "model.safetensors.index.json"
    whole = folder / "model.safetensors"
    if whole.exists():
        paths = [whole]
    elif index.exists():
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise UserError(f"{index}: `weight_map` must give the file of each tensor")
        names = sorted(set(shards.values()))
        if any(Path(name).name != name for name in names):
            raise UserError(f"{index}: a shard lies outside the folder")
        paths = [folder / name for name in names]
    else:
        paths = sorted(folder.glob("*.safetensors"))
    if not paths:
        pickles = sorted(p.name for pattern in _PICKLES for p in folder.glob(pattern))
        if not pickles:
            raise UserError(f"{folder}: weights must be *.safetensors", "none found")
        raise UserError(
            f"{folder}: weights must be *.safetensors, and pickles such as {pickles[0]} are never read here",
            f"`ms-medqa import-bin {folder} --output DIR` turns them into safetensors",
        )
    where: dict[str, SafetensorsFile] = {}
    for file in map(SafetensorsFile, paths):
        for key in file.keys():  # noqa: SIM118
            if key in where:
                raise UserError(f"{folder}: both {where[key].path.name} and {file.path.name} hold {key}", "remove one")
            where[key] = file
    return where
