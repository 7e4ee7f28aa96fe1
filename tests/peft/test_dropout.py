"""Dropout whose masks are a function of (seed, step, rank, layer)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import decoders
import numpy as np
import pytest
from mindspore import Tensor, nn

from ms_medqa.models import CausalLM, load_model
from ms_medqa.models.loading import assign
from ms_medqa.peft import DropoutKeys, add_embedding_noise, inject_lora, lora_layers
from ms_medqa.peft.dropout import EmbeddingNoise, KeyedDropout

pytestmark = pytest.mark.usefixtures("graph_mode")

RATE = 0.3
SHAPE = (96, 64)
IDS = [5, 9, 2, 33, 60, 61, 7, 1]
Draw = Callable[[int, int, int], np.ndarray]


class Layers(nn.Cell):
    """Three dropout layers on one input."""

    def __init__(self) -> None:
        super().__init__()
        self.keys = DropoutKeys(3)
        self.layers = nn.CellList([KeyedDropout(RATE, key) for key in self.keys.values])

    def construct(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.layers[0](x), self.layers[1](x), self.layers[2](x)


@pytest.fixture(scope="module")
def draw() -> Draw:
    """(seed, step, rank) -> what the three layers make of ones: float32 (3, *SHAPE)."""
    cell = Layers()
    ones = Tensor(np.ones(SHAPE, np.float32))

    def draw(seed: int, step: int, rank: int) -> np.ndarray:
        cell.keys.renew(seed, step, rank)
        return np.stack([out.asnumpy() for out in cell(ones)])

    return draw


def test_the_same_keys_give_the_same_mask(draw: Draw) -> None:
    one = draw(1, 2, 0)
    other = draw(1, 3, 0)
    assert np.array_equal(draw(1, 2, 0), one)
    assert not np.array_equal(one, other)


def test_kept_numbers_are_scaled_and_the_rest_is_zero(draw: Draw) -> None:
    values = set(np.unique(draw(1, 2, 0)).tolist())
    assert values == {0.0, float(np.float32(1 / (1 - RATE)))}


@pytest.mark.parametrize("other", [(8, 5, 0), (7, 6, 0), (7, 5, 1)], ids=["seed", "step", "rank"])
def test_another_seed_step_or_rank_gives_an_unrelated_mask(draw: Draw, other: tuple[int, int, int]) -> None:
    one, two = draw(7, 5, 0) > 0, draw(*other) > 0
    for layer in range(3):
        assert abs(np.corrcoef(one[layer].ravel(), two[layer].ravel())[0, 1]) < 0.06


def test_layers_have_unrelated_masks(draw: Draw) -> None:
    masks = (draw(7, 5, 0) > 0).reshape(3, -1)
    assert np.abs(np.corrcoef(masks) - np.eye(3)).max() < 0.06


def test_each_number_falls_as_often_as_the_rate_says(draw: Draw) -> None:
    steps = 100
    zeros = np.stack([draw(3, step, 0) == 0 for step in range(steps)]).astype(np.float64)
    # The share of one mask has a standard deviation of 0.006, that of one number over the steps 0.046.
    share = zeros.mean((2, 3))
    assert np.abs(share - RATE).max() < 0.03
    assert zeros.mean() == pytest.approx(RATE, abs=0.002)
    each = zeros.mean(0)
    assert each.std() == pytest.approx(np.sqrt(RATE * (1 - RATE) / steps), rel=0.1)
    # Neighbours and rows fall independently of each other.
    flat = zeros[:, 0] - RATE
    variance = RATE * (1 - RATE)
    assert abs((flat[:, :, 1:] * flat[:, :, :-1]).mean()) < 0.02 * variance
    assert abs((flat[:, 1:] * flat[:, :-1]).mean()) < 0.02 * variance
    # A column that falls as a whole would make row sums vary more than those of independent draws.
    assert zeros.sum(3).var() == pytest.approx(SHAPE[1] * variance, rel=0.1)


def test_the_expectation_is_kept(draw: Draw) -> None:
    outputs = np.stack([draw(11, step, 0) for step in range(100)])
    assert outputs.mean() == pytest.approx(1.0, abs=0.003)


def runner(model: CausalLM, keys: DropoutKeys) -> Callable[[bool, int], np.ndarray]:
    """(training, step) -> logits of `IDS`."""

    def run(training: bool, step: int) -> np.ndarray:
        model.set_train(training)
        keys.renew(0, step, 0)
        return model(Tensor(np.array([IDS], np.int32))).asnumpy()[0]

    return run


def test_an_adapter_drops_in_training_alone(tmp_path: Path) -> None:
    config = decoders.config_of(num_hidden_layers=1)
    weights = decoders.write(tmp_path, config)
    model = load_model(tmp_path)
    keys = inject_lora(model, 4, 8.0, ["q_proj", "v_proj", "down_proj"], dropout=RATE)
    assert keys is not None
    for path, layer in lora_layers(model):
        assign(layer.lora_b, np.random.default_rng(1).normal(0, 0.2, layer.lora_b.shape).astype(np.float32))
        weights[f"{path}.weight"] += 2.0 * (layer.lora_b.asnumpy() @ layer.lora_a.asnumpy())
    run = runner(model, keys)
    plain = decoders.logits(weights, config, IDS)
    np.testing.assert_allclose(run(False, 0), plain, atol=2e-5)
    first, second, again = run(True, 0), run(True, 1), run(True, 0)
    assert np.array_equal(first, again)
    assert np.abs(first - second).max() > 0.01
    assert np.abs(first - plain).max() > 0.01
    # After training steps, evaluation is without dropout again.
    np.testing.assert_allclose(run(False, 1), plain, atol=2e-5)
    assert {value.name for value in keys.values} < {parameter.name for parameter in model.get_parameters()}
    assert not any(value.requires_grad for value in keys.values)


def test_noise_is_uniform_and_a_function_of_its_key() -> None:
    alpha, length = 5.0, 24
    keys = DropoutKeys(1, "embedding_noise")
    cell = EmbeddingNoise(alpha, length, keys.values[0])
    cell.set_train(True)
    zeros = Tensor(np.zeros(SHAPE, np.float32))

    def draw(seed: int, step: int, rank: int) -> np.ndarray:
        keys.renew(seed, step, rank)
        return cell(zeros).asnumpy()

    bound = alpha / np.sqrt(length * SHAPE[1])
    one = draw(1, 2, 0)
    assert np.array_equal(draw(1, 2, 0), one)
    for other in ((2, 2, 0), (1, 3, 0), (1, 2, 1)):
        assert abs(np.corrcoef(one.ravel(), draw(*other).ravel())[0, 1]) < 0.06
    # Standard deviation of a uniform number between -b and b.
    assert one.std() == pytest.approx(bound / np.sqrt(3), rel=0.03)
    assert abs(one.mean()) < 0.02 * bound
    assert np.abs(one).max() == pytest.approx(bound, rel=0.01)
    assert np.abs(one).max() <= bound
    # Dropout of the same step draws something else.
    own = DropoutKeys(1)
    own.renew(1, 2, 0)
    keys.renew(1, 2, 0)
    assert not np.allclose(own.values[0].asnumpy(), keys.values[0].asnumpy())
    cell.set_train(False)
    assert not cell(zeros).asnumpy().any()


def test_a_model_is_noisy_in_training_alone(tmp_path: Path) -> None:
    config = decoders.config_of(num_hidden_layers=1)
    weights = decoders.write(tmp_path, config)
    model = load_model(tmp_path)
    names = [parameter.name for parameter in model.trainable_params()]
    keys = add_embedding_noise(model, 5.0, 8)
    assert [parameter.name for parameter in model.trainable_params()] == names
    run = runner(model, keys)
    plain = decoders.logits(weights, config, IDS)
    np.testing.assert_allclose(run(False, 0), plain, atol=2e-5)
    assert np.array_equal(run(True, 0), run(True, 0))
    assert np.abs(run(True, 0) - run(True, 1)).max() > 0.01
    np.testing.assert_allclose(run(False, 1), plain, atol=2e-5)
