"""Times the operator forms that the decoder chooses between, on this machine's CPU, alternating, medians.

    python benchmarks/operators.py [--rounds 9] [--threads N]

The forms in the first column are those that `ms_medqa/models` and `ms_medqa/training/loss.py` use.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from ms_medqa.backend import ops as backend_ops
from ms_medqa.backend.device import setup

ROWS, HEADS, WIDTH, VOCABULARY = 1024, 14, 64, 32000


def random(*shape: int) -> Tensor:
    """Standard normal float32."""
    return Tensor(np.random.default_rng(0).standard_normal(shape, np.float32))


def rotate_by_product(x: Tensor, turn: Tensor) -> Tensor:
    """Half rotation as a product with a signed permutation."""
    return ops.matmul(x, turn)


def rotate_by_concatenation(x: Tensor, turn: Tensor) -> Tensor:
    """Half rotation as slices and a concatenation."""
    half = turn.shape[0] // 2
    return ops.cat((-x[:, half:], x[:, :half]), 1)


def mean_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The averaging kernel."""
    return ops.SparseSoftmaxCrossEntropyWithLogits()(logits, labels)


def general_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """The general function, which knows weights and ignored labels."""
    return ops.cross_entropy(logits, labels)


def product(x: Tensor, y: Tensor) -> Tensor:
    """x * y."""
    return x * y


def broadcast_product(x: Tensor, y: Tensor) -> Tensor:
    """x * y, y with one head for all."""
    return x * y


def norm_own(x: Tensor, weight: Tensor) -> Tensor:
    """The gradient of the norm that keeps its input alone."""
    return ms.grad(_NORM)(x, weight, 1e-6)


def norm_plain(x: Tensor, weight: Tensor) -> Tensor:
    """The gradient that automatic differentiation finds, with products of a column and a row."""
    return ms.grad(_plain_norm)(x, weight)


def activation_own(gate: Tensor, up: Tensor) -> Tensor:
    """The gradient of the activation that keeps its inputs alone."""
    return ms.grad(_ACTIVATION)(gate, up)


def activation_plain(gate: Tensor, up: Tensor) -> Tensor:
    """The gradient that automatic differentiation finds."""
    return ms.grad(_plain_activation)(gate, up)


def heads_by_blocks(x: Tensor) -> Tensor:
    """Heads and back, by cutting and joining."""
    return _BLOCKS.merge(_BLOCKS(x))


def heads_by_transpose(x: Tensor) -> Tensor:
    """Heads and back, by transposing."""
    return _TRANSPOSED.merge(_TRANSPOSED(x))


def softmax_equal_shapes(scores: Tensor) -> Tensor:
    """The gradient of a softmax, times itself so that it is not zero."""
    return ms.grad(_softmax_square)(scores)


def softmax_broadcast(scores: Tensor) -> Tensor:
    """The same with MindSpore's own gradient."""
    return ms.grad(_plain_softmax_square)(scores)


def copies_own(x: Tensor) -> Tensor:
    """The gradient of copies of keys for a group of query heads, by a product."""
    return ms.grad(_copies_square)(x)


def copies_plain(x: Tensor) -> Tensor:
    """The same by a reduction."""
    return ms.grad(_plain_copies_square)(x)


_COPIES, _PLAIN_COPIES = backend_ops.RepeatByProduct(HEADS // 2), backend_ops.Repeat(HEADS // 2)
_SOFTMAX = backend_ops.SoftmaxEqualShapes()
_NORM = backend_ops.RMSNormPortable()
_ACTIVATION = backend_ops.SwiGLU()
_BLOCKS, _TRANSPOSED = backend_ops.HeadsByBlocks(HEADS), backend_ops.HeadsByTranspose(HEADS)


def _copies_square(x: Tensor) -> Tensor:
    return ops.square(_COPIES(x)).sum()


def _plain_copies_square(x: Tensor) -> Tensor:
    return ops.square(_PLAIN_COPIES(x)).sum()


def _plain_norm(x: Tensor, weight: Tensor) -> Tensor:
    return weight * (x * ops.rsqrt(ops.mean(ops.square(x), -1, True) + 1e-6))


def _plain_activation(gate: Tensor, up: Tensor) -> Tensor:
    return ops.silu(gate) * up


def _softmax_square(scores: Tensor) -> Tensor:
    return ops.square(_SOFTMAX(scores)).sum()


def _plain_softmax_square(scores: Tensor) -> Tensor:
    return ops.square(ops.softmax(scores, -1)).sum()


def cases() -> list[tuple[str, Callable[..., Tensor], tuple, str, Callable[..., Tensor], tuple]]:
    """(our form, function, arguments, other form, function, arguments)."""
    heads = random(ROWS * HEADS, WIDTH)
    turn = random(WIDTH, WIDTH)
    logits = random(ROWS, VOCABULARY)
    labels = Tensor(np.arange(ROWS, dtype=np.int32) % VOCABULARY)
    wide, table, narrow = random(ROWS, HEADS, WIDTH), random(ROWS, HEADS, WIDTH), random(ROWS, 1, WIDTH)
    rows, weight, scores = random(ROWS, HEADS * WIDTH), random(HEADS * WIDTH), random(4, 2, 7 * 256, 256)
    keys = random(2, ROWS, WIDTH)
    return [
        ("norm, own gradient", norm_own, (rows, weight), "norm, its own", norm_plain, (rows, weight)),
        ("SwiGLU, own gradient", activation_own, (wide, table), "SwiGLU, its own", activation_plain, (wide, table)),
        ("heads by blocks", heads_by_blocks, (rows,), "by transposing", heads_by_transpose, (rows,)),
        ("copies, own gradient", copies_own, (keys,), "copies, their own", copies_plain, (keys,)),
        ("softmax, equal shapes", softmax_equal_shapes, (scores,), "softmax, its own", softmax_broadcast, (scores,)),
        ("rotary by product", rotate_by_product, (heads, turn), "by cat", rotate_by_concatenation, (heads, turn)),
        ("averaging loss kernel", mean_loss, (logits, labels), "ops.cross_entropy", general_loss, (logits, labels)),
        ("equal-shape product", product, (wide, table), "broadcast product", broadcast_product, (wide, narrow)),
    ]


def measure(function: Callable[..., Tensor], arguments: tuple) -> float:
    """Milliseconds of one call."""
    began = time.perf_counter()
    function(*arguments).asnumpy()
    return 1000 * (time.perf_counter() - began)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    setup("CPU", mode="pynative", threads=options.threads)
    print(
        f"MindSpore {ms.__version__}, {ROWS} rows, {HEADS} x {WIDTH}, vocabulary {VOCABULARY}, {options.rounds} rounds"
    )
    for name, ours, our_arguments, other_name, other, other_arguments in cases():
        first, second = ms.jit(ours), ms.jit(other)
        measure(first, our_arguments), measure(second, other_arguments)
        pairs = [(measure(first, our_arguments), measure(second, other_arguments)) for _ in range(options.rounds)]
        ratios = [b / a for a, b in pairs]
        mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"{name:<24}{mine:>9.2f} ms   {other_name:<20}{theirs:>9.2f} ms   "
            f"ratio {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        )


if __name__ == "__main__":
    main()
