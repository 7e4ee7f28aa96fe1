"""What tells the weights of two models from one another."""

from __future__ import annotations

import shutil
from pathlib import Path

import tiny
import trainable
from safetensors.numpy import save_file

from ms_medqa.generation.generate import load_model
from ms_medqa.generation.weights import digest


def test_a_digest_of_all_rows_sees_what_lies_behind_the_first(tmp_path: Path) -> None:
    own = tiny.model()
    folder = tmp_path / "model"
    shutil.copytree(tiny.folder(), folder)
    weights = trainable.tensors(folder / "model.safetensors")
    weights["lm_head.weight"][-1] += 1
    save_file(weights, str(folder / "model.safetensors"), metadata={"format": "pt"})
    other = load_model(folder)
    assert digest(own, None) == digest(other, None)
    assert digest(own, None, whole=True) != digest(other, None, whole=True)
    assert digest(own, None, whole=True) == digest(load_model(tiny.folder()), None, whole=True)
