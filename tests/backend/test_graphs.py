"""Which layers share a compiled graph, and that each still computes with its own weights."""

from __future__ import annotations

from pathlib import Path

import decoders
import numpy as np
import pytest
from mindspore import Tensor

from ms_medqa.backend.graphs import return_free_memory, structure
from ms_medqa.models import load_model
from ms_medqa.models.loading import assign
from ms_medqa.peft import inject_lora, lora_layers

pytestmark = pytest.mark.usefixtures("graph_mode")

IDS = [5, 9, 2, 33, 60, 61, 7, 1]
CONFIG = decoders.config_of(num_hidden_layers=3)


def test_layers_that_differ_by_their_weights_alone_are_alike(tmp_path: Path) -> None:
    decoders.write(tmp_path, CONFIG)
    model = load_model(tmp_path)
    assert len({structure(layer) for layer in model.model.layers}) == 1
    inject_lora(model, 4, 8.0, "all-linear", dropout=0.1)
    assert len({structure(layer) for layer in model.model.layers}) == 1
    assert len({layer.cell_init_args for layer in model.model.layers}) == 1


def test_an_adapter_in_one_of_them_tells_it_apart(tmp_path: Path) -> None:
    weights = decoders.write(tmp_path, CONFIG)
    model = load_model(tmp_path)
    plain = model(Tensor(np.array([IDS], np.int32))).asnumpy()[0]
    np.testing.assert_allclose(plain, decoders.logits(weights, CONFIG, IDS), atol=2e-5)
    inject_lora(model, 4, 8.0, ["q_proj", "down_proj"], layers_to_transform=[1], rank_pattern={"down_proj": 2})
    names = [layer.cell_init_args for layer in model.model.layers]
    assert names[0] == names[2] != names[1]
    for path, layer in lora_layers(model):
        assign(layer.lora_b, np.random.default_rng(1).normal(0, 0.2, layer.lora_b.shape).astype(np.float32))
        weights[f"{path}.weight"] += layer.scaling * (layer.lora_b.asnumpy() @ layer.lora_a.asnumpy())
    adapted = model(Tensor(np.array([IDS], np.int32))).asnumpy()[0]
    np.testing.assert_allclose(adapted, decoders.logits(weights, CONFIG, IDS), atol=2e-5)
    assert np.abs(adapted - plain).max() > 0.01


@pytest.mark.parametrize("change", ["setting", "frozen", "constant"])
def test_anything_that_the_graph_holds_tells_layers_apart(tmp_path: Path, change: str) -> None:
    decoders.write(tmp_path, CONFIG)
    layers = load_model(tmp_path).model.layers
    attention = layers[1].self_attn
    if change == "setting":
        attention.scale *= 2
    elif change == "frozen":
        attention.q_proj.weight.requires_grad = False
    else:
        attention.rotary.frequencies = attention.rotary.frequencies * 2
    assert structure(layers[0]) == structure(layers[2]) != structure(layers[1])


def test_giving_memory_back_does_no_harm() -> None:
    return_free_memory()
