"""A step of one token a row through all layers by a kernel of our own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, Tensor, nn

from ms_medqa.backend import few_rows
from ms_medqa.backend.ops import on_cpu
from ms_medqa.models.prompt_reader import PromptReader

# What the kernel takes first: places, the norms' epsilon, x, slots.
_FIRST = 4


class StepKernel(nn.Cell):
    """The kernel with what it must know of a model.

    Args:
        reader: of the model.

    Attributes:
        kernel: None where there is none, and where a layer has adapters that are not folded in.
    """

    def __init__(self, reader: PromptReader) -> None:
        super().__init__(auto_prefix=False)
        config = reader.lm.config
        plain = all(not (lora or side) for make in reader.makes for _, _, lora, _, side in make.places)
        self.kernel = few_rows.step_kernel() if plain and on_cpu() else None
        if self.kernel is not None:
            self.epsilon = Tensor(np.array([config.rms_norm_eps], np.float32))
            self.places = Tensor(np.array(_places(reader), np.int32))

    def suits(self, x: Tensor) -> bool:
        """Whether it may take hidden states (N, H) of a model whose weights have their type."""
        return self.kernel is not None and few_rows.rows_suit(x)

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
            x: float32 (N, H).
            slots: int32 (N * kv_heads,), where keys and values go.
            masks: for each size of window, added to the scores, float32 (N, 1 or kv_heads, 1 or group, T).
            rope: rotary tables of queries and keys, if any.
            keys, values: of each layer (N * kv_heads * T, D).
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
