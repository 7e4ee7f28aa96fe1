"""Whether compiled steps still compute with a model's weights as they are."""

from __future__ import annotations

import hashlib

from mindspore import Parameter

from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.row_adapters import RowAdapters

Snapshot = list[tuple[Parameter, int]]


def snapshot(model: CausalLM) -> Snapshot:
    """The parameters of a model and where their numbers lie."""
    # Parameters are held, not just their ids: an id may come back after its owner is gone.
    return [(parameter, _place(parameter)) for parameter in model.get_parameters()]


def unchanged(model: CausalLM, before: Snapshot) -> bool:
    """False where steps compiled at `before` are stale.

    A `@ms.jit` graph keeps the parameters it was traced with and the memory that they had: it sees numbers written in
    place (`copy_`, `ops.assign`), but neither an adapter that came or went nor memory that `set_data` replaced.
    """
    now = snapshot(model)
    return len(now) == len(before) and all(
        old is new and was == is_now for (old, was), (new, is_now) in zip(before, now, strict=True)
    )


def digest(model: CausalLM, adapters: RowAdapters | None) -> str:
    """sha256 (hex) of the first row of each weight: tells two models, or two trainings of one, from another."""
    found = hashlib.sha256()
    parameters = list(model.get_parameters())
    for name, side in adapters.layers.items() if adapters is not None else ():
        found.update(f"{name} {adapters.names}\n".encode())
        parameters += [side.a, side.b]
    for parameter in parameters:
        found.update(f"{parameter.name} {parameter.shape} {parameter.dtype}\n".encode())
        found.update(parameter[:1].float().asnumpy().tobytes())
    return found.hexdigest()


def _place(parameter: Parameter) -> int:
    # Older releases do not tell.
    return parameter.data_ptr() if hasattr(parameter, "data_ptr") else 0
