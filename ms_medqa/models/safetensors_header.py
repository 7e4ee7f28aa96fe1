"""The JSON header of a safetensors file, judged as the library judges it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

# NumPy has no bfloat16: its bits are taken as whole numbers.
NUMPY_TYPES = {
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "F64": "<f8",
    "I64": "<i8",
    "I32": "<i4",
    "U8": "u1",
    "BOOL": "?",
}
MAX_HEADER = 100 * 1024 * 1024
# What NumPy allows in every release.
_MOST_AXES = 32


class _Fault(ValueError):
    """What is wrong with a header."""


def parse_header(data: bytes) -> tuple[dict[str, str], dict[str, Any], int]:
    """(metadata, tensor name -> entry, where the last tensor ends behind the header).

    Raises:
        ValueError: it is broken; the text is empty, or ": " and what is wrong.
    """
    try:
        header = json.loads(data.decode("utf-8"), object_pairs_hook=_unique)
        metadata = _check_metadata(header.pop("__metadata__", None))
        return metadata, header, _check_tensors(header)
    except _Fault as fault:
        raise ValueError(f": {fault}") from None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise ValueError from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Fault(f"{name!r} stands there twice")
            seen.add(name)
    return found


def _check_metadata(found: Any) -> dict[str, str]:
    if found is None:
        return {}
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise _Fault("__metadata__ must map names to texts")
    return found


def _check_tensors(header: Mapping[str, Any]) -> int:
    """Where the last tensor ends. As the library has it, each tensor begins where the one before it ends."""
    spans = []
    for name, item in header.items():
        name.encode()
        spans.append((*_check_entry(name, item), name))
    at = 0
    for start, end, name in sorted(spans):
        if start != at:
            raise _Fault(f"tensor {name!r} begins at {start}, where {at} was expected")
        at = end
    return at


def _check_entry(name: str, item: Mapping[str, Any]) -> tuple[int, int]:
    """Where a tensor's bytes begin and end; KeyError and the like where its entry lacks something."""
    shape, offsets, dtype = item["shape"], item["data_offsets"], item["dtype"]
    for numbers in (shape, offsets):
        # A bool is an int to Python.
        if not isinstance(numbers, list) or not all(type(number) is int and number >= 0 for number in numbers):
            raise _Fault(f"tensor {name!r} needs whole numbers from 0 on for shape and data_offsets")
    if len(shape) > _MOST_AXES or not isinstance(dtype, str):
        raise _Fault(f"tensor {name!r} has no known type or too many axes")
    start, end = offsets
    count = 1
    for width in shape:
        count *= width
        if count >= 2**63:
            raise _Fault(f"tensor {name!r} is larger than any memory")
    known = NUMPY_TYPES.get(dtype)
    if start > end or (known is not None and end - start != count * np.dtype(known).itemsize):
        raise _Fault(f"tensor {name!r} takes {end - start} bytes, which is not what its shape and type say")
    return start, end
