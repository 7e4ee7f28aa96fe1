"""LoRA adapters of which each row of a batch takes one, or none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from mindspore import Parameter


@dataclass(frozen=True)
class SideWeights:
    """All adapters' updates of one linear layer, side by side: y += ((x A^T) * (choice E)) B^T.

    Attributes:
        a: float32 (R, in), R the sum of the adapters' ranks.
        b: float32 (out, R), scaled.
        columns: E, float32 (adapters, R), 1 where a column is an adapter's: it turns a row's choice into its columns.
    """

    a: Parameter
    b: Parameter
    columns: Parameter


class RowAdapters:
    """Adapters by name, beside the weights of a model.

    Args:
        layers: path of a linear layer of the decoder -> its side weights.
        names: of the adapters, in the order of `columns`.
    """

    def __init__(self, layers: Mapping[str, SideWeights], names: Sequence[str]) -> None:
        self.layers = dict(layers)
        self.names = tuple(names)

    def choice(self, adapters: Sequence[str | None]) -> np.ndarray:
        """float32 (rows, adapters): 1 where a row takes an adapter; a row of zeros is the base model's."""
        chosen = np.zeros((len(adapters), len(self.names)), np.float32)
        for row, name in enumerate(adapters):
            if name is not None:
                chosen[row, self.names.index(name)] = 1.0
        return chosen
