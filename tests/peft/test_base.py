"""`base.json`: an adapter meets only the weights that it was trained on."""

from __future__ import annotations

import json
from pathlib import Path

import decoders
import numpy as np
import pytest

from ms_medqa.config import UserError
from ms_medqa.models import load_model
from ms_medqa.models.fingerprint import base_fingerprint
from ms_medqa.peft import inject_lora, load_adapter, lora_layers, save_adapter

pytestmark = pytest.mark.usefixtures("graph_mode")

CONFIG = decoders.config_of(num_hidden_layers=1)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    decoders.write(tmp_path / "base", CONFIG)
    return tmp_path / "base"


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    model = load_model(base)
    inject_lora(model, 2, 4.0, ["q_proj"])
    save_adapter(model, tmp_path / "adapter", "some/base", base_fingerprint(base))
    return tmp_path / "adapter"


def test_the_base_is_written_beside_the_adapter(base: Path, adapter: Path) -> None:
    noted = json.loads((adapter / "base.json").read_text(encoding="utf-8"))
    assert noted == {"fingerprint": base_fingerprint(base), "model": "some/base"}


@pytest.mark.parametrize("merged", [True, False])
def test_other_weights_are_refused_and_stay_as_they_are(tmp_path: Path, adapter: Path, merged: bool) -> None:
    other = tmp_path / "other"
    decoders.write(other, CONFIG, decoders.random_weights(CONFIG, seed=1))
    model = load_model(other)
    before = {parameter.name: parameter.asnumpy().copy() for parameter in model.get_parameters()}
    with pytest.raises(UserError, match=r"was trained on some/base .* holds other weights .*: load the base that") as e:
        load_adapter(model, adapter, merge=merged)
    assert str(adapter) in str(e.value)
    assert str(other) in str(e.value)
    assert lora_layers(model) == []
    assert all(np.array_equal(before[p.name], p.asnumpy()) for p in model.get_parameters())


@pytest.mark.parametrize("merged", [True, False])
def test_the_same_weights_in_another_folder_are_taken(tmp_path: Path, base: Path, adapter: Path, merged: bool) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in base.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    load_adapter(load_model(copy), adapter, merge=merged)


def test_an_adapter_that_names_no_base_fits_any(tmp_path: Path, base: Path, adapter: Path) -> None:
    (adapter / "base.json").unlink()
    decoders.write(tmp_path / "other", CONFIG, decoders.random_weights(CONFIG, seed=1))
    load_adapter(load_model(tmp_path / "other"), adapter)


def test_a_note_of_an_earlier_adapter_does_not_stay(base: Path, adapter: Path) -> None:
    model = load_model(base)
    inject_lora(model, 2, 4.0, ["q_proj"])
    save_adapter(model, adapter, "random weights")
    assert not (adapter / "base.json").exists()


@pytest.mark.parametrize("text", ["{", "{}", '{"fingerprint": 3, "model": "x"}'])
def test_a_broken_note_is_told(base: Path, adapter: Path, text: str) -> None:
    (adapter / "base.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"base\.json: "):
        load_adapter(load_model(base), adapter)
