"""Few rows against a matrix on a CPU, by a kernel of our own (few_rows.cc) where it was compiled at installation."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import mindspore as ms
from mindspore import Tensor, ops

# Above, MindSpore's own product is as fast (`benchmarks/one_row.py`).
MOST_ROWS = 32


@lru_cache(maxsize=1)
def library() -> Path | None:
    """The compiled kernel, None where the installation found no C++ compiler with OpenMP."""
    # Nothing in it depends on the version of Python that setuptools writes into its name.
    return next(iter(sorted(Path(__file__).parent.glob("_few_rows.*so"))), None)


@lru_cache(maxsize=1)
def kernel() -> ops.Custom | None:
    """The operator: float32 x (rows, k), W (n, k) -> x W' (rows, n). It has no gradient. None: see `library`."""
    found = library()
    if found is None:
        return None
    return ops.Custom(f"{found}:FewRows", out_shape=_shape, out_dtype=_dtype, func_type="aot")


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernel may take these, by their shapes and types."""
    return x.dtype == ms.float32 and weight.dtype == ms.float32 and 0 < x.shape[0] <= MOST_ROWS


def _shape(x: list[int], weight: list[int]) -> list[int]:
    return [x[0], weight[0]]


def _dtype(x: ms.Type, weight: ms.Type) -> ms.Type:
    return x
