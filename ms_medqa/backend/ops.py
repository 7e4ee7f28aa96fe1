"""Operators whose best form depends on the device. The choice falls while a graph is traced: it is free at run time.

The portable forms are plain operators that MindSpore has on every device.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_medqa.backend import few_rows
from ms_medqa.backend.cores import cores_here

_MATMUL = ops.MatMul(transpose_b=True)


def on_ascend() -> bool:
    """Whether the current device is an Ascend NPU."""
    return ms.get_context("device_target") == "Ascend"


def on_cpu() -> bool:
    """Whether the current device is a CPU."""
    return ms.get_context("device_target") == "CPU"


def costly_broadcast() -> bool:
    """Whether operators should be given equal shapes.

    For a product or sum of unequal shapes, MindSpore's CPU kernel makes a table of 16 bytes a number of the result
    and keeps it as long as the graph. LoRA on a model of 120 million parameters, 8 rows of 128 tokens, took 5.9 GB with
    such operators in norms, softmax and masks, and 3.9 GB without. Copies take no longer (`benchmarks/operators.py`).
    """
    return on_cpu()


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x @ weight.T + bias for a 2-D x: (N, in), (out, in), (out,) -> (N, out)."""
    out = _MATMUL(x, weight)
    return out if bias is None else ops.bias_add(out, bias)


class ForwardLinear(nn.Cell):
    """`linear` where no gradient is wanted: for few rows through a kernel that is about as fast as memory."""

    def __init__(self) -> None:
        super().__init__()
        self.few_rows = few_rows.kernel() if on_cpu() else None

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(N, in), (out, in), (out,) -> (N, out)."""
        if self.few_rows is None or not few_rows.suits(x, weight):
            return linear(x, weight, bias)
        out = self.few_rows(x, weight)
        return out if bias is None else ops.bias_add(out, bias)


# Where MindSpore has a single thread for graphs, as on two cores, it runs a graph of no more kernels than this on the
# thread that calls it. That thread hands each kernel to the two that compute, and until they are done it asks over and
# over, which takes a quarter of the two cores from them. A longer graph runs on one of the two.
_KERNELS_ON_CALLER = 100
# Multiplications, for one core; for fewer, the kernels below take longer than what they save. With n cores the graph
# takes an n-th of the time, and the share of it that the thread takes falls with n as well: so the limit grows with n².
_MUCH_WORK = 2.5e8


class OffCaller(nn.Cell):
    """What a graph computes last, so that the graph does not run on the thread that calls it, if its work is much.

    For a layer of 512 tokens of a 0.5B model that is 90 ms instead of 110, on two cores.
    """

    def __init__(self) -> None:
        super().__init__()
        self.in_use = on_cpu()
        self.much = _MUCH_WORK * cores_here() ** 2

    def construct(self, x: Tensor, work: float) -> Tensor:
        """x as it is; `work` counts the multiplications in the graph's products."""
        if not self.in_use or work < self.much:
            return x
        # As many kernels, each of one number and some 3 us.
        filler = ops.reshape(x, (-1,))[:1]
        for _ in range(_KERNELS_ON_CALLER):
            filler = ops.sigmoid(filler)
        return ops.depend(x, filler)


def anew(x: Tensor, dout: Tensor) -> Tensor:
    """x, for a backward pass that computes again what the forward pass has computed from x.

    The compiler would find out, and keep the forward pass's result for it.
    """
    return ops.depend(x, dout)


class RMSNormFused(nn.Cell):
    """Root-mean-square norm through the NPU's fused kernel, which computes in float32 inside."""

    def construct(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return ops.rms_norm(x, weight, eps)[0]


class RMSNormPortable(nn.Cell):
    """Root-mean-square norm in float32 (Zhang & Sennrich 2019, eq. 4): (N, H), (H,) -> (N, H) in x's type.

    For the backward pass it keeps its input alone; automatic differentiation would keep five arrays of its size.
    """

    def __init__(self) -> None:
        super().__init__()
        self.equal_shapes = costly_broadcast()
        # Primitives: functions of `ops` that both passes call get lost where a layer's graph is compiled once for all.
        self.mean = ops.ReduceMean(keep_dims=True)
        self.sum = ops.ReduceSum()
        self.tile = ops.Tile()

    def construct(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        scaled = self.scaled(ops.cast(x, ms.float32), eps)[0]
        return self.rows(weight, x.shape) * ops.cast(scaled, x.dtype)

    def scaled(self, x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """x over its root mean square; and the factor, (N, 1) or as wide as x."""
        inverse = ops.rsqrt(self.mean(ops.square(x), -1) + eps)
        inverse = self.columns(inverse, x.shape)
        return x * inverse, inverse

    def rows(self, weight: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(H,) for a product with (N, H): see `costly_broadcast`."""
        return self.tile(ops.reshape(weight, (1, -1)), (shape[0], 1)) if self.copies(shape) else weight

    def columns(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        """(N, 1) for a product with (N, H)."""
        return self.tile(values, (1, shape[1])) if self.copies(shape) else values

    def copies(self, shape: tuple[int, ...]) -> bool:
        """Whether to make shapes equal; for a single row, as in a step of one answer, the table costs nothing."""
        return self.equal_shapes and shape[0] > 1

    def bprop(self, x: Tensor, weight: Tensor, eps: float, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor, float]:
        """With n = x r and g = dout w: dx = r (g - n mean(g n)), dw = sum over rows of dout n."""
        scaled, inverse = self.scaled(ops.cast(anew(x, dout), ms.float32), eps)
        dout = ops.cast(dout, ms.float32)
        inner = dout * self.rows(ops.cast(weight, ms.float32), x.shape)
        mean = self.columns(self.mean(inner * scaled, -1), x.shape)
        dx = inverse * (inner - scaled * mean)
        return ops.cast(dx, x.dtype), ops.cast(self.sum(dout * scaled, 0), weight.dtype), 0.0


class SwiGLU(nn.Cell):
    """silu(gate) * up (Shazeer 2020): keeps its two inputs for the backward pass, and nothing else."""

    def construct(self, gate: Tensor, up: Tensor) -> Tensor:
        return gate * ops.sigmoid(gate) * up

    def bprop(self, gate: Tensor, up: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor, Tensor]:
        """With s = sigmoid(gate): silu' = s + silu (1 - s)."""
        gate = anew(gate, dout)
        share = ops.sigmoid(gate)
        silu = gate * share
        return dout * up * (share + silu - silu * share), dout * silu


class HeadsByTranspose(nn.Cell):
    """(N, heads * D) -> (heads, N, D), and back."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def construct(self, x: Tensor) -> Tensor:
        return ops.transpose(ops.reshape(x, (x.shape[0], self.heads, -1)), (1, 0, 2))

    def merge(self, x: Tensor) -> Tensor:
        """The way back."""
        return ops.reshape(ops.transpose(x, (1, 0, 2)), (x.shape[1], -1))


class MoveBlocks(nn.Cell):
    """Blocks that lie side by side come to lie one below the other, or (`back`) the other way round.

    A transposition on a CPU keeps a table of 8 bytes a number as long as its graph: 200 of 1,024 x 896 took 1.4 GB.
    Cutting and joining keeps none, and takes half the time there, the same time with 128 rows.
    """

    def __init__(self, blocks: int, back: bool = False) -> None:
        super().__init__()
        self.cut_columns, self.cut_rows = ops.Split(1, blocks), ops.Split(0, blocks)
        self.join_columns, self.join_rows = ops.Concat(1), ops.Concat(0)
        self.back = back

    def move(self, x: Tensor, back: bool) -> Tensor:
        """(N, blocks * D) -> (blocks * N, D)."""
        return self.join_columns(self.cut_rows(x)) if back else self.join_rows(self.cut_columns(x))

    def construct(self, x: Tensor) -> Tensor:
        return self.move(x, self.back)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        """The way back; the compiler's own gradient of a join has an operator for each of its parts."""
        return (self.move(dout, not self.back),)


class HeadsByBlocks(nn.Cell):
    """(N, heads * D) -> (heads, N, D), and back, without transposing."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.there, self.back = MoveBlocks(heads), MoveBlocks(heads, back=True)

    def construct(self, x: Tensor) -> Tensor:
        return ops.reshape(self.there(x), (self.heads, x.shape[0], -1))

    def merge(self, x: Tensor) -> Tensor:
        """The way back."""
        return self.back(ops.reshape(x, (-1, x.shape[2])))


class Repeat(nn.Cell):
    """Each of the G blocks of x so many times, one after the other: (G, …) -> (G, times, n)."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.tile = ops.Tile()

    def construct(self, x: Tensor) -> Tensor:
        return self.tile(ops.reshape(x, (x.shape[0], 1, -1)), (1, self.times, 1))


class RepeatByProduct(Repeat):
    """The same; the sum over the copies that is its gradient is a product with ones, not a reduction.

    For 7 copies of 2 x 128 x 64 numbers a CPU takes 0.03 ms instead of 0.34.
    """

    def __init__(self, times: int) -> None:
        super().__init__(times)
        self.product = ops.BatchMatMul()

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        """The sum over the copies."""
        ones = ops.ones((x.shape[0], 1, self.times), dout.dtype)
        return (ops.reshape(self.product(ones, dout), x.shape),)


class SquareSum(nn.Cell):
    """The sum of a flat tensor's squares: float32 (n,) -> a scalar."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.sum(ops.square(x))


class SquareSumByProduct(SquareSum):
    """The same as a product with itself, to the bit in each run.

    MindSpore's CPU sums a long tensor in several threads and adds their parts as they end: of 1.5 million numbers, two
    sums were seen to differ in their last bit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.product = ops.MatMul(transpose_b=True)

    def construct(self, x: Tensor) -> Tensor:
        row = ops.reshape(x, (1, -1))
        return ops.reshape(self.product(row, row), ())


class Softmax(nn.Cell):
    """Softmax over the last axis."""

    def construct(self, x: Tensor) -> Tensor:
        return ops.softmax(x, -1)


class SoftmaxEqualShapes(nn.Cell):
    """The same, with a gradient that broadcasts nothing: see `costly_broadcast`.

    A sum over the last axis is taken as a mean of rows, for which the CPU has a kernel of its own: 0.05 ms instead of
    0.7 for 14 heads of 128 x 128.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mean = ops.ReduceMean(keep_dims=True)
        self.tile = ops.Tile()

    def construct(self, x: Tensor) -> Tensor:
        return ops.softmax(x, -1)

    def bprop(self, x: Tensor, out: Tensor, dout: Tensor) -> tuple[Tensor]:
        """d softmax = out * (dout - sum(out * dout))."""
        width = x.shape[-1]
        inner = self.tile(self.mean(ops.reshape(out * dout, (-1, width)), -1) * width, (1, width))
        return (out * (dout - ops.reshape(inner, x.shape)),)


def softmax_cell() -> nn.Cell:
    """The form that suits the device."""
    return SoftmaxEqualShapes() if costly_broadcast() else Softmax()


def heads_cell(heads: int) -> nn.Cell:
    """The form that suits the device."""
    # A single block has nothing to be cut.
    return HeadsByBlocks(heads) if on_cpu() and heads > 1 else HeadsByTranspose(heads)


def repeat_cell(times: int) -> nn.Cell:
    """The form that suits the device."""
    return RepeatByProduct(times) if on_cpu() else Repeat(times)


def square_sum_cell() -> nn.Cell:
    """The form that suits the device."""
    return SquareSumByProduct() if on_cpu() else SquareSum()


def rms_norm_cell() -> nn.Cell:
    """The form that suits the device."""
    return RMSNormFused() if on_ascend() else RMSNormPortable()
