"""Kernels for few rows on a CPU, where they were compiled at installation (kernels/)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import mindspore as ms
from mindspore import Tensor, ops

from ms_medqa.backend.few_rows_library import library

# Above, MindSpore's own product is as fast (`benchmarks/few_rows.py`), and with 45 rows its operators make a step as
# fast: 64 rows of the 0.5B shape take 520 ms instead of 648, 32 take 464 instead of 341.
MOST_ROWS = 32


@lru_cache(maxsize=1)
def kernel() -> ops.Custom | None:
    """The operator: float32 x (rows, k), W (n, k) -> x W' (rows, n). It has no gradient. None: see `library`."""
    return _operator("FewRows", _of_product, _first)


@lru_cache(maxsize=1)
def step_kernel() -> ops.Custom | None:
    """The operator for few tokens through a decoder's layers: arguments of `kernels/decoder_step.cc` -> x (tokens, H).

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
    """Whether `kernel` may take these, by their shapes and types."""
    rows, size = x.shape
    return x.dtype == weight.dtype == ms.float32 and 0 < rows <= MOST_ROWS and size > 0


def _of_product(x: list[int], weight: list[int]) -> list[int]:
    return [x[0], weight[0]]


def _first(*arguments: Any) -> Any:
    return arguments[0]


def _hidden_states(*arguments: Any) -> Any:
    # `kX` of kernels/decoder_step.cc.
    return arguments[2]
