"""The compiled step against AdamW written out in NumPy, and that a split of a batch changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import decoders
import mindspore as ms
import numpy as np
import pytest
import windows
from mindspore import Tensor

from ms_medqa.data.dataset import BatchPlan, model_inputs
from ms_medqa.peft import inject_lora, trainable_parameters
from ms_medqa.training.loss import TokenLoss
from ms_medqa.training.optimizer import AdamW
from ms_medqa.training.schedule import Schedule
from ms_medqa.training.step import TrainStep

pytestmark = pytest.mark.usefixtures("graph_mode")


class NumpyAdamW:
    """Loshchilov & Hutter 2019, algorithm 2, after clipping by the global norm; float64."""

    def __init__(self, weights: decoders.Weights, decay: float, max_norm: float) -> None:
        self.weights = {name: value.astype(np.float64) for name, value in weights.items()}
        self.m = {name: np.zeros(value.shape) for name, value in weights.items()}
        self.v = {name: np.zeros(value.shape) for name, value in weights.items()}
        self.decay, self.max_norm, self.t = decay, max_norm, 0

    def update(self, gradients: decoders.Weights, lr: float) -> float:
        norm = np.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in gradients.values()))
        clip = min(1.0, self.max_norm / norm)
        self.t += 1
        for name, gradient in gradients.items():
            g = gradient.astype(np.float64) * clip
            self.m[name] = 0.9 * self.m[name] + 0.1 * g
            self.v[name] = 0.95 * self.v[name] + 0.05 * g * g
            m, v = self.m[name] / (1 - 0.9**self.t), self.v[name] / (1 - 0.95**self.t)
            decayed = not (name.endswith(".bias") or "norm" in name)
            self.weights[name] = (1 - lr * self.decay * decayed) * self.weights[name] - lr * m / (np.sqrt(v) + 1e-8)
        return float(norm)


def test_steps_follow_adamw_with_clipping_decay_and_schedule(tmp_path: Path) -> None:
    weights = decoders.write(tmp_path, windows.CONFIG)
    model = windows.new_model(tmp_path)
    names = {parameter.name for parameter in model.get_parameters()}
    loss = TokenLoss(model)
    parameters = trainable_parameters(model)
    gradient_of = ms.value_and_grad(TokenLoss(model), None, parameters)
    rows = windows.make_rows(40)
    plan = BatchPlan(rows, 4, 1, 1, seed=3)
    lr, decay, max_norm, total, warmup = 3e-3, 0.5, 3.25, 6, 2
    optimizer = AdamW(parameters, 0.9, 0.95, 1e-8, decay)
    step = TrainStep(loss, optimizer, Schedule("cosine", lr, 1e-5, warmup, total), 1, max_norm)
    step.set_train(True)
    assert {parameter.name for parameter in parameters} == set(weights) == names  # wrapping renames nothing
    reference = NumpyAdamW(weights, decay, max_norm)
    clipped = []
    for number in range(total):
        batch = rows.batch(plan.rows_of(0, number, 0, 0))
        count = Tensor(float(plan.label_count(0, number)), ms.float32)
        expected_loss, gradients = gradient_of(*map(Tensor, model_inputs(batch)), count)
        gradients = {p.name: g.asnumpy().copy() for p, g in zip(parameters, gradients, strict=True)}
        done = number + 1
        share = (done - warmup) / (total - warmup)
        rate = lr * done / warmup if done <= warmup else 1e-5 + (lr - 1e-5) * (1 + np.cos(np.pi * share)) / 2
        norm = reference.update(gradients, rate)
        clipped.append(norm > max_norm)
        found = windows.feed(step, plan, number)
        assert found == pytest.approx([expected_loss.asnumpy().item(), 0, 1.0, rate, norm], rel=1e-4)
        assert optimizer.global_step.asnumpy().item() == done
        for parameter in parameters:
            np.testing.assert_allclose(
                parameter.asnumpy(), reference.weights[parameter.name], atol=2e-6, err_msg=parameter.name
            )
    assert set(clipped) == {True, False}
    state = optimizer.state()
    for name in "mv":
        for parameter in parameters:
            expected = getattr(reference, name)[parameter.name]
            np.testing.assert_allclose(state[f"adam_{name}.{parameter.name}"], expected, rtol=2e-3, atol=1e-7)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Any, Any, list[list[float]]]]:
    """Eight global batches of 8 rows, whole and in 4 micro-batches of 2: {accumulation: (model, step, outputs)}."""
    rows = windows.make_rows(36)
    assert len(rows) % 8 in (1, 2, 3, 4)  # the last batch has whole micro-batches of empty rows
    result = {}
    for accumulation in (1, 4):
        model = windows.new_model(tmp_path_factory.getbasetemp() / "splits")
        inject_lora(model, 4, 16.0, ["q_proj", "v_proj", "down_proj"], seed=1)
        start = windows.state_of(windows.new_step(model), model)
        step = windows.new_step(model, accumulation)
        plan = BatchPlan(rows, 8 // accumulation, accumulation, 1, seed=5)
        outputs = [
            windows.feed(step, plan, number, epoch) for epoch in range(2) for number in range(plan.steps_per_epoch)
        ]
        assert len(outputs) >= 6
        counts = {plan.rows.label_counts[plan.rows_of(0, 0, micro, 0)].sum() for micro in range(accumulation)}
        assert len(counts) == accumulation  # a mean of means would be another number
        result[accumulation] = (model, step, outputs)
        result[-accumulation] = (model, step, [start])  # type: ignore[list-item]
    return result


def test_accumulated_micro_batches_equal_one_large_batch(splits: dict[int, Any]) -> None:
    (whole, step, outputs), (parts, split_step, split_outputs) = splits[1], splits[4]
    np.testing.assert_allclose(split_outputs, outputs, rtol=2e-5)
    one, other = windows.state_of(step, whole), windows.state_of(split_step, parts)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, atol=1e-6, err_msg=name)
    assert one["global_step"] == len(outputs)


def test_the_last_batch_counts_only_rows_that_are_there(splits: dict[int, Any]) -> None:
    for accumulation in (1, 4):
        outputs = splits[accumulation][2]
        last = outputs[len(outputs) // 2 - 1]
        assert np.isfinite(last).all()
        assert last[1] == 0
        assert last[0] == pytest.approx(outputs[0][0], rel=0.5)  # a mean over its own tokens, not over eight rows


def test_frozen_weights_stay_and_the_others_move(splits: dict[int, Any]) -> None:
    for accumulation in (1, 4):
        model, step, _ = splits[accumulation]
        start = splits[-accumulation][2][0]
        end = windows.state_of(step, model)
        trained = {parameter.name for parameter in trainable_parameters(model)}
        assert len(trained) == 6
        for parameter in model.get_parameters():
            same = np.array_equal(end[parameter.name], start[parameter.name])
            assert same is (parameter.name not in trained), parameter.name


def test_the_optimizer_knows_no_frozen_weight(splits: dict[int, Any]) -> None:
    model, step, _ = splits[4]
    names = {parameter.name for parameter in trainable_parameters(model)}
    moments = step.optimizer.state()
    assert set(moments) == {"global_step"} | {f"adam_{which}.{name}" for which in "mv" for name in names}
    assert set(step.buckets.unpack([total.asnumpy() for total in step.totals])) == names
    assert not any(total.asnumpy().any() for total in step.totals)  # cleared at the end of a window


def test_rates_and_decays_of_their_own(tmp_path: Path) -> None:
    """LoRA+ and `no_decay`, told by what they change of one update."""
    rows = windows.make_rows(8)
    plan = BatchPlan(rows, 4, 1, 1, seed=3)
    start: dict[str, np.ndarray] = {}
    moved = {}
    for name, options in {
        "plain": {},
        "plus": {"lora_plus_ratio": 16.0},
        "decayed": {"weight_decay": 0.5},
        "spared": {"weight_decay": 0.5, "no_decay": ["v_proj.lora_a"]},
    }.items():
        model = windows.new_model(tmp_path / "model")
        inject_lora(model, 4, 16.0, ["q_proj", "v_proj"], seed=1)
        parameters = trainable_parameters(model)
        start = {parameter.name: parameter.asnumpy().copy() for parameter in parameters}
        optimizer = AdamW(parameters, **{"weight_decay": 0.0} | options)
        step = TrainStep(TokenLoss(model), optimizer, Schedule("constant", 1e-3, 0.0, 0, 10))
        step.set_train(True)
        windows.feed(step, plan, 0)
        moved[name] = {parameter.name: parameter.asnumpy() - start[parameter.name] for parameter in parameters}
    assert {name.rsplit(".", 1)[-1] for name in start} == {"lora_a", "lora_b"}
    for name, plain in moved["plain"].items():
        ratio = 16.0 if name.endswith("lora_b") else 1.0
        np.testing.assert_allclose(moved["plus"][name], ratio * plain, rtol=1e-3, atol=1e-8)
        np.testing.assert_allclose(moved["decayed"][name], plain - 1e-3 * 0.5 * start[name], atol=1e-7)
        same = "plain" if "v_proj.lora_a" in name else "decayed"
        np.testing.assert_array_equal(moved["spared"][name], moved[same][name])
    assert any(np.abs(change).max() > 1e-4 for change in moved["plain"].values())
