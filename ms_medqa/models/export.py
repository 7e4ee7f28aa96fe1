"""Write a model's weights anew from its files, with some tensors changed on the way. The model is never built."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import mindspore as ms
import numpy as np

from ms_medqa.config.console import progress
from ms_medqa.config.errors import UserError
from ms_medqa.models.checkpoint import EMBEDDING, HEAD, Checkpoint
from ms_medqa.models.naming import Naming
from ms_medqa.models.safetensors_writer import encode
from ms_medqa.models.shards import STORAGE, Plan, Stored, write_shards

CHECKPOINT_FILE = "model.ckpt"
_TYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
# Numbers that are in memory as float32 at a time, beside the tensor as it is stored.
_BLOCK = 2**25
# From here on, rounding gives infinity.
_LIMITS = {"float16": 65520.0, "bfloat16": (2 - 2.0**-8) * 2.0**127}


class Change(Protocol):
    """What becomes of a tensor; a part of its rows can be asked for."""

    def apply(self, weight: np.ndarray) -> np.ndarray:
        """The new tensor, float32, of the old one."""

    def rows(self, start: int, stop: int) -> Change:
        """The same for these rows alone."""


class Weights:
    """The tensors of a checkpoint as they shall be written, read from its files one at a time.

    Tensors that follow from others (rotary frequencies, the copy of a tied head) are left out, as transformers does.

    Args:
        checkpoint: of the base.
        naming: of the model that is written. Where it has a head of its own and the base ties it, the head starts as
            the base's embedding.
        changes: tensor name -> what becomes of it.
        dtype: `float32`, `float16`, `bfloat16`, or `auto`: each tensor keeps the type that it has.

    Attributes:
        stored: how each tensor will be stored, in the checkpoint's order.
        left_out: tensors that are not written.

    Raises:
        UserError: the files hold numbers of a type that is not kept.
    """

    def __init__(
        self, checkpoint: Checkpoint, naming: Naming, changes: Mapping[str, Change], dtype: str = "auto"
    ) -> None:
        self._files, base = checkpoint.files, checkpoint.naming
        self._normalized = checkpoint.config.normalized_head
        # Of a tied head, a copy in the files is the embedding once more.
        self._head = base.places[EMBEDDING].name if checkpoint.config.tie_word_embeddings else HEAD
        self.naming = naming
        self.changes = dict(changes)
        self.left_out = [name for name in self._files if name not in naming.contents]
        names = [name for name in self._files if name in base.contents]
        names += [name for name in naming.contents if name not in base.contents]
        assert set(names) == set(naming.contents), "names of another model"
        assert self.changes.keys() <= set(names), "changes of another model"
        self.stored = {name: Stored(self._type(name, dtype), naming.shape(name)) for name in names}

    def is_copied(self, name: str) -> bool:
        """Whether the tensor is written byte for byte as the base has it."""
        source = self._source(name)
        return name not in self.changes and self.stored[name].dtype == _TYPES[self._files[source].dtype(source)]

    def encoded(self, names: Iterable[str]) -> Iterator[tuple[str, memoryview | np.ndarray]]:
        """Each tensor as a safetensors file stores it."""
        for name in names:
            source = self._source(name)
            if self.is_copied(name):
                yield name, self._files[source].raw(source)
                self._files[source].release(source)
                continue
            stored = self.stored[name]
            out = np.empty(stored.shape, STORAGE[stored.dtype])
            for start, block in self._blocks(name):
                out[start : start + len(block)] = encode(block, stored.dtype)
            yield name, out

    def parameters(self) -> Iterator[tuple[str, np.ndarray, str]]:
        """(name in the decoder, float32 value, type to store it in); a fused tensor comes in its parts."""
        for name, stored in self.stored.items():
            value = np.empty(stored.shape, np.float32)
            for start, block in self._blocks(name):
                value[start : start + len(block)] = block
            if name == HEAD and self._normalized:
                # As it is loaded: a frozen head is used as it lies there.
                value /= np.maximum(np.linalg.norm(value, axis=1, keepdims=True), 1e-12)
            for part in self.naming.contents[name]:
                place = self.naming.places[part]
                yield part, value[place.start : place.stop], stored.dtype

    def _source(self, name: str) -> str:
        return self._head if name == HEAD else name

    def _type(self, name: str, dtype: str) -> str:
        source = self._source(name)
        code = self._files[source].dtype(source)
        if dtype != "auto":
            return dtype
        if code not in _TYPES:
            raise UserError(f"{self._files[source].path}: {name} has type {code}", "choose one with --dtype")
        return _TYPES[code]

    def _blocks(self, name: str) -> Iterator[tuple[int, np.ndarray]]:
        """(first row, float32 rows) of a tensor, changed where it is to be."""
        stored, source = self.stored[name], self._source(name)
        total = stored.shape[0]
        rows = max(1, _BLOCK // max(1, int(np.prod(stored.shape[1:]))))
        for start in range(0, total, rows):
            stop = min(start + rows, total)
            block = np.empty((stop - start, *stored.shape[1:]), np.float32)
            self._files[source].read_into(source, block, start)
            if name in self.changes:
                block = self.changes[name].rows(start, stop).apply(block)
            self._check_range(name, block)
            yield start, block

    def _check_range(self, name: str, block: np.ndarray) -> None:
        largest = max(float(block.max()), -float(block.min()))
        stored = self.stored[name].dtype
        if name in self.changes and not np.isfinite(largest):
            raise UserError(f"{name}: with the adapter in it, it holds NaN or infinity", "the adapter is broken")
        if self.is_copied(name):
            return
        if not np.isfinite(largest):
            file = self._files[self._source(name)].path
            raise UserError(f"{file}: {name} holds NaN or infinity", "the base is broken, copy it again")
        if largest >= _LIMITS.get(stored, np.inf):
            text = f"{name} holds {largest:.3g}, which {stored} cannot hold"
            others = "bfloat16 or float32" if stored == "float16" else "float32"
            raise UserError(text, f"export with --dtype {others}")


def write_hf(folder: Path, weights: Weights, plan: Plan) -> None:
    """The weights as safetensors, under the checkpoint's names."""
    with progress(total=len(weights.stored), desc="write", unit="tensor") as bar:

        def read(names: Iterable[str]) -> Iterator[tuple[str, Any]]:
            for item in weights.encoded(names):
                yield item
                bar.update(1)

        write_shards(folder, plan, read)


def write_checkpoint(folder: Path, weights: Weights) -> None:
    """The weights as a MindSpore checkpoint, under the decoder's parameter names, for `load_param_into_net`.

    A checkpoint is one protobuf message, and messages put one behind the other are one message again: so each parameter
    is saved on its own. `load_checkpoint` reads the file as a whole and needs about three times its size in memory.
    """
    part = folder / "part.ckpt"
    with (
        (folder / CHECKPOINT_FILE).open("xb") as whole,
        progress(total=len(weights.naming.shapes), desc="write", unit="parameter") as bar,
    ):
        for name, value, dtype in weights.parameters():
            ms.save_checkpoint([{"name": name, "data": ms.Tensor(value, getattr(ms, dtype))}], str(part))
            with part.open("rb") as file:
                shutil.copyfileobj(file, whole, 2**24)
            part.unlink()
            bar.update(1)
