"""Dropout whose masks are a function of (seed, step, rank, layer): a resumed run draws what it would have drawn.

MindSpore's own dropout keeps a generator inside each kernel that cannot be saved.
"""

from __future__ import annotations

from functools import lru_cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops


class DropoutKeys(nn.Cell):
    """The keys of all dropout layers of a model, renewed before each micro-batch.

    Args:
        layers: how many dropout layers share it.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = layers
        self.value = Parameter(Tensor(np.zeros((layers, 2), np.float32)), name="dropout_keys", requires_grad=False)
        self.renew(0, 0, 0)

    def renew(self, seed: int, step: int, rank: int) -> None:
        """Set the keys of micro-batch number `step` of a run."""
        generator = np.random.Generator(np.random.Philox([seed, step, rank]))
        keys = generator.random((self.layers, 2), np.float32)
        # Multipliers from 64 to 1088: large enough to part neighbours of the noise table, small enough that float32
        # keeps at least 13 bits behind the point for the comparison.
        keys[:, 0] = 64.0 + 1024.0 * keys[:, 0]
        self.value.set_data(Tensor(keys))


class KeyedDropout(nn.Cell):
    """Inverted dropout on (N, width), mask = frac(noise * multiplier + offset) >= rate.

    `noise` is a fixed table of independent uniform numbers; multiplier and offset come from the keys. Each entry is
    uniform on [0, 1) for every key, entries are independent, and a new multiplier changes which of them fall together.

    Args:
        rate: share of zeros.
        index: which of the keys is this layer's.
        keys: shared by all layers.
    """

    def __init__(self, rate: float, index: int, keys: DropoutKeys) -> None:
        super().__init__()
        self.rate = rate
        self.keep_scale = 1.0 / (1.0 - rate)
        self.index = index
        self.keys = keys

    def construct(self, x: Tensor) -> Tensor:
        key = self.keys.value[self.index]
        # Drawn while the graph is traced, hence a constant of it; layers of one shape share one table.
        draw = ops.stop_gradient(noise_table(x.shape) * key[0] + key[1])
        keep = ops.cast(ops.greater_equal(draw - ops.floor(draw), self.rate), ms.float32)
        return x * (keep * self.keep_scale)


@ms.ops.constexpr(check=False)
def noise_table(shape: tuple[int, ...]) -> Tensor:
    """Independent uniform numbers on [0, 1), always the same for a shape."""
    return _table(shape)


@lru_cache(maxsize=8)
def _table(shape: tuple[int, ...]) -> Tensor:
    # The same object for every layer: each graph constant of its own would take memory of its own.
    generator = np.random.Generator(np.random.Philox([20201017, *shape]))
    return Tensor(generator.random(shape, np.float32))
