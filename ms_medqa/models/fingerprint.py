"""Tell one set of base weights from another without reading all of them."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np

from ms_medqa.models.checkpoint import open_checkpoint
from ms_medqa.models.config import ModelConfig

# Runs of values taken of each tensor, evenly spread, and their length: neighbours cost no further page of the file. A
# training of all weights changes most values; a small adapter, merged in bfloat16, may change one in a hundred.
_RUNS, _RUN = 64, 16


def base_fingerprint(folder: Path, config: ModelConfig | None = None) -> str:
    """sha256 (hex) over the names, shapes and sampled values of a model folder's weights.

    Values count as float32: other shards, or a type that holds the same numbers, keep the fingerprint.

    Args:
        folder: a model folder in Hugging Face layout.
        config: its shape, where that is known already.

    Raises:
        UserError: the weights do not fit the folder's `config.json`.
    """
    checkpoint = open_checkpoint(folder, config)
    naming, files = checkpoint.naming, checkpoint.files
    digest = hashlib.sha256()
    for name in sorted(naming.contents):
        shape = naming.shape(name)
        digest.update(f"{name} {shape}\n".encode())
        last = math.prod(shape) - 1
        places = np.linspace(0, last, _RUNS).astype(np.int64)[:, None] + np.arange(_RUN)
        digest.update(files[name].values_at(name, np.minimum(places, last).ravel()).astype("<f4").tobytes())
        # The system reads on behind each value; together that would be half the model in memory.
        files[name].release(name)
    return digest.hexdigest()
