"""Load a model from a folder in Hugging Face layout."""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, ops

from ms_medqa.backend.device import resolve_dtype
from ms_medqa.config.assets import resolve_model
from ms_medqa.config.console import is_main_rank
from ms_medqa.models.checkpoint import HEAD, Checkpoint, load_config, open_checkpoint
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.naming import Naming
from ms_medqa.models.weight_reader import WeightReader

# Of a model: how to give back the pages under each parameter that lies over its file.
_FORGET = "_forget_file"


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
    if init == "random":
        model = CausalLM(load_config(folder), _compute_dtype(dtype), folder)
        initialize(model, seed)
    else:
        checkpoint = open_checkpoint(folder)
        if checkpoint.untied is not None and is_main_rank():
            print(f"note: {checkpoint.untied}", file=sys.stderr)
        model = _load(checkpoint, _compute_dtype(dtype))
    model.set_train(False)
    return model


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

    def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """The next array."""
        size = math.prod(shape) * dtype.itemsize
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


def forget_file(model: CausalLM, name: str) -> None:
    """Give back the pages of a parameter's file, if it lay over them and now has other memory."""
    forget = model.__dict__.get(_FORGET, {}).pop(name, None)
    if forget is not None:
        forget()


def _compute_dtype(dtype: str) -> str:
    return resolve_dtype(dtype, ms.get_context("device_target"))[0]


def naming_of(model: CausalLM) -> Naming:
    """Where the weights of a plain model (no adapter in it) lie in its family's checkpoints."""
    return Naming(model.config, {p.name: p.shape for p in model.get_parameters()})


def _load(checkpoint: Checkpoint, dtype: str) -> CausalLM:
    naming, files = checkpoint.naming, checkpoint.files

    def on_disk(name: str) -> tuple[Path, int]:
        place = naming.places[name]
        return files[place.name].path, files[place.name].offset(place.name, place.start)

    def fill(name: str, out: np.ndarray) -> None:
        place = naming.places[name]
        reader.fill(files[place.name], place.name, out, place.start)

    with WeightReader() as reader:
        if dtype == "bfloat16":
            model = CausalLM(checkpoint.config, dtype, checkpoint.folder)
            # NumPy has no bfloat16: each is copied once more. The largest first, while nothing else is in memory.
            for parameter in sorted(model.get_parameters(), key=lambda parameter: -parameter.size):
                value = np.empty(parameter.shape, np.float32)
                fill(parameter.name, value)
                reader.wait()
                _finish(model, parameter.name, value)
                assign(parameter, value)
            return model
        wanted, values, forget = np.dtype(dtype), {}, {}
        for name in _worth_mapping(checkpoint, wanted):
            place, shape = naming.places[name], naming.shapes[name]
            mapped = files[place.name].map(place.name, place.start, shape, wanted)
            if mapped is not None:
                values[name] = mapped
                forget[name] = files[place.name].forget(place.name, place.start, shape)
        others = sorted(set(naming.shapes) - set(values), key=on_disk)
        arena = Arena(math.prod(naming.shapes[name]) * wanted.itemsize for name in others)
        for name in others:
            values[name] = arena.take(naming.shapes[name], wanted)
            fill(name, values[name])
        # The disk works while the Cells are built, which takes 0.05 s.
        reader.start()
        model = CausalLM(checkpoint.config, dtype, checkpoint.folder)
        reader.wait()
    model.__dict__[_FORGET] = forget
    for parameter in model.get_parameters():
        _finish(model, parameter.name, values[parameter.name])
        give(parameter, values[parameter.name])
    return model


def _worth_mapping(checkpoint: Checkpoint, wanted: np.dtype) -> list[str]:
    """Weights that can be mapped and lie in a file of which that is the larger part: a map is of a whole file."""
    naming, files = checkpoint.naming, checkpoint.files
    found: dict[Path, list[str]] = defaultdict(list)
    size: dict[Path, int] = defaultdict(int)
    for name, place in naming.places.items():
        file = files[place.name]
        if file.can_map(place.name, place.start, wanted):
            found[file.path].append(name)
            size[file.path] += math.prod(naming.shapes[name]) * wanted.itemsize
    return [name for path, names in found.items() if 2 * size[path] > path.stat().st_size for name in names]


def _finish(model: CausalLM, name: str, value: np.ndarray) -> None:
    """Do to a parameter's values what its family asks for beyond reading them."""
    if model.config.normalized_head and name == HEAD:
        _normalize(value)
        model.normalize_head = False


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
