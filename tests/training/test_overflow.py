"""Steps whose gradients are not finite: what stays, what is halved, and that the next one counts again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import windows
from mindspore import Tensor, nn

from ms_medqa.data.dataset import BatchPlan
from ms_medqa.models.loading import assign
from ms_medqa.peft import inject_lora

pytestmark = pytest.mark.usefixtures("graph_mode")

POISON = "model.layers.0.mlp.up_proj.weight"


class Bench:
    """A float16 model with float32 adapters and a dynamic loss scale that grows after `window` finite steps."""

    def __init__(self, folder: Path, accumulation: int, scale: float, window: int = 3) -> None:
        self.model = windows.new_model(folder, "float16")
        inject_lora(self.model, 4, 16.0, ["q_proj", "v_proj"], seed=1)
        manager = nn.DynamicLossScaleUpdateCell(scale, 2, window)
        self.step = windows.new_step(self.model, accumulation, scale=manager)
        self.plan = BatchPlan(windows.make_rows(60), 4 // accumulation, accumulation, 1, seed=5)
        self.poisoned = {p.name: p for p in self.model.get_parameters()}[POISON]
        self.clean = self.poisoned.asnumpy().copy()

    def poison(self, value: float) -> None:
        spoiled = self.clean.copy()
        spoiled[3, 5] = value
        assign(self.poisoned, spoiled)

    def heal(self) -> None:
        assign(self.poisoned, self.clean)

    @property
    def scale(self) -> float:
        return self.step.scale_sense.asnumpy().item()

    def state(self) -> dict[str, np.ndarray]:
        state = windows.state_of(self.step, self.model)
        del state[POISON]
        return state

    def feed(self, number: int) -> list[float]:
        return windows.feed(self.step, self.plan, number)


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(np.array_equal(value, other[name]) for name, value in one.items())


def moved(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    names = [name for name in one if ".lora_b" in name]
    assert names
    return all(not np.array_equal(one[name], other[name]) for name in names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("half") / "model"


@pytest.fixture(scope="module")
def bench(folder: Path) -> Bench:
    return Bench(folder, 1, 1024.0)


@pytest.mark.parametrize("value", [np.inf, np.nan, -np.inf])
def test_a_step_that_is_not_finite_is_left_out(bench: Bench, value: float) -> None:
    bench.feed(0)
    before, scale = bench.state(), bench.scale
    bench.poison(value)
    loss, overflow, *_ = bench.feed(1)
    assert overflow
    assert not np.isfinite(loss)
    assert same(before, bench.state())  # weights, moments and global_step
    assert bench.scale == scale / 2
    bench.feed(2)
    assert same(before, bench.state())
    assert bench.scale == scale / 4

    bench.heal()
    loss, overflow, _, lr, norm = bench.feed(3)
    assert not overflow
    assert np.isfinite([loss, norm]).all()
    assert lr == pytest.approx(1e-3)
    after = bench.state()
    assert moved(before, after)
    assert after["global_step"] == before["global_step"] + 1


def test_a_scale_that_is_too_large_finds_its_way_down(folder: Path) -> None:
    """Gradients above 65504 overflow in float16 though the loss is fine: the scale alone is at fault."""
    bench = Bench(folder, 1, 2.0**40)
    before = bench.state()
    skipped = 0
    for number in range(60):
        scale = bench.scale
        loss, overflow, *_ = bench.feed(number % bench.plan.steps_per_epoch)
        if not overflow:
            break
        assert np.isfinite(loss)  # what is reported is the loss, not the scaled one
        assert same(before, bench.state())
        assert bench.scale == scale / 2
        skipped += 1
    assert 5 < skipped < 45
    after = bench.state()
    assert moved(before, after)
    assert after["global_step"] == 1


def test_the_scale_grows_after_the_window_and_changes_nothing_else(bench: Bench) -> None:
    bench.poison(np.inf)
    bench.feed(0)
    bench.heal()
    trained = [parameter for parameter in bench.model.get_parameters() if parameter.requires_grad]
    start, start_scale = [parameter.asnumpy().copy() for parameter in trained], bench.scale
    scales, outputs = [], []
    for _ in range(7):
        for parameter, value in zip(trained, start, strict=True):
            assign(parameter, value)
        outputs.append(bench.feed(0))
        scales.append(bench.scale / start_scale)
    grown = [n for n in range(1, 7) if scales[n] != scales[n - 1]]
    assert scales[-1] == 4
    assert all(scales[n] == 2 * scales[n - 1] for n in grown)
    assert np.diff(grown).tolist() == [3]
    # The same weights and rows seven times: loss and norm are free of the scale, also in the step in which it grows.
    assert not any(output[1] for output in outputs)
    np.testing.assert_allclose([output[0] for output in outputs], outputs[0][0], rtol=1e-5)
    np.testing.assert_allclose([output[4] for output in outputs], outputs[0][4], rtol=5e-3)


def test_one_bad_micro_batch_discards_its_whole_window_and_no_other(folder: Path) -> None:
    bench, twin = Bench(folder, 4, 1024.0, window=1000), Bench(folder, 4, 1024.0, window=1000)
    for number, bad in enumerate((0, 3)):
        before, scale = bench.state(), bench.scale
        count = Tensor(float(bench.plan.label_count(0, 0)), ms.float32)
        outputs: Any = ()
        for micro in range(4):
            bench.poison(np.inf) if micro == bad else bench.heal()
            batch = bench.plan.rows.batch(bench.plan.rows_of(0, 0, micro, 0))
            outputs = windows.call(bench.step, batch, count, micro, 4)
        bench.heal()
        assert outputs[1].asnumpy().item()
        assert same(before, bench.state())
        assert bench.scale == scale / 2
        # The next window starts from nothing: it is what a run that never saw the bad one makes of it.
        twin.step.set_sense_scale(Tensor(bench.scale, ms.float32))
        assert bench.feed(number + 1) == twin.feed(number + 1)
        assert same(bench.state(), twin.state())
        assert moved(before, bench.state())
