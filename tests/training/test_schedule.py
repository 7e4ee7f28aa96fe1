"""The learning rate against its formula."""

from __future__ import annotations

import math

import mindspore as ms
import pytest
from mindspore import Tensor

from ms_medqa.training.schedule import Schedule

pytestmark = pytest.mark.usefixtures("graph_mode")


def rates(schedule: Schedule, steps: int) -> list[float]:
    return [schedule(Tensor(step, ms.int32)).asnumpy().item() for step in range(steps)]


@pytest.mark.parametrize(
    ("peak", "minimum", "warmup", "total"), [(2e-4, 1e-6, 3, 20), (1e-3, 1e-4, 0, 7), (1e-3, 0.0, 5, 5)]
)
def test_linear_rise_then_half_a_cosine(peak: float, minimum: float, warmup: int, total: int) -> None:
    expected = []
    for done in range(1, total + 1):
        if done <= warmup:
            expected.append(peak * done / warmup)
        else:
            share = (done - warmup) / (total - warmup)
            expected.append(minimum + (peak - minimum) * (1 + math.cos(math.pi * share)) / 2)
    found = rates(Schedule("cosine", peak, minimum, warmup, total), total + 3)
    assert found[:total] == pytest.approx(expected, rel=1e-5, abs=1e-9)
    if warmup < total:
        assert found[total - 1 :] == pytest.approx([minimum] * 4, abs=1e-9)
    assert max(found) == pytest.approx(peak if warmup else expected[0], rel=1e-5)
    assert min(found) > 0 or minimum == 0


@pytest.mark.parametrize("warmup", [0, 4])
def test_linear_rise_then_linear_fall(warmup: int) -> None:
    found = rates(Schedule("linear", 1e-3, 1e-4, warmup, 10), 12)
    rise = [1e-3 * done / warmup for done in range(1, warmup + 1)]
    fall = [1e-3 - 9e-4 * done / (10 - warmup) for done in range(1, 11 - warmup)]
    assert found == pytest.approx([*rise, *fall, 1e-4, 1e-4], rel=1e-5)


def test_linear_rise_then_the_same_rate() -> None:
    assert rates(Schedule("constant", 1e-3, 1e-4, 2, 6), 8) == pytest.approx([5e-4] + [1e-3] * 7, rel=1e-6)


def test_a_minimum_above_the_peak_does_not_raise_the_rate() -> None:
    found = rates(Schedule("cosine", 1e-6, 1e-3, 0, 5), 5)
    assert found == pytest.approx([1e-6] * 5, rel=1e-4)
