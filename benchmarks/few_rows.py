"""A few rows times the weights of a decoder: GB/s of each form, beside what the machine reads in a sum.

    python benchmarks/few_rows.py [--rows 1] [--rounds 7] [--threads 2]

A new token of one answer is one row, and each weight is read for it once: this is what decoding waits for. Timed are
the shapes of Qwen2.5-0.5B in float32, in MindSpore's graphs and in PyTorch, taking turns; of each so many matrices that
no cache holds them.

- `kernel`: that of `ms_medqa/backend/kernels/few_rows.cc`, as the decoder has it where it was compiled.
- `x W'`: ops.MatMul(transpose_b=True), as the decoder has it without the kernel.
- `x V`: ops.MatMul() with the matrix stored the other way round.
- `W x'`: the matrix first, times a column.
- `PyTorch`: torch.nn.functional.linear.
- `sum`: PyTorch's sum over the same matrices.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import mindspore as ms
import numpy as np
import torch
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from ms_medqa.backend import few_rows
from ms_medqa.backend.device import setup

SHAPES = {
    "q, o": (896, 896),
    "q, k, v as one": (1152, 896),
    "gate, up": (4864, 896),
    "gate and up as one": (9728, 896),
    "down": (896, 4864),
    "head": (151936, 896),
}
AT_LEAST = 400e6
# oneDNN tries numbers of threads in the first calls of each kernel.
WARM_UP = 26
Product = Callable[[Tensor, Tensor], Tensor]


class Products(nn.Cell):
    """A few rows times each of some matrices, in one graph; each product waits for the one before, as in a decoder."""

    def __init__(self, matrices: list[np.ndarray], product: Product) -> None:
        super().__init__(auto_prefix=False)
        self.matrices = ParameterTuple(
            [Parameter(Tensor.from_numpy(matrix), name=f"m{index}") for index, matrix in enumerate(matrices)]
        )
        self.product = product

    @ms.jit
    def construct(self, x: Tensor) -> Tensor:
        """(rows, in) -> (rows, out) of the last."""
        out = x
        for matrix in self.matrices:
            out = self.product(ops.depend(x, out), matrix)
        return out


def rows_first(x: Tensor, matrix: Tensor) -> Tensor:
    """(rows, in), (out, in)."""
    return ops.MatMul(transpose_b=True)(x, matrix)


def transposed(x: Tensor, matrix: Tensor) -> Tensor:
    """(rows, in), (in, out)."""
    return ops.MatMul()(x, matrix)


def matrix_first(x: Tensor, matrix: Tensor) -> Tensor:
    """(rows, in), (out, in)."""
    return ops.MatMul(transpose_b=True)(matrix, x)


def forms(outputs: int, columns: int, rows: int) -> tuple[int, dict[str, Callable[[], object]]]:
    """Bytes of all matrices, and what goes through them once."""
    rng = np.random.default_rng(0)
    count = max(1, round(AT_LEAST / (4 * outputs * columns)))
    matrices = [rng.standard_normal((outputs, columns), np.float32) for _ in range(count)]
    numbers = rng.standard_normal((rows, columns), np.float32)
    x, theirs, their_x = Tensor(numbers), [torch.from_numpy(matrix) for matrix in matrices], torch.from_numpy(numbers)

    def ours(product: Product, of: list[np.ndarray]) -> Callable[[], object]:
        cell = Products(of, product)
        return lambda: cell(x).asnumpy()

    return sum(matrix.nbytes for matrix in matrices), {
        "kernel": ours(few_rows.kernel(), matrices),
        "x W'": ours(rows_first, matrices),
        "x V": ours(transposed, [np.ascontiguousarray(matrix.T) for matrix in matrices]),
        "W x'": ours(matrix_first, matrices),
        "PyTorch": lambda: [torch.nn.functional.linear(their_x, matrix) for matrix in theirs],
        "sum": lambda: [matrix.sum() for matrix in theirs],
    }


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    setup("CPU", mode="pynative", threads=options.threads)
    torch.set_num_threads(options.threads)
    if few_rows.library() is None:
        parser.error("the kernel is not compiled: install g++, then `python setup.py build_ext --inplace`")
    print(f"GB/s, {options.rows} rows, float32, {options.threads} threads, {options.rounds} rounds; kernel over sum")
    for name, shape in SHAPES.items():
        size, ways = forms(*shape, options.rows)
        for way in ways.values():
            for _ in range(WARM_UP):
                way()
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for _ in range(options.rounds):
            for way, run in ways.items():
                began = time.perf_counter()
                run()
                seconds[way].append(time.perf_counter() - began)
        shares = [read / ours for ours, read in zip(seconds["kernel"], seconds["sum"], strict=True)]
        rates = "  ".join(f"{way} {size / 1e9 / statistics.median(taken):5.1f}" for way, taken in seconds.items())
        spread = f"{statistics.median(shares):.2f} ({min(shares):.2f} to {max(shares):.2f})"
        print(f"{name:<20}{rates}   {spread}", flush=True)


if __name__ == "__main__":
    main()
