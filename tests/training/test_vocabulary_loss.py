"""The loss in blocks of rows: the same as in one piece, and as NumPy has it."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from ms_medqa.training import loss

pytestmark = pytest.mark.usefixtures("graph_mode")

ROWS, WIDTH, VOCABULARY, FACTOR = 11, 6, 17, 0.25
RNG = np.random.default_rng(5)
HIDDEN = RNG.normal(size=(ROWS, WIDTH))
WEIGHT = RNG.normal(size=(VOCABULARY, WIDTH))
LABELS = RNG.integers(0, VOCABULARY, ROWS)


def expected(above: float) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss in float64, and its gradients times `above`."""
    logits = HIDDEN @ WEIGHT.T
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    own = np.arange(ROWS), LABELS
    total = -np.log(shares[own]).sum() * FACTOR
    shares[own] -= 1
    shares *= FACTOR * above
    return total, shares @ WEIGHT, shares.T @ HIDDEN


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("block", [4, 11, 100], ids=["three blocks", "one block", "a block with room"])
def test_loss_and_gradients(monkeypatch: pytest.MonkeyPatch, block: int, trained: bool) -> None:
    monkeypatch.setattr(loss, "_BLOCK_ROWS", block)
    monkeypatch.setattr(loss, "_BLOCK_BYTES", 0)
    cell = loss.VocabularyLoss(trained)

    def scaled(hidden: Tensor, weight: Tensor, labels: Tensor, factor: Tensor) -> Tensor:
        return 3.0 * cell(hidden, weight, labels, factor)[0]

    inputs = [Tensor(HIDDEN.astype(np.float32)), Tensor(WEIGHT.astype(np.float32))]
    inputs += [Tensor(LABELS.astype(np.int32)), Tensor(FACTOR, ms.float32)]
    value, (to_hidden, to_weight) = ms.value_and_grad(scaled, (0, 1))(*inputs)
    total, hidden_gradient, weight_gradient = expected(3.0)
    assert value.asnumpy().item() == pytest.approx(3 * total, rel=1e-5)
    np.testing.assert_allclose(to_hidden.asnumpy(), hidden_gradient, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(to_weight.asnumpy(), weight_gradient if trained else 0 * WEIGHT, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_a_loss_that_is_no_number_shows(trained: bool) -> None:
    """It is what a step is skipped for."""
    cell = loss.VocabularyLoss(trained)
    broken = HIDDEN.astype(np.float32)
    broken[3, 2] = np.nan
    found = cell(Tensor(broken), Tensor(WEIGHT.astype(np.float32)), Tensor(LABELS.astype(np.int32)), Tensor(FACTOR))
    assert np.isnan(found[0].asnumpy())
    assert np.isnan(found[1].asnumpy()[3]).all()
    assert np.isfinite(np.delete(found[1].asnumpy(), 3, 0)).all()


def test_a_factor_keeps_small_gradients_in_float16() -> None:
    """Unscaled, every gradient of this sum is below the smallest number that float16 has."""
    cell = loss.VocabularyLoss(trained=False)
    scale, count = 2.0**15, 1e9

    def total(hidden: Tensor, weight: Tensor, labels: Tensor, factor: Tensor) -> Tensor:
        return cell(hidden, weight, labels, factor)[0]

    inputs = [Tensor(HIDDEN.astype(np.float16)), Tensor(WEIGHT.astype(np.float16)), Tensor(LABELS.astype(np.int32))]
    found = ms.grad(total)(*inputs, Tensor(scale / count, ms.float32)).asnumpy()
    assert found.dtype == np.float16
    wanted = expected(1.0)[1] / FACTOR * scale / count
    np.testing.assert_allclose(found.astype(np.float64), wanted, atol=0.02 * np.abs(wanted).max())
