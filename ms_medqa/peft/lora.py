"""Low-rank adaptation (Hu et al. 2021, eq. 3): y = x W^T + b + scaling * dropout(x) A^T B^T."""

from __future__ import annotations

import math

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_medqa.backend import ops as backend_ops
from ms_medqa.models.layers import Linear
from ms_medqa.peft.dropout import KeyedDropout
from ms_medqa.peft.options import scaling_of


class LoraLinear(nn.Cell):
    """A frozen linear layer with a trainable low-rank update: (N, in) -> (N, out).

    It takes over the layer's own `weight` and `bias` parameters, so their names stay as they were.

    Args:
        base: the layer to adapt.
        r: rank.
        alpha: the update is scaled by alpha / r, with `use_rslora` by alpha / sqrt(r).
        dropout: applied to the adapter's input while training; None for none.
        seed: key of A's random start, U(-1/sqrt(in), 1/sqrt(in)) as in PEFT; B starts at zero, so the layer
            starts as its base.
    """

    def __init__(
        self,
        base: Linear,
        r: int,
        alpha: float,
        dropout: KeyedDropout | None,
        seed: tuple[int, ...],
        use_rslora: bool = False,
    ) -> None:
        super().__init__()
        self.in_features = base.in_features
        self.out_features = base.out_features
        self.r = r
        self.alpha = alpha
        self.use_rslora = use_rslora
        self.scaling = scaling_of(r, alpha, use_rslora)
        self.weight = base.weight
        self.bias = base.bias
        bound = 1.0 / math.sqrt(base.in_features)
        generator = np.random.Generator(np.random.Philox(list(seed)))
        start = generator.uniform(-bound, bound, (r, base.in_features)).astype(np.float32)
        # The adapter stays float32 whatever the base is: its updates are too small for float16.
        self.lora_a = Parameter(Tensor(start))
        self.lora_b = Parameter(Tensor(np.zeros((base.out_features, r), np.float32)))
        self.dropout = dropout

    def construct(self, x: Tensor) -> Tensor:
        out = backend_ops.linear(x, self.weight, self.bias)
        inner = ops.cast(x, ms.float32)
        if self.dropout is not None and self.training:
            inner = self.dropout(inner)
        update = backend_ops.linear(backend_ops.linear(inner, self.lora_a, None), self.lora_b, None)
        return out + ops.cast(update * self.scaling, out.dtype)
