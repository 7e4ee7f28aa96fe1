"""Whether compiled steps still compute with a model's weights as they are."""

from __future__ import annotations

from mindspore import Parameter

from ms_medqa.models.decoder import CausalLM

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


def _place(parameter: Parameter) -> int:
    # Older releases do not tell.
    return parameter.data_ptr() if hasattr(parameter, "data_ptr") else 0
