"""Few rows against a matrix on a CPU, by a kernel of our own (few_rows.cc) where it was compiled at installation."""

from __future__ import annotations

import sys
from functools import lru_cache

import mindspore as ms
from mindspore import Tensor, ops

from ms_medqa.backend.few_rows_library import library

# Above, MindSpore's own product is as fast (`benchmarks/few_rows.py`).
MOST_ROWS = 32


@lru_cache(maxsize=1)
def kernel() -> ops.Custom | None:
    """The operator: float32 x (rows, k), W (n, k) -> x W' (rows, n). It has no gradient. None: see `library`."""
    found = library()
    if found is None:
        return None
    try:
        return ops.Custom(f"{found}:FewRows", out_shape=_shape, out_dtype=_dtype, func_type="aot")
    # Of several types: the environment may allow MindSpore other folders only (MS_CUSTOM_AOT_WHITE_LIST).
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"note: MindSpore does not take {found}: {reason}; answers are slower", file=sys.stderr)
        return None


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernel may take these, by their shapes and types."""
    return x.dtype == ms.float32 and weight.dtype == ms.float32 and 0 < x.shape[0] <= MOST_ROWS and x.shape[1] > 0


def _shape(x: list[int], weight: list[int]) -> list[int]:
    return [x[0], weight[0]]


def _dtype(x: ms.Type, weight: ms.Type) -> ms.Type:
    return x
