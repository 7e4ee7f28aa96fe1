"""Write a model's weights under the names of its family's checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ms_medqa.config.files import atomic_write
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.loading import naming_of
from ms_medqa.models.safetensors_writer import encode, write_safetensors


def write_weights(model: CausalLM, path: Path) -> None:
    """One safetensors file in the type that the model's `config.json` names, written tensor by tensor.

    Raises:
        RunError: no space left; an earlier file of this name is as it was.
    """
    naming, dtype = naming_of(model), model.config.dtype
    parameters = {parameter.name: parameter for parameter in model.get_parameters()}
    names = sorted(naming.contents)

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for name in names:
            parts = [parameters[part].float().asnumpy() for part in naming.contents[name]]
            yield name, encode(np.concatenate(parts) if len(parts) > 1 else parts[0], dtype)

    with atomic_write(path, "wb") as file:
        write_safetensors(file, {name: (dtype, naming.shape(name)) for name in names}, tensors())
