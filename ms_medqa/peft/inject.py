"""Put adapters into a model, freeze the rest, merge them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mindspore import Parameter, nn

from ms_medqa.config.errors import UserError
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.layers import Linear
from ms_medqa.models.loading import assign
from ms_medqa.peft.dropout import DropoutKeys, KeyedDropout
from ms_medqa.peft.lora import LoraLinear


def inject_lora(
    model: CausalLM,
    r: int,
    alpha: float,
    target_modules: Sequence[str],
    dropout: float = 0.0,
    seed: int = 0,
) -> DropoutKeys | None:
    """Replace the targeted linear layers by adapted ones, in place, and freeze every other weight.

    Args:
        model: gets the adapters.
        r: rank.
        alpha: scale is alpha / r.
        target_modules: names of layers (the last part of their path), such as `q_proj`.
        dropout: rate on the adapters' input.
        seed: key of the random start.

    Returns:
        The dropout keys to renew before each micro-batch, None without dropout.

    Raises:
        UserError: a name matches no linear layer (the names that exist are listed).
    """
    if lora_layers(model):
        raise UserError("this model has an adapter already", "load the base model anew")
    found = [(path, cell) for path, cell in model.cells_and_names() if type(cell) is Linear]
    known = sorted({path.rsplit(".", 1)[-1] for path, _ in found})
    wrong = sorted(set(target_modules) - set(known))
    if wrong:
        raise UserError(f"lora.target_modules: no layer named {', '.join(wrong)}", f"layers here: {', '.join(known)}")
    targets = [(path, cell) for path, cell in found if path.rsplit(".", 1)[-1] in set(target_modules)]
    for parameter in model.get_parameters():
        parameter.requires_grad = False
    keys = DropoutKeys(len(targets)) if dropout > 0 else None
    cells = dict(model.cells_and_names())
    for index, (path, base) in enumerate(targets):
        drop = KeyedDropout(dropout, index, keys) if keys is not None else None
        parent, _, name = path.rpartition(".")
        setattr(cells[parent], name, LoraLinear(base, r, alpha, drop, (seed, index)))
    _renew(model)
    return keys


def lora_layers(model: nn.Cell) -> list[tuple[str, LoraLinear]]:
    """Adapted layers with their paths, in the model's order."""
    return [(path, cell) for path, cell in model.cells_and_names() if isinstance(cell, LoraLinear)]


def merge(model: CausalLM) -> None:
    """Add the adapters to the weights and take them out, in place: the model is a plain one again."""
    cells = dict(model.cells_and_names())
    for path, layer in lora_layers(model):
        base = Linear(layer.in_features, layer.out_features, layer.bias is not None, layer.weight.dtype)
        base.weight, base.bias = layer.weight, layer.bias
        add_to_weight(base.weight, layer.delta())
        parent, _, name = path.rpartition(".")
        setattr(cells[parent], name, base)
    _renew(model)


def _renew(model: CausalLM) -> None:
    # An injected cell's parameters carry only their local name until the whole tree is named anew.
    model.update_parameters_name()
    # A graph that was compiled before the change would go on running without it.
    model.compile_cache.clear()


def add_to_weight(weight: Parameter, delta: np.ndarray) -> None:
    """weight += delta, added in float32 whatever type the weight has."""
    assign(weight, weight.float().asnumpy() + delta)


def trainable_parameters(model: nn.Cell) -> list[Parameter]:
    """Parameters that training changes, in the model's order."""
    return [parameter for parameter in model.get_parameters() if parameter.requires_grad]


def count_parameters(model: nn.Cell) -> tuple[int, int]:
    """(trainable, total), dropout's bookkeeping left out."""
    keys = {id(cell.value) for _, cell in model.cells_and_names() if isinstance(cell, DropoutKeys)}
    sizes = [(p.size, p.requires_grad) for p in model.get_parameters() if id(p) not in keys]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
