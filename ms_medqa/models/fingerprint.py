"""Tell one set of base weights from another without reading all of them."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np

from ms_medqa.models.config import ModelConfig
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.loading import check_weights, load_config, naming_of, weight_files

# Values taken of each tensor, evenly spread. A training of all weights, or a merged adapter, changes most values of the
# tensors that it touches.
_SAMPLES = 64


def base_fingerprint(folder: Path, config: ModelConfig | None = None) -> str:
    """sha256 (hex) over the names, shapes and sampled values of a model folder's weights.

    Values count as float32: other shards, or a type that holds the same numbers, keep the fingerprint.

    Args:
        folder: a model folder in Hugging Face layout.
        config: its shape, where that is known already.

    Raises:
        UserError: the weights do not fit the folder's `config.json`.
    """
    naming = naming_of(CausalLM(load_config(folder) if config is None else config))
    files = weight_files(folder)
    check_weights(naming, files, folder)
    digest = hashlib.sha256()
    for name in sorted(naming.contents):
        shape = naming.shape(name)
        digest.update(f"{name} {shape}\n".encode())
        places = np.linspace(0, math.prod(shape) - 1, _SAMPLES).astype(np.int64)
        digest.update(files[name].values_at(name, places).astype("<f4").tobytes())
    return digest.hexdigest()
