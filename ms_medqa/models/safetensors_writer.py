"""Write safetensors files as a stream, bfloat16 included."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import IO, Any

import numpy as np

from ms_medqa.models.safetensors_header import NUMPY_TYPES

_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "float64": "F64"}
_CODES |= {"int64": "I64", "int32": "I32", "bool": "BOOL"}
# Numbers that are rounded in one go: small enough to stay in a core's cache.
_ROUNDED = 2**18


def encode(array: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers as a file stores them.

    Args:
        array: float16 or float32.
        dtype: `float32`, `float16` or `bfloat16` (rounded to nearest, ties to even).
    """
    if dtype != "bfloat16":
        return np.ascontiguousarray(array, NUMPY_TYPES[_CODES[dtype]])
    array = np.ascontiguousarray(array, np.float32)
    out = np.empty(array.shape, "<u2")
    source, target = array.reshape(-1), out.reshape(-1)
    for begin in range(0, source.size, _ROUNDED):
        part = slice(begin, begin + _ROUNDED)
        bits = source[part].view(np.uint32)
        rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
        # Rounding would carry some NaNs over into infinity or zero.
        target[part] = np.where(np.isnan(source[part]), np.uint16(0x7FC0), rounded)
    return out


def write_safetensors(
    file: IO[bytes], shapes: Mapping[str, tuple[str, tuple[int, ...]]], tensors: Iterable[tuple[str, Any]]
) -> None:
    """Write a file tensor by tensor: none but the current one is held.

    Args:
        file: open for binary writing.
        shapes: (name of the type, shape) of each tensor.
        tensors: (name, its bytes or its `encode`d array), in the order of `shapes`.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        code = _CODES[dtype]
        start, end = end, end + math.prod(shape) * np.dtype(NUMPY_TYPES[code]).itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    # Readers map the file: the numbers must start at a multiple of eight.
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for (name, data), expected in zip(tensors, shapes, strict=True):
        assert name == expected, (name, expected)
        file.write(data if isinstance(data, memoryview) else np.ascontiguousarray(data).data)
