"""Where a token stands: rotary angles with their scalings, and ALiBi slopes."""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ms_medqa.models.config import ModelConfig


def inverse_frequencies(config: ModelConfig) -> np.ndarray:
    """float32 (head_dim / 2,): how far one position turns each pair (Su et al. 2021, eq. 15), scaled as config says.

    `dynamic` scaling depends on the sequence and is applied by `Rotary`.
    """
    half, scaling = config.head_dim // 2, config.rope_scaling
    plain = config.rope_theta ** (-np.arange(half, dtype=np.float64) / half)
    if scaling.kind == "linear":
        plain = plain / scaling.factor
    elif scaling.kind == "llama3":
        # Wavelengths above `low` are stretched, those below `high` kept, those between mixed (Llama 3 herd, sec. 3.4.2
        # gives the aim; the formula is that of the released model code).
        wavelength = 2 * math.pi / plain
        low = scaling.original_length / scaling.low_freq_factor
        high = scaling.original_length / scaling.high_freq_factor
        share = (scaling.original_length / wavelength - scaling.low_freq_factor) / (
            scaling.high_freq_factor - scaling.low_freq_factor
        )
        mixed = (1 - share) * plain / scaling.factor + share * plain
        plain = np.where(wavelength > low, plain / scaling.factor, np.where(wavelength < high, plain, mixed))
    return plain.astype(np.float32)


def alibi_slopes(heads: int) -> np.ndarray:
    """float32 (heads,): Press et al. 2021, section 3; other numbers than powers of two as in the authors' code."""
    below = 2 ** math.floor(math.log2(heads))
    slopes = 2.0 ** (-8.0 * np.arange(1, below + 1) / below)
    # The rest are every second slope of twice as many heads.
    more = 2.0 ** (-4.0 * np.arange(1, 2 * (heads - below), 2) / below)
    return np.concatenate([slopes, more]).astype(np.float32)


class Rotary(nn.Cell):
    """Rotary position embedding (Su et al. 2021, eq. 34, in the half-split layout of LLaMA).

    Half rotation is a product with a signed permutation matrix: exact, as fast on a CPU as slicing and concatenating,
    and its gradient is the same product.
    """

    def __init__(self, config: ModelConfig, dtype: ms.Type) -> None:
        super().__init__()
        dim, half = config.head_dim, config.head_dim // 2
        frequencies = inverse_frequencies(config)
        self.frequencies = Tensor(np.concatenate([frequencies, frequencies])[None])
        scaling = config.rope_scaling
        self.dynamic = scaling.kind == "dynamic"
        self.factor, self.original_length = scaling.factor, scaling.original_length
        # Each frequency is base ** -exponent, and a base that grows by s divides it by s ** (exponent * dim / (dim-2)).
        exponents = np.arange(half, dtype=np.float32) / half * (dim / max(dim - 2, 1))
        self.growth_exponents = Tensor(np.concatenate([exponents, exponents])[None].astype(np.float32))
        turn = np.zeros((dim, dim), np.float32)
        turn[np.arange(half) + half, np.arange(half)] = -1.0
        turn[np.arange(half), np.arange(half) + half] = 1.0
        self.turn = Tensor(turn, dtype)
        self.matmul = ops.MatMul()
        self.dtype = dtype
        self.head_dim = dim

    def tables(self, position_ids: Tensor, heads: int, length: Tensor) -> tuple[Tensor, Tensor]:
        """cos and sin, each (N, heads * head_dim).

        Args:
            position_ids: int32 (N,).
            heads: copies side by side.
            length: int32 scalar, tokens of the longest sequence: what `dynamic` scaling goes by.
        """
        frequencies = self.frequencies
        if self.dynamic:
            # "NTK-aware" scaling as in transformers: base * (factor * L / L0 - factor + 1) ** (dim / (dim - 2)).
            stretch = ops.cast(length, ms.float32) / self.original_length
            growth = ops.maximum(self.factor * stretch - (self.factor - 1.0), Tensor(1.0, ms.float32))
            frequencies = frequencies * ops.pow(growth, -self.growth_exponents)
        angles = ops.reshape(ops.cast(position_ids, ms.float32), (-1, 1)) * frequencies
        # One copy a head: a product of equal shapes is nearly twice as fast on a CPU as a broadcast one.
        cos = ops.tile(ops.cast(ops.cos(angles), self.dtype), (1, heads))
        sin = ops.tile(ops.cast(ops.sin(angles), self.dtype), (1, heads))
        return cos, sin

    def construct(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Turn (N, heads * head_dim) by its positions."""
        turned = ops.reshape(self.matmul(ops.reshape(x, (-1, self.head_dim)), self.turn), x.shape)
        return x * cos + turned * sin
