"""Whether compiled steps still compute with a model's weights as they are."""

from __future__ import annotations

import hashlib

from mindspore import Parameter

from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.row_adapters import RowAdapters

# Numbers at a time.
_DIGESTED = 1 << 24
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


def digest(model: CausalLM, adapters: RowAdapters | None, whole: bool = False) -> str:
    """sha256 (hex) of the first row of each weight: tells two models, or two trainings of one, from another.

    Args:
        model: whose weights.
        adapters: of which each request takes one, if any.
        whole: of all rows, which takes a second for a GB or two.
    """
    found = hashlib.sha256()
    parameters = list(model.get_parameters())
    for name, side in adapters.layers.items() if adapters is not None else ():
        found.update(f"{name} {adapters.names}\n".encode())
        parameters += [side.a, side.b]
    for parameter in parameters:
        found.update(f"{parameter.name} {parameter.shape} {parameter.dtype}\n".encode())
        rows = parameter.shape[0] if whole and parameter.ndim else 1
        # As many at a time as make 64 MB of float32, however large an embedding is.
        step = max(1, _DIGESTED * rows // max(1, parameter.size))
        for start in range(0, rows, step):
            found.update(parameter[start : min(start + step, rows)].float().asnumpy().tobytes())
    return found.hexdigest()


def _place(parameter: Parameter) -> int:
    # Older releases do not tell.
    return parameter.data_ptr() if hasattr(parameter, "data_ptr") else 0
