"""Products of few rows by the compiled kernel, against NumPy in float64 and against MindSpore's own."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Tensor, nn

from ms_medqa.backend import few_rows, few_rows_library
from ms_medqa.backend import ops as backend_ops

pytestmark = pytest.mark.usefixtures("graph_mode")
compiled = pytest.mark.skipif(few_rows.library() is None, reason="the installation found no C++ compiler")

RNG = np.random.default_rng(5)


class Product(nn.Cell):
    """`ForwardLinear` in a graph of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = backend_ops.ForwardLinear()

    def construct(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.linear(x, weight, bias)


def product(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None = None) -> np.ndarray:
    return Product()(Tensor(x), Tensor(weight), None if bias is None else Tensor(bias)).asnumpy()


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@compiled
@pytest.mark.parametrize("rows", [*range(1, 18), 31, few_rows.MOST_ROWS])
@pytest.mark.parametrize(
    ("width", "outputs"),
    [
        pytest.param(64, 128, id="whole vectors"),
        pytest.param(77, 13, id="no whole number of vectors"),
        pytest.param(5, 3, id="less than a vector"),
        pytest.param(1, 1, id="one number"),
        pytest.param(641, 1003, id="pieces for several threads"),
        pytest.param(40000, 7, id="a row of more than a piece"),
    ],
)
def test_the_kernel_gives_the_product(rows: int, width: int, outputs: int) -> None:
    x, weight = numbers(rows, width), numbers(outputs, width)
    wanted = x.astype(np.float64) @ weight.T.astype(np.float64)
    found = few_rows.kernel()(Tensor(x), Tensor(weight)).asnumpy()
    # A sum of so many numbers of size 1 has an error of about the root of their number times float32's.
    np.testing.assert_allclose(found, wanted, atol=1e-5 * width**0.5)


@compiled
def test_a_row_has_the_same_product_each_time() -> None:
    x, weight = Tensor(numbers(1, 896)), Tensor(numbers(4864, 896))
    first = few_rows.kernel()(x, weight).asnumpy()
    for _ in range(20):
        np.testing.assert_array_equal(few_rows.kernel()(x, weight).asnumpy(), first)


@compiled
def test_numbers_that_are_not_finite_stay_so() -> None:
    x, weight = numbers(2, 80), numbers(6, 80)
    x[0, 79], weight[3, 0] = np.inf, np.nan
    found = few_rows.kernel()(Tensor(x), Tensor(weight)).asnumpy()
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(x @ weight.T))


@pytest.mark.parametrize("rows", [1, 3, few_rows.MOST_ROWS, few_rows.MOST_ROWS + 1])
@pytest.mark.parametrize("biased", [False, True])
def test_it_is_a_linear_layer_with_and_without_the_kernel(
    rows: int, biased: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias = numbers(rows, 48), numbers(20, 48), numbers(20) if biased else None
    wanted = x @ weight.T + (0 if bias is None else bias)
    np.testing.assert_allclose(product(x, weight, bias), wanted, atol=2e-5)
    monkeypatch.setattr(few_rows, "kernel", lambda: None)
    np.testing.assert_allclose(product(x, weight, bias), wanted, atol=2e-5)


def test_other_types_go_another_way() -> None:
    x, weight = numbers(2, 48), numbers(20, 48)
    found = product(x.astype(np.float16), weight.astype(np.float16))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, x @ weight.T, atol=0.1)


def test_without_a_compiled_kernel_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_rows, "library", lambda: None)
    few_rows.kernel.cache_clear()
    try:
        assert few_rows.kernel() is None
    finally:
        few_rows.kernel.cache_clear()


@compiled
def test_a_library_of_another_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(few_rows_library, "INTERFACE", few_rows_library.INTERFACE + 1)
    few_rows_library.library.cache_clear()
    try:
        assert few_rows_library.library() is None
    finally:
        few_rows_library.library.cache_clear()


@compiled
def test_kernels_that_mindspore_does_not_take_are_told_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise TypeError("not in the list")

    monkeypatch.setattr(few_rows.ops, "Custom", refused)
    few_rows.kernel.cache_clear()
    try:
        few_rows.step_kernel.cache_clear()
        assert few_rows.kernel() is None
        assert few_rows.step_kernel() is None
        assert capsys.readouterr().err.count("not in the list") == 1
    finally:
        few_rows.kernel.cache_clear()
        few_rows.step_kernel.cache_clear()
