"""Few tokens through all layers by a kernel of our own: the next one of each row, or some of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn

from ms_medqa.backend import few_rows
from ms_medqa.backend.ops import on_cpu

if TYPE_CHECKING:
    from ms_medqa.models.prompt_reader import PromptReader

# What the kernel takes first: places, the norms' epsilon, x, slots.
_FIRST = 4
# Numbers of a layer's matrices up to which an operator costs more than its work, for more than few tokens as well;
# `kSmall` in backend/kernels/decoder_step.cc.
SMALL_LAYER = 1_000_000
MOST_TOKENS_OF_SMALL = 128


class StepKernel(nn.Cell):
    """The kernel with what it must know of a model.

    Args:
        reader: of the model.

    Attributes:
        kernel: None where there is none, and where a layer has adapters that are not folded in.
        most_tokens: of prompts, and of rows, above which operators are as fast; 0 where it cannot be used at all.
        small: the layers are such that operators cost more than their work.
    """

    def __init__(self, reader: PromptReader) -> None:
        super().__init__(auto_prefix=False)
        config = reader.lm.config
        plain = all(not (lora or side) for make in reader.makes for _, _, lora, _, side in make.places)
        suits = plain and on_cpu() and reader.lm.compute_dtype == ms.float32
        self.kernel = few_rows.step_kernel() if suits else None
        self.most_tokens, self.small = 0, False
        if self.kernel is not None:
            self.small = sum(weight.size for weight in reader.weights[0] if weight.ndim == 2) <= SMALL_LAYER
            self.most_tokens = MOST_TOKENS_OF_SMALL if self.small else few_rows.MOST_ROWS
            self.epsilon = Tensor(np.array([config.rms_norm_eps], np.float32))
            self.places = Tensor(np.array(_places(reader), np.int32))

    def construct(
        self,
        x: Tensor,
        slots: Tensor,
        masks: tuple[Tensor, ...],
        rope: tuple[Tensor, ...],
        keys: Sequence[Parameter],
        values: Sequence[Parameter],
        weights: Sequence[Parameter],
    ) -> Tensor:
        """The layers' output (N, H); keys and values are written on the way.

        MindSpore does not know that, and would not order it before or after another use of the caches: in a graph with
        this, nothing else may read or write them.

        Args:
            x: float32 (N, H), of one token or several of a row.
            slots: int32 (N * kv_heads,), where keys and values go; below 0 for those behind the last token.
            masks: for each size of window, added to the scores, float32 (N, 1 or kv_heads, 1 or group, T).
            rope: rotary tables of queries and keys, if any.
            keys, values: of each layer (rows * kv_heads * T, D).
            weights: of all layers, in the order of `PromptReader.weights`.
        """
        return self.kernel(self.places, self.epsilon, x, slots, *masks, *rope, *keys, *values, *weights)


def _places(reader: PromptReader) -> list[list[int]]:
    """For each layer, where the kernel finds what it calls `Place`."""
    layers = len(reader.make_of)
    rope = _FIRST + reader.masks
    caches = rope + (4 if reader.makes[0].rotary else 0)
    weights = caches + 2 * layers
    table = []
    for index, make in enumerate(reader.make_of):
        layer = reader.makes[make]
        row = [_FIRST + reader.lm.model.mask.of_layer[index], caches + index, caches + layers + index]
        row += range(rope, rope + 4) if layer.rotary else [-1] * 4
        row += [weights, weights + 1, *((weights + 2, weights + 3) if layer.qk_norm else (-1, -1))]
        for place, bias, *_ in layer.places:
            row += [weights + place, weights + place + 1 if bias else -1]
        table.append(row)
        weights += len(reader.weights[index])
    return table
