"""Put adapters into a model, freeze the rest, merge them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import mindspore as ms
import numpy as np
from mindspore import Parameter, nn

from ms_medqa.config.errors import UserError
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.layers import Linear
from ms_medqa.models.loading import assign, give, naming_of
from ms_medqa.models.naming import Naming
from ms_medqa.peft.delta import Change, LowRank
from ms_medqa.peft.dropout import DropoutKeys, EmbeddingNoise, KeyedDropout
from ms_medqa.peft.lora import LoraLinear
from ms_medqa.peft.options import LoraOptions, pattern_key
from ms_medqa.peft.select import Targets, select
from ms_medqa.peft.whole import train_whole, whole_modules


@dataclass(frozen=True)
class LayerPlan:
    """One layer's adapter: its rank, and the number that scales it.

    Attributes:
        module: the fused module of the checkpoint whose update this is a part of: its parts share A. None for an
            update of its own.
    """

    path: str
    r: int
    alpha: float
    use_rslora: bool = False
    module: str | None = None


def inject_lora(
    model: CausalLM,
    r: int,
    alpha: float,
    target_modules: Sequence[str] | str,
    dropout: float = 0.0,
    seed: int = 0,
    *,
    exclude_modules: Sequence[str] | str | None = None,
    layers_to_transform: Sequence[int] | int | None = None,
    layers_pattern: Sequence[str] | str | None = None,
    rank_pattern: Mapping[str, int] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
    use_rslora: bool = False,
    modules_to_save: Sequence[str] | None = None,
) -> DropoutKeys | None:
    """Replace the targeted linear layers by adapted ones, in place, and freeze every other weight.

    Args:
        model: gets the adapters.
        r: rank.
        alpha: scale is alpha / r, with `use_rslora` alpha / sqrt(r).
        target_modules, exclude_modules, layers_to_transform, layers_pattern, modules_to_save: see `Targets`.
        dropout: rate on the adapters' input.
        seed: key of the random start.
        rank_pattern, alpha_pattern: see `LoraOptions`; the first key that fits a layer counts.

    Returns:
        The dropout keys to renew before each micro-batch, None without dropout.

    Raises:
        UserError: a name or a pattern matches no layer (what exists is listed).
    """
    check_plain(model)
    naming = naming_of(model)
    targets = Targets(target_modules, exclude_modules or (), layers_to_transform, layers_pattern, modules_to_save or ())
    paths, whole = select(model, naming, targets)
    names = {path: (path, naming.module(path)) for path in paths}
    options = LoraOptions(r, alpha, rank_pattern or {}, alpha_pattern or {}, use_rslora)
    for key, patterns in (("rank_pattern", options.rank_pattern), ("alpha_pattern", options.alpha_pattern)):
        unused = [pattern for pattern in patterns if not any(pattern_key([pattern], n) for n in names.values())]
        if unused:
            hint = f"it is matched with the end of a path, such as {paths[0]}"
            raise UserError(f"lora.{key}: {unused[0]!r} fits no layer that has an adapter", hint)
    plans = [LayerPlan(path, options.rank_of(*n), options.alpha_of(*n), use_rslora) for path, n in names.items()]
    plans = _with_fused(plans, naming, targets)
    keys = put_adapters(model, plans, dropout, seed)
    train_whole(model, whole)
    model.renew()
    return keys


def _with_fused(plans: Sequence[LayerPlan], naming: Naming, targets: Targets) -> list[LayerPlan]:
    """Plans in which the parts of a fused module that is named itself (`c_attn`, `all-linear`) share A, as in PEFT."""
    found = {plan.path: plan for plan in plans}
    for module in dict.fromkeys(map(naming.module, found)):
        parts = [found.get(path) for path in naming.modules(module)]
        alike = {(plan.r, plan.alpha) if plan else None for plan in parts}
        if len(parts) > 1 and None not in alike and len(alike) == 1 and targets.take([module]):
            found |= {plan.path: replace(plan, module=module) for plan in parts if plan}
    return list(found.values())


def put_adapters(
    model: CausalLM, plans: Sequence[LayerPlan], dropout: float = 0.0, seed: int = 0
) -> DropoutKeys | None:
    """Adapters as planned, everything else frozen; `model.renew()` must follow."""
    for parameter in model.get_parameters():
        parameter.requires_grad = False
    keys = DropoutKeys(len(plans)) if dropout > 0 else None
    cells = dict(model.cells_and_names())
    fused: dict[str, LoraLinear] = {}
    for index, plan in enumerate(plans):
        drop = KeyedDropout(dropout, keys.values[index]) if keys is not None else None
        parent, _, name = plan.path.rpartition(".")
        base = cells[plan.path]
        layer = LoraLinear(base, plan.r, plan.alpha, drop, (seed, index), plan.use_rslora)
        if plan.module is not None:
            first = fused.setdefault(plan.module, layer)
            # What the one layer of the checkpoint drops, all its parts must miss.
            layer.lora_a, layer.dropout = first.lora_a, first.dropout
        setattr(cells[parent], name, layer)
    return keys


def check_plain(model: CausalLM) -> None:
    """Raise UserError where a model has an adapter, in its weights or beside them."""
    if lora_layers(model) or whole_modules(model) or model.__dict__.get("_merged_adapter"):
        raise UserError("this model has an adapter already", "load the base model anew")


def lora_layers(model: nn.Cell) -> list[tuple[str, LoraLinear]]:
    """Adapted layers with their paths, in the model's order."""
    return [(path, cell) for path, cell in model.cells_and_names() if isinstance(cell, LoraLinear)]


def merge(model: CausalLM) -> None:
    """Add the adapters to the weights and take them out, in place: the model is a plain one again."""
    cells = dict(model.cells_and_names())
    for path, layer in lora_layers(model):
        base = Linear(layer.in_features, layer.out_features, layer.bias is not None, layer.weight.dtype)
        base.weight, base.bias = layer.weight, layer.bias
        change(base.weight, LowRank(layer.lora_a.asnumpy(), layer.lora_b.asnumpy(), layer.scaling))
        parent, _, name = path.rpartition(".")
        setattr(cells[parent], name, base)
    model.renew()


def change(parameter: Parameter, what: Change, fresh: bool = False) -> None:
    """Apply a change in place, computed in float32 whatever type the parameter has.

    Args:
        fresh: no graph has read the parameter yet, so that it may get other memory: nothing is copied.
    """
    if parameter.dtype == ms.bfloat16:
        assign(parameter, what.apply(parameter.float().asnumpy()))
        return
    before = parameter.asnumpy()
    after = what.apply(before)
    if fresh:
        give(parameter, np.ascontiguousarray(after, before.dtype))
    else:
        assign(parameter, after)


def trainable_parameters(model: nn.Cell) -> list[Parameter]:
    """Parameters that training changes, in the model's order."""
    return [parameter for parameter in model.get_parameters() if parameter.requires_grad]


def count_parameters(model: nn.Cell) -> tuple[int, int]:
    """(trainable, total), dropout's bookkeeping left out."""
    keys = {id(cell.key) for _, cell in model.cells_and_names() if isinstance(cell, (EmbeddingNoise, KeyedDropout))}
    sizes = [(p.size, p.requires_grad) for p in model.get_parameters() if id(p) not in keys]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
