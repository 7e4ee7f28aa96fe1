"""Kernels for few rows on a CPU, where they were compiled at installation (kernels/)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import mindspore as ms
from mindspore import Tensor, ops

from ms_medqa.backend.few_rows_library import library

# Above, MindSpore's own product is as fast (`benchmarks/few_rows.py`); steps of more rows were not compared.
MOST_ROWS = 32


@lru_cache(maxsize=1)
def kernel() -> ops.Custom | None:
    """The operator: float32 x (rows, k), W (n, k) -> x W' (rows, n). It has no gradient. None: see `library`."""
    return _operator("FewRows", _of_product, _first)


@lru_cache(maxsize=1)
def step_kernel() -> ops.Custom | None:
    """The operator for a step through a decoder's layers: the arguments of `kernels/decoder_step.cc` -> x (rows, H).

    It writes to the caches among them. None: see `library`.
    """
    # Where MindSpore refuses one, it says so once.
    return None if kernel() is None else _operator("DecoderStep", _hidden_states, _hidden_states)


def _operator(function: str, shape: Callable[..., list[int]], dtype: Callable[..., ms.Type]) -> ops.Custom | None:
    found = library()
    if found is None:
        return None
    try:
        return ops.Custom(f"{found}:{function}", out_shape=shape, out_dtype=dtype, func_type="aot")
    # Of several types: the environment may allow MindSpore other folders only (MS_CUSTOM_AOT_WHITE_LIST).
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"note: MindSpore does not take {found}: {reason}; answers are slower", file=sys.stderr)
        return None


def suits(x: Tensor, weight: Tensor) -> bool:
    """Whether the kernels may take these, by their shapes and types."""
    return rows_suit(x) and weight.dtype == ms.float32


def rows_suit(x: Tensor) -> bool:
    """The same of rows (N, H) alone."""
    return x.dtype == ms.float32 and 0 < x.shape[0] <= MOST_ROWS and x.shape[1] > 0


def _of_product(x: list[int], weight: list[int]) -> list[int]:
    return [x[0], weight[0]]


def _first(*arguments: Any) -> Any:
    return arguments[0]


def _hidden_states(*arguments: Any) -> Any:
    # `kX` of kernels/decoder_step.cc.
    return arguments[2]
