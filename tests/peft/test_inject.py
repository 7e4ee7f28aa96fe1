"""Adapters in a model: what changes, what must not, and what merging gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import decoders
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from ms_medqa.config import UserError
from ms_medqa.models import load_model
from ms_medqa.models.loading import assign
from ms_medqa.peft import LoraLinear, count_parameters, inject_lora, lora_layers, merge, trainable_parameters

pytestmark = pytest.mark.usefixtures("graph_mode")

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = [[5, 9, 2, 33, 60, 61, 7, 1], [90, 1, 1, 4, 8, 77, 21, 3]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], decoders.Weights]:
    folder, config = tmp_path_factory.mktemp("base"), decoders.config_of(num_hidden_layers=1)
    return folder, config, decoders.write(folder, config)


def run(model: Any) -> np.ndarray:
    return model(Tensor(np.array(IDS, np.int32))).asnumpy()


def fill(model: Any, seed: int = 5) -> None:
    """Give every B numbers, so that the adapters do something."""
    rng = np.random.default_rng(seed)
    for _, layer in lora_layers(model):
        assign(layer.lora_b, rng.normal(0, 0.1, layer.lora_b.shape).astype(np.float32))


def adapted(base: decoders.Weights, model: Any) -> decoders.Weights:
    """The base weights with W + alpha / r * B A written out."""
    weights = dict(base)
    for path, layer in lora_layers(model):
        update = layer.lora_b.asnumpy().astype(np.float64) @ layer.lora_a.asnumpy() * layer.scaling
        weights[f"{path}.weight"] = base[f"{path}.weight"] + update
    return weights


def test_from_the_base_through_training_to_the_merged_model(
    base: tuple[Path, dict[str, Any], decoders.Weights],
) -> None:
    folder, config, weights = base
    model = load_model(folder)
    names = {parameter.name: parameter for parameter in model.get_parameters()}
    before = run(model)  # compiles the base; an adapter must not be hidden by that graph

    inject_lora(model, 4, 8.0, ALL, seed=1)
    assert len(lora_layers(model)) == len(ALL)
    assert np.array_equal(run(model), before)

    fill(model)
    unmerged = run(model)
    for row, ids in enumerate(IDS):
        np.testing.assert_allclose(unmerged[row], decoders.logits(adapted(weights, model), config, ids), atol=2e-5)
    assert np.abs(unmerged - before).max() > 0.1

    merge(model)
    assert lora_layers(model) == []
    assert np.abs(run(model) - unmerged).max() <= 1e-5
    assert {parameter.name for parameter in model.get_parameters()} == set(names)
    # The weights are those that the base had, not copies of them.
    assert all(names[parameter.name] is parameter for parameter in model.get_parameters())


def test_names_and_what_is_trained(tmp_path: Path) -> None:
    weights = decoders.write(tmp_path, decoders.config_of())
    model = load_model(tmp_path)
    _, total = count_parameters(model)
    inject_lora(model, 4, 8.0, ["q_proj", "down_proj"], dropout=0.1)
    names = [parameter.name for parameter in model.get_parameters()]
    assert len(set(names)) == len(names)
    assert {name for name in names if ".lora_" in name} == {
        f"model.layers.{layer}.{path}.lora_{half}"
        for layer in (0, 1)
        for path in ("self_attn.q_proj", "mlp.down_proj")
        for half in "ab"
    }
    assert set(weights) <= set(names)
    trained = trainable_parameters(model)
    assert {parameter.name for parameter in trained} == {name for name in names if ".lora_" in name}
    assert {parameter.name for parameter in model.trainable_params()} == {parameter.name for parameter in trained}
    size = 2 * (4 * (32 + 32) + 4 * (48 + 32))
    assert count_parameters(model) == (size, total + size)


def test_an_adapter_on_the_head_takes_part(base: tuple[Path, dict[str, Any], decoders.Weights]) -> None:
    folder, config, weights = base
    model = load_model(folder)
    inject_lora(model, 4, 8.0, ["lm_head"])
    assert [path for path, _ in lora_layers(model)] == ["lm_head"]
    fill(model)
    unmerged = run(model)
    np.testing.assert_allclose(unmerged[0], decoders.logits(adapted(weights, model), config, IDS[0]), atol=2e-5)
    merge(model)
    assert np.abs(run(model) - unmerged).max() <= 1e-5


def test_the_start_is_a_function_of_seed_and_layer(base: tuple[Path, dict[str, Any], decoders.Weights]) -> None:
    def starts(seed: int) -> list[np.ndarray]:
        model = load_model(base[0])
        inject_lora(model, 4, 8.0, ["q_proj", "o_proj"], seed=seed)
        assert not any(layer.lora_b.asnumpy().any() for _, layer in lora_layers(model))
        return [layer.lora_a.asnumpy() for _, layer in lora_layers(model)]

    one, again, other = starts(1), starts(1), starts(2)
    assert all(map(np.array_equal, one, again))
    different = [*one, *other]
    assert not any(np.array_equal(a, b) for n, a in enumerate(different) for b in different[:n])
    bound = 1 / np.sqrt(32)
    for a in one:
        assert a.shape == (4, 32)
        assert np.abs(a).max() <= bound
        assert a.std() == pytest.approx(bound / np.sqrt(3), rel=0.15)


def test_adapters_of_a_float16_model_are_float32(base: tuple[Path, dict[str, Any], decoders.Weights]) -> None:
    folder, config, weights = base
    model = load_model(folder, dtype="float16")
    inject_lora(model, 4, 8.0, ["q_proj", "v_proj"])
    assert {parameter.dtype for parameter in trainable_parameters(model)} == {ms.float32}
    assert {p.dtype for p in model.get_parameters() if not p.requires_grad} == {ms.float16}
    fill(model)
    np.testing.assert_allclose(run(model)[0], decoders.logits(adapted(weights, model), config, IDS[0]), atol=0.03)


@pytest.mark.parametrize("names", [["q_proj", "wq"], ["attn.q_proj"], ["embed_tokens"], ["norm"], [".*"], [""]])
def test_unknown_layers_are_named_with_those_that_exist(
    base: tuple[Path, dict[str, Any], decoders.Weights], names: list[str]
) -> None:
    model = load_model(base[0])
    with pytest.raises(UserError, match=r"lora\.target_modules: no layer named .*down_proj.*q_proj") as error:
        inject_lora(model, 4, 8.0, names)
    assert names[-1] in str(error.value)
    assert lora_layers(model) == []
    assert all(parameter.requires_grad for parameter in model.get_parameters())


def test_a_second_adapter_is_refused(base: tuple[Path, dict[str, Any], decoders.Weights]) -> None:
    model = load_model(base[0])
    inject_lora(model, 4, 8.0, ["q_proj"])
    with pytest.raises(UserError, match="has an adapter already"):
        inject_lora(model, 4, 8.0, ["v_proj"])
    assert [type(cell).__name__ for _, cell in lora_layers(model)] == [LoraLinear.__name__]
