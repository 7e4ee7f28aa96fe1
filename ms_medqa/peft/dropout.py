"""Dropout and noise that are a function of (seed, step, rank, layer): a resumed run draws what it would have drawn.

MindSpore's own dropout keeps a generator inside each kernel that cannot be saved.
"""

from __future__ import annotations

import math
import zlib
from functools import lru_cache

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_medqa.models.decoder import CausalLM


class DropoutKeys:
    """The keys of all dropout layers of a model, renewed before each micro-batch.

    Args:
        layers: how many dropout layers there are.
        purpose: what draws by keys of another purpose draws something else.

    Attributes:
        values: a key for each layer, float32 (2,). Parameters of their own, for layers that differ by a number alone
            would have to be compiled one by one.
    """

    def __init__(self, layers: int, purpose: str = "dropout") -> None:
        self.purpose = () if purpose == "dropout" else (zlib.crc32(purpose.encode()),)
        self.values = [
            Parameter(Tensor(np.zeros(2, np.float32)), name=f"{purpose}_key", requires_grad=False)
            for _ in range(layers)
        ]
        self.renew(0, 0, 0)

    def renew(self, seed: int, step: int, rank: int) -> None:
        """Set the keys of micro-batch number `step` of a run."""
        generator = np.random.Generator(np.random.Philox([seed, step, rank, *self.purpose]))
        keys = generator.random((len(self.values), 2), np.float32)
        # Multipliers from 64 to 1088: large enough to part neighbours of the noise table, small enough that float32
        # keeps at least 13 bits behind the point for the comparison.
        keys[:, 0] = 64.0 + 1024.0 * keys[:, 0]
        for value, key in zip(self.values, keys, strict=True):
            value.set_data(Tensor(key))


def keyed_uniform(shape: tuple[int, ...], key: Tensor) -> Tensor:
    """Uniform numbers on [0, 1) of this shape: frac(noise * multiplier + offset).

    `noise` is a fixed table of independent uniform numbers; multiplier and offset are the key. Each entry is uniform
    for every key, entries are independent, and a new multiplier changes which of them fall together.
    """
    # Drawn while the graph is traced, hence a constant of it; layers of one shape share one table.
    draw = ops.stop_gradient(noise_table(shape) * key[0] + key[1])
    return draw - ops.floor(draw)


class KeyedDropout(nn.Cell):
    """Inverted dropout on (N, width): an entry stays where its `keyed_uniform` number is not below the rate.

    Args:
        rate: share of zeros.
        key: this layer's, one of `DropoutKeys.values`.
    """

    def __init__(self, rate: float, key: Parameter) -> None:
        super().__init__()
        self.rate = rate
        self.keep_scale = 1.0 / (1.0 - rate)
        self.key = key

    def construct(self, x: Tensor) -> Tensor:
        draw = keyed_uniform(x.shape, self.key)
        keep = ops.cast(ops.greater_equal(draw, self.rate), ms.float32)
        return x * (keep * self.keep_scale)


class EmbeddingNoise(nn.Cell):
    """Uniform noise on embedded tokens (N, width) while training: NEFTune (Jain et al. 2023, algorithm 1).

    Args:
        alpha: the noise is uniform between -1 and 1, times alpha / sqrt(length * width); the paper takes 5 to 15.
        length: tokens of a row.
        key: one that is for this alone.
    """

    def __init__(self, alpha: float, length: int, key: Parameter) -> None:
        super().__init__()
        self.alpha = alpha
        self.length = length
        self.key = key

    def construct(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        size = self.alpha / math.sqrt(self.length * x.shape[-1])
        noise = keyed_uniform(x.shape, self.key) * (2.0 * size) - size
        return x + ops.cast(noise, x.dtype)


def add_embedding_noise(model: CausalLM, alpha: float, length: int) -> DropoutKeys:
    """Give a model `EmbeddingNoise`, in place.

    Returns:
        Its key, to renew before each micro-batch.
    """
    keys = DropoutKeys(1, "embedding_noise")
    model.model.noise = EmbeddingNoise(alpha, length, keys.values[0])
    return keys


@ms.ops.constexpr(check=False)
def noise_table(shape: tuple[int, ...]) -> Tensor:
    """Independent uniform numbers on [0, 1), always the same for a shape."""
    return _table(shape)


@lru_cache(maxsize=8)
def _table(shape: tuple[int, ...]) -> Tensor:
    # The same object for every layer: each graph constant of its own would take memory of its own.
    generator = np.random.Generator(np.random.Philox([20201017, *shape]))
    return Tensor(generator.random(shape, np.float32))
