"""Operators whose best form depends on the device. The choice falls while a graph is traced: it is free at run time.

The portable forms are plain operators that MindSpore has on every device.
"""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
from mindspore import Tensor, nn, ops

_MATMUL = ops.MatMul(transpose_b=True)


def on_ascend() -> bool:
    """Whether the current device is an Ascend NPU."""
    return ms.get_context("device_target") == "Ascend"


def costly_broadcast() -> bool:
    """Whether operators should be given equal shapes.

    For a product or sum of unequal shapes, MindSpore's CPU kernel makes a table of 16 bytes a number of the result
    and keeps it as long as the graph. LoRA on a model of 120 million parameters, 8 rows of 128 tokens, took 5.9 GB with
    such operators in norms, softmax and masks, and 3.9 GB without. Copies take no longer (`benchmarks/operators.py`).
    """
    return ms.get_context("device_target") == "CPU"


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias for a 2-D x: (N, in), (out, in), (out,) -> (N, out)."""
    out = _MATMUL(x, weight)
    return out if bias is None else ops.bias_add(out, bias)


def rms_norm_portable(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root-mean-square norm in float32 (Zhang & Sennrich 2019, eq. 4): (N, H), (H,) -> (N, H) in x's type."""
    x32 = ops.cast(x, ms.float32)
    inverse = ops.rsqrt(ops.mean(ops.square(x32), -1, True) + eps)
    return weight * ops.cast(x32 * inverse, x.dtype)


def rms_norm_equal_shapes(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The same, number for number, and broadcasts nothing: see `costly_broadcast`."""
    rows, width = x.shape
    x32 = ops.cast(x, ms.float32)
    inverse = ops.rsqrt(ops.mean(ops.square(x32), -1, True) + eps)
    weight = ops.tile(ops.reshape(weight, (1, width)), (rows, 1))
    return weight * ops.cast(x32 * ops.tile(inverse, (1, width)), x.dtype)


def rms_norm_fused(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The same through the NPU's fused kernel, which computes in float32 inside."""
    return ops.rms_norm(x, weight, eps)[0]


class Softmax(nn.Cell):
    """Softmax over the last axis."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.softmax(x, -1)


class SoftmaxEqualShapes(nn.Cell):
    """The same, with a gradient that broadcasts nothing: see `costly_broadcast`. Scores have four axes."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.softmax(x, -1)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        """d softmax = out * (dout - sum(out * dout))."""
        inner = ops.sum(out * dout, -1, True)
        return (out * (dout - ops.tile(inner, (1, 1, 1, x.shape[-1]))),)


def softmax_cell() -> nn.Cell:
    """The form that suits the device."""
    return SoftmaxEqualShapes() if costly_broadcast() else Softmax()


def rms_norm_form() -> Callable[[Tensor, Tensor, float], Tensor]:
    """The form that suits the device."""
    if on_ascend():
        return rms_norm_fused
    return rms_norm_equal_shapes if costly_broadcast() else rms_norm_portable
