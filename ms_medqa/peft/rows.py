"""Several adapters beside one model, chosen row by row of a batch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mindspore import Parameter, Tensor

from ms_medqa.config.errors import UserError
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.row_adapters import RowAdapters, SideWeights
from ms_medqa.peft.load import read_for, tell_notes

_LAYERS = "model.layers."


class NotBesideError(UserError):
    """An adapter that fits the model, but can only be merged into it."""


def load_row_adapters(model: CausalLM, folders: Mapping[str, str | Path]) -> RowAdapters:
    """Read adapters for a model that stays as it is.

    Args:
        model: a base model.
        folders: the folder of each adapter by its name.

    Raises:
        NotBesideError: an adapter holds more than low-rank updates of the layers.
        UserError: an adapter is broken or was made for another model.
    """
    pairs: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
    for name, folder in folders.items():
        adapter, naming, _ = read_for(model, folder)
        if adapter.saved:
            raise NotBesideError(
                f"adapter {folder} holds {next(iter(adapter.saved))} whole, which rows of a batch cannot choose",
                "merge it into a model of its own: `ms-medqa merge`",
            )
        for module, pair in adapter.layers.items():
            for part in naming.contents[f"{module}.weight"]:
                path, place = part.removesuffix(".weight"), naming.places[part]
                if not path.startswith(_LAYERS):
                    raise NotBesideError(
                        f"adapter {folder} changes {path}, which rows of a batch cannot choose",
                        "merge it into a model of its own: `ms-medqa merge`",
                    )
                pairs.setdefault(path, {})[name] = pair.a, pair.b[place.start : place.stop] * pair.scaling
        tell_notes(adapter)
    names = tuple(folders)
    return RowAdapters({path: _side_by_side(path, own, names) for path, own in pairs.items()}, names)


def _side_by_side(path: str, pairs: Mapping[str, tuple[np.ndarray, np.ndarray]], names: tuple[str, ...]) -> SideWeights:
    a = np.concatenate([pair[0] for pair in pairs.values()])
    b = np.concatenate([pair[1] for pair in pairs.values()], 1)
    columns = np.zeros((len(names), len(a)), np.float32)
    start = 0
    for name, pair in pairs.items():
        columns[names.index(name), start : start + len(pair[0])] = 1.0
        start += len(pair[0])
    values = {"a": a, "b": np.ascontiguousarray(b), "columns": columns}
    made = {
        kind: Parameter(Tensor(value.astype(np.float32)), name=f"rows.{path}.{kind}", requires_grad=False)
        for kind, value in values.items()
    }
    return SideWeights(**made)
