"""Operators whose best form depends on the device. The choice falls while a graph is traced: it is free at run time.

The portable forms are plain operators that MindSpore has on every device.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, ops

_MATMUL = ops.MatMul(transpose_b=True)


def on_ascend() -> bool:
    """Whether the current device is an Ascend NPU."""
    return ms.get_context("device_target") == "Ascend"


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias for a 2-D x: (N, in), (out, in), (out,) -> (N, out)."""
    out = _MATMUL(x, weight)
    return out if bias is None else ops.bias_add(out, bias)


def rms_norm_portable(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm in float32 (Zhang & Sennrich 2019, eq. 4): (N, H), (H,) -> (N, H) in x's type."""
    x32 = ops.cast(x, ms.float32)
    inverse = ops.rsqrt(ops.mean(ops.square(x32), -1, True) + eps)
    return weight * ops.cast(x32 * inverse, x.dtype)


def rms_norm_fused(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The same through the NPU's fused kernel, which computes in float32 inside."""
    return ops.rms_norm(x, weight, eps)[0]
