"""A model's weights in one safetensors file or several, as `save_pretrained` of transformers lays them out.

Sizes are planned before anything is written; then one tensor at a time goes to disk.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.models.safetensors_writer import write_safetensors

INDEX_FILE = "model.safetensors.index.json"
# How numbers of each type lie in memory before they are written.
STORAGE = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2"), "bfloat16": np.dtype("<u2")}
# What is stored as it comes, and never converted to.
_SIZES = {"float64": 8, **{name: dtype.itemsize for name, dtype in STORAGE.items()}}
# As transformers reads them: powers of ten, and of two with an i.
_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}
# Bytes that no file system counts.
_NO_SIZE = 2**63

# Gives the tensors of these names, in this order: (name, its bytes or its encoded array).
Reader = Callable[[Iterable[str]], Iterator[tuple[str, memoryview | np.ndarray]]]


@dataclass(frozen=True)
class Stored:
    """How a tensor lies in a file: `float32`, `float16`, `bfloat16` or `float64`, and its shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * _SIZES[self.dtype]


@dataclass(frozen=True)
class Plan:
    """Which file gets which tensors, in the order in which they are written."""

    files: dict[str, dict[str, Stored]]

    @property
    def total_size(self) -> int:
        """Bytes of all tensors, headers not counted."""
        return sum(tensor.size for tensors in self.files.values() for tensor in tensors.values())

    @property
    def index(self) -> dict[str, Any] | None:
        """Content of the index, None where there is one file alone."""
        if len(self.files) == 1:
            return None
        count = sum(math.prod(tensor.shape) for tensors in self.files.values() for tensor in tensors.values())
        return {
            "metadata": {"total_parameters": count, "total_size": self.total_size},
            "weight_map": {name: file for file, tensors in self.files.items() for name in tensors},
        }


def parse_size(text: str) -> int:
    """Bytes of a size such as `5GB`, `500MB`, `2GiB` or `1000000`.

    Raises:
        UserError: it is no size, or zero.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", text, re.IGNORECASE | re.ASCII)
    size = float(match[1]) * _UNITS[match[2].upper()] if match and match[2].upper() in _UNITS else 0.0
    if not 1 <= size < _NO_SIZE:
        raise UserError(f"{text[:40]!r} is not a size", "write it like 5GB, 500MB or 2GiB")
    return int(size)


def plan_shards(tensors: Mapping[str, Stored], max_size: int, stem: str = "model") -> Plan:
    """Spread tensors over files of at most `max_size` bytes; a larger tensor has a file of its own.

    Files are filled in the given order and numbered as transformers does, where a tensor that is too large for any file
    comes before the file that is being filled.
    """
    shards: list[dict[str, Stored]] = []
    current: dict[str, Stored] = {}
    filled = 0
    for name, tensor in tensors.items():
        if tensor.size > max_size:
            shards.append({name: tensor})
            continue
        if filled + tensor.size > max_size:
            shards.append(current)
            current, filled = {}, 0
        current[name] = tensor
        filled += tensor.size
    if current:
        shards.append(current)
    if len(shards) == 1:
        return Plan({f"{stem}.safetensors": shards[0]})
    total = len(shards)
    return Plan({f"{stem}-{number:05d}-of-{total:05d}.safetensors": shard for number, shard in enumerate(shards, 1)})


def write_shards(folder: Path, plan: Plan, read: Reader) -> None:
    """Write the files of a plan, and the index where there are several.

    Args:
        read: asked for the tensors of one file at a time.
    """
    for name, tensors in plan.files.items():
        with (folder / name).open("xb") as file:
            shapes = {tensor: (stored.dtype, stored.shape) for tensor, stored in tensors.items()}
            write_safetensors(file, shapes, read(tensors))
    if plan.index is not None:
        text = json.dumps(plan.index, indent=2, sort_keys=True) + "\n"
        (folder / INDEX_FILE).write_text(text, encoding="utf-8")
