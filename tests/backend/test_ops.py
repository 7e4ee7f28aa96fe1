"""Operators with a gradient of their own, against NumPy and against what automatic differentiation finds."""

from __future__ import annotations

from collections.abc import Callable

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from ms_medqa.backend import ops as backend_ops

pytestmark = pytest.mark.usefixtures("graph_mode")

RNG = np.random.default_rng(3)
X = RNG.normal(size=(6, 8)).astype(np.float32)
Y = RNG.normal(size=(6, 8)).astype(np.float32)
OUTER = Tensor(RNG.normal(size=(6, 8)).astype(np.float32))
WEIGHT = RNG.normal(size=8).astype(np.float32)
EPS = 1e-5


def gradients(function: Callable[..., Tensor], *inputs: np.ndarray) -> list[np.ndarray]:
    """Of the sum of function(inputs) times `OUTER`, to each input."""

    def weighted(*arguments: Tensor) -> Tensor:
        return (ops.cast(function(*arguments), ms.float32) * OUTER).sum()

    found = ms.grad(weighted, tuple(range(len(inputs))))(*map(Tensor, inputs))
    return [value.asnumpy() for value in (found if isinstance(found, tuple) else (found,))]


def test_the_norm_and_its_gradients() -> None:
    cell = backend_ops.RMSNormPortable()

    def own(x: Tensor, weight: Tensor) -> Tensor:
        return cell(x, weight, EPS)

    def plain(x: Tensor, weight: Tensor) -> Tensor:
        return weight * x * ops.rsqrt(ops.mean(ops.square(x), -1, True) + EPS)

    expected = WEIGHT * X / np.sqrt((X.astype(np.float64) ** 2).mean(-1, keepdims=True) + EPS)
    np.testing.assert_allclose(own(Tensor(X), Tensor(WEIGHT)).asnumpy(), expected, rtol=1e-5)
    for found, wanted in zip(gradients(own, X, WEIGHT), gradients(plain, X, WEIGHT), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_the_norm_sums_in_float32_whatever_it_is_given() -> None:
    # The squares of these are beyond float16.
    x = (400 * X).astype(np.float16)
    cell = backend_ops.RMSNormPortable()
    out = cell(Tensor(x), Tensor(WEIGHT.astype(np.float16)), EPS)
    assert out.dtype == ms.float16
    expected = WEIGHT * x.astype(np.float64) / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + EPS)
    np.testing.assert_allclose(out.asnumpy(), expected, rtol=4e-3)

    def own(x: Tensor, weight: Tensor) -> Tensor:
        return cell(x, weight, EPS)

    found = gradients(own, x, WEIGHT.astype(np.float16))
    assert [value.dtype for value in found] == [np.float16, np.float16]
    assert all(np.isfinite(value).all() for value in found)


def test_the_activation_and_its_gradients() -> None:
    cell = backend_ops.SwiGLU()
    expected = X / (1 + np.exp(-X.astype(np.float64))) * Y
    np.testing.assert_allclose(cell(Tensor(X), Tensor(Y)).asnumpy(), expected, rtol=1e-5)

    def own(gate: Tensor, up: Tensor) -> Tensor:
        return cell(gate, up)

    def plain(gate: Tensor, up: Tensor) -> Tensor:
        return ops.silu(gate) * up

    for found, wanted in zip(gradients(own, X, Y), gradients(plain, X, Y), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("form", [backend_ops.HeadsByBlocks, backend_ops.HeadsByTranspose])
def test_heads_are_parted_and_joined(form: type, heads: int) -> None:
    cell = form(heads)
    parted = cell(Tensor(X))
    assert np.array_equal(parted.asnumpy(), X.reshape(6, heads, -1).transpose(1, 0, 2))
    assert np.array_equal(cell.merge(parted).asnumpy(), X)

    def doubled_in_between(x: Tensor) -> Tensor:
        return cell.merge(2.0 * cell(x))

    (found,) = gradients(doubled_in_between, X)
    assert np.array_equal(found, 2 * OUTER.asnumpy())


@pytest.mark.parametrize("form", [backend_ops.Repeat, backend_ops.RepeatByProduct])
def test_keys_are_repeated_for_a_group_and_gradients_summed(form: type) -> None:
    blocks = X.reshape(2, 3, 8)
    outer = np.arange(144, dtype=np.float32).reshape(2, 3, 24)
    cell = form(3)
    assert np.array_equal(cell(Tensor(blocks)).asnumpy(), np.repeat(blocks.reshape(2, 1, 24), 3, axis=1))

    def weighed(x: Tensor) -> Tensor:
        return (cell(x) * Tensor(outer)).sum()

    assert np.array_equal(ms.grad(weighed)(Tensor(blocks)).asnumpy(), outer.sum(1).reshape(2, 3, 8))


@pytest.mark.parametrize("form", [backend_ops.SquareSum, backend_ops.SquareSumByProduct])
@pytest.mark.parametrize("size", [1, 1000, 1_474_560])
def test_squares_are_summed(form: type, size: int) -> None:
    values = np.random.default_rng(3).normal(size=size).astype(np.float32)
    found = form()(Tensor(values))
    assert found.shape == ()
    # The product of MindSpore 2.7 adds one number after the other in float32: 4e-5 off for the largest.
    np.testing.assert_allclose(found.asnumpy(), (values.astype(np.float64) ** 2).sum(), rtol=1e-4)


def test_the_norm_of_many_gradients_is_the_same_to_the_bit_each_time() -> None:
    values = Tensor(np.random.default_rng(3).normal(size=1_474_560).astype(np.float32))
    cell = backend_ops.square_sum_cell()
    assert len({cell(values).asnumpy().item() for _ in range(200)}) == 1


def test_softmax_and_its_gradient() -> None:
    scores = X.reshape(1, 2, 3, 8)
    cell = backend_ops.softmax_cell()

    def own(x: Tensor) -> Tensor:
        return ops.reshape(cell(x), (6, 8))

    def plain(x: Tensor) -> Tensor:
        return ops.reshape(ops.softmax(x, -1), (6, 8))

    (found,), (wanted,) = gradients(own, scores), gradients(plain, scores)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
