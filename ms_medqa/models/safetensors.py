"""Read safetensors files tensor by tensor through a memory map, bfloat16 included, and write them.

The library's NumPy front end has no bfloat16 and would copy a file whole, and its lower calls change between releases;
the format is a JSON header and raw bytes (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ms_medqa.config.errors import UserError

_NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_MAX_HEADER = 100 * 1024 * 1024


class SafetensorsFile:
    """One file: `keys()`, `shape(key)`, `read(key)`.

    Raises:
        UserError: the file is missing, cut off or not safetensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if size < 8 or length > min(size, _MAX_HEADER):
                    raise UserError(f"{path}: not a safetensors file, or cut off", "copy it again")
                header: dict[str, Any] = json.loads(file.read(length))
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path}: not a safetensors file (broken header)", "copy it again") from None
        try:
            self.metadata: dict[str, str] = header.pop("__metadata__", {})
            end = max((_check_entry(item) for item in header.values()), default=0)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(f"{path}: not a safetensors file (broken header)", "copy it again") from None
        self._header = header
        self._start = 8 + length
        if self._start + end > size:
            raise UserError(f"{path}: cut off, {self._start + end - size} bytes are missing", "copy it again")
        self._bytes = np.memmap(path, np.uint8, "r") if size else np.empty(0, np.uint8)

    def keys(self) -> Iterator[str]:
        """Names of the tensors."""
        return iter(self._header)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self._header[key]["shape"])

    def read(self, key: str) -> np.ndarray:
        """A tensor: bfloat16 comes as float32, every other type as it is."""
        item = self._header[key]
        if item["dtype"] not in _NUMPY:
            raise UserError(f"{self.path}: tensor {key} has type {item['dtype']}", f"supported: {', '.join(_NUMPY)}")
        start, end = (self._start + offset for offset in item["data_offsets"])
        flat = self._bytes[start:end].view(_NUMPY[item["dtype"]])
        if item["dtype"] == "BF16":
            # A bfloat16 is the upper half of a float32.
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        return flat.reshape(item["shape"])


def _check_entry(item: Mapping[str, Any]) -> int:
    """Where a tensor's bytes end; ValueError and the like where its entry contradicts itself."""
    start, end = item["data_offsets"]
    count = math.prod(int(width) for width in item["shape"])
    known = _NUMPY.get(item["dtype"])
    if not 0 <= start <= end or (known is not None and end - start != count * np.dtype(known).itemsize):
        raise ValueError(item)
    return end


def serialize(tensors: Mapping[str, np.ndarray], dtype: str) -> bytes:
    """The bytes of a safetensors file with all tensors in one type.

    Args:
        tensors: float32 arrays.
        dtype: `float32`, `float16` or `bfloat16` (rounded to nearest, ties to even).
    """

    def encode(array: np.ndarray) -> bytes:
        if dtype != "bfloat16":
            return np.ascontiguousarray(array, _NUMPY[_CODES[dtype]]).tobytes()
        bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()

    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    parts = []
    end = 0
    for name in sorted(tensors):
        parts.append(encode(tensors[name]))
        start, end = end, end + len(parts[-1])
        header[name] = {"dtype": _CODES[dtype], "shape": list(tensors[name].shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    # Readers map the file: the numbers must start at a multiple of eight.
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])
