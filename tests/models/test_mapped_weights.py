"""Weights that lie over their file's own pages: as good as copies, and nothing but the file's pages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

import ms_medqa
from ms_medqa.models.loading import assign
from ms_medqa.models.safetensors import SafetensorsFile

pytestmark = pytest.mark.usefixtures("pynative_mode")

NAME = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model of its own."""
    tiny.write_tokenizer(tmp_path)
    tiny.write_model(tmp_path)
    return tmp_path


def weights(model: object) -> dict[str, np.ndarray]:
    return {parameter.name: parameter.asnumpy() for parameter in model.get_parameters()}


def test_what_is_written_into_weights_stays_out_of_the_file(folder: Path) -> None:
    file = folder / "model.safetensors"
    before = file.read_bytes()
    model = ms_medqa.load_model(folder, dtype="float32")
    parameter = next(p for p in model.get_parameters() if p.name == NAME)
    assign(parameter, np.full(parameter.shape, 7, np.float32))
    assert (weights(model)[NAME] == 7).all()
    assert file.read_bytes() == before
    assert not (weights(ms_medqa.load_model(folder, dtype="float32"))[NAME] == 7).any()


def test_another_file_of_the_name_changes_nothing(folder: Path) -> None:
    model = ms_medqa.load_model(folder, dtype="float32")
    before = {name: value.copy() for name, value in weights(model).items()}
    (folder / "other").mkdir()
    tiny.write_model(folder / "other", seed=9)
    os.replace(folder / "other" / "model.safetensors", folder / "model.safetensors")
    for name, value in weights(model).items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("padding", range(4))
def test_numbers_may_begin_anywhere_in_a_file(folder: Path, padding: int) -> None:
    wanted = {name: value.copy() for name, value in weights(ms_medqa.load_model(folder, dtype="float32")).items()}
    file = folder / "model.safetensors"
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length] + b" " * padding
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])
    assert SafetensorsFile(file).offset(NAME) % 4 == padding
    for name, value in weights(ms_medqa.load_model(folder, dtype="float32")).items():
        np.testing.assert_array_equal(value, wanted[name])


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells of a process")
def test_loading_takes_no_memory_but_the_files(tmp_path: Path) -> None:
    tiny.write_tokenizer(tmp_path)
    tiny.write_model(tmp_path, hidden_size=1024)
    size = (tmp_path / "model.safetensors").stat().st_size
    code = """
import json, sys
from ms_medqa.backend.device import setup
setup("CPU", mode="pynative")
import ms_medqa
def anonymous():
    return next(int(l.split()[1]) * 1024 for l in open("/proc/self/status") if l.startswith("RssAnon:"))
before = anonymous()
model = ms_medqa.load_model(sys.argv[1], dtype="float32")
total = sum(float(p.asnumpy().sum()) for p in model.get_parameters())
print(json.dumps([anonymous() - before, total]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(Path(ms_medqa.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    taken, _ = json.loads(done.stdout)
    assert size > 20e6
    assert taken < size / 3
