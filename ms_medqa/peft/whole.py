"""Modules that are trained whole beside an adapter (`modules_to_save`): the embedding, the head, norms.

Their weights are float32 whatever the model computes in, for updates are smaller than the steps between float16
numbers; the forward pass casts them.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_medqa.backend import ops as backend_ops
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.layers import Embedding, Linear, RMSNorm
from ms_medqa.peft.select import HEAD_PATH

_KEY = "_whole_modules"


class WholeEmbedding(Embedding):
    """An embedding with float32 weights and rows of the model's type."""

    def __init__(self, base: Embedding) -> None:
        super().__init__(*base.weight.shape, ms.float32)
        self.out_dtype = base.weight.dtype

    def construct(self, input_ids: Tensor) -> Tensor:
        return ops.cast(ops.gather(self.weight, input_ids, 0), self.out_dtype)


class WholeLinear(Linear):
    """A linear layer with float32 weights that computes in its input's type."""

    def __init__(self, base: Linear) -> None:
        super().__init__(base.in_features, base.out_features, False, ms.float32)

    def construct(self, x: Tensor) -> Tensor:
        return backend_ops.linear(x, ops.cast(self.weight, x.dtype), None)


class WholeNorm(RMSNorm):
    """A norm with float32 weights and rows of its input's type."""

    def __init__(self, base: RMSNorm) -> None:
        super().__init__(base.weight.shape[0], base.eps, ms.float32)

    def construct(self, x: Tensor) -> Tensor:
        return self.norm(x, ops.cast(self.weight, x.dtype), self.eps)


def train_whole(model: CausalLM, paths: Sequence[str]) -> None:
    """Make modules trainable, in place; the weights keep their names."""
    cells = dict(model.cells_and_names())
    for path in paths:
        cell = cells[path]
        if cell.weight.dtype != ms.float32:
            cell = _with_float32(cell)
            parent, _, name = path.rpartition(".")
            setattr(cells[parent], name, cell)
        cell.weight.requires_grad = True
    mark_whole(model, paths)
    if HEAD_PATH in paths:
        # What loading did once must follow every update.
        model.normalize_head = model.config.normalized_head


def mark_whole(model: CausalLM, paths: Sequence[str]) -> None:
    """Note which modules an adapter of this model holds whole."""
    model.__dict__[_KEY] = tuple(paths)


def whole_modules(model: CausalLM) -> tuple[str, ...]:
    """Paths of the modules that an adapter of this model holds whole."""
    return model.__dict__.get(_KEY, ())


def _with_float32(base: nn.Cell) -> nn.Cell:
    kinds = {Embedding: WholeEmbedding, Linear: WholeLinear, RMSNorm: WholeNorm}
    cell = kinds[type(base)](base)
    cell.weight = Parameter(Tensor(base.weight.float().asnumpy()), name=base.weight.name)
    return cell
