"""The loss against NumPy: which tokens count, what is divided by, and its gradient."""

from __future__ import annotations

from typing import Any

import decoders
import mindspore as ms
import numpy as np
import pytest
import windows
from mindspore import Tensor

from ms_medqa.data.dataset import Rows, model_inputs
from ms_medqa.models import load_model
from ms_medqa.training import loss as loss_module
from ms_medqa.training.loss import TokenLoss, TokenScores

pytestmark = pytest.mark.usefixtures("graph_mode")

Setup = tuple[Any, Rows, decoders.Weights]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Setup:
    folder = tmp_path_factory.mktemp("model")
    weights = decoders.write(folder, windows.CONFIG)
    return TokenLoss(load_model(folder)), windows.make_rows(20), weights


def loss_of(parts: Setup, indices: list[int], count: float, labels: np.ndarray | None = None) -> float:
    cell, rows, _ = parts
    batch = rows.batch(indices)
    if labels is not None:
        batch["labels"] = labels.astype(np.int32)
    return cell(*map(Tensor, model_inputs(batch)), Tensor(count, ms.float32)).asnumpy().item()


def test_sum_over_trained_tokens_divided_by_the_count_that_is_given(parts: Setup) -> None:
    _, rows, weights = parts
    indices = [0, 3, 5, 1]
    sums, counts = zip(*(windows.record_losses(rows, weights, windows.CONFIG, i) for i in indices), strict=True)
    assert max(len(rows.records_of(i)) for i in indices) > 1  # packed
    assert len(set(counts)) > 1
    assert counts == tuple(rows.label_counts[indices])
    assert loss_of(parts, indices, sum(counts)) == pytest.approx(sum(sums) / sum(counts), rel=1e-5)
    assert loss_of(parts, indices, 1000.0) == pytest.approx(sum(sums) / 1000, rel=1e-5)


def test_only_labels_meet_the_vocabulary(parts: Setup) -> None:
    """A list without fillers gives the same loss, and so does one with more of them than labels."""
    cell, rows, weights = parts
    batch = rows.batch([0, 3, 5, 1])
    labels = int(rows.label_counts[[0, 3, 5, 1]].sum())
    expected = sum(windows.record_losses(rows, weights, windows.CONFIG, i)[0] for i in (0, 3, 5, 1)) / labels
    for length in (labels, 3 * labels):
        inputs = map(Tensor, model_inputs(batch, length))
        assert cell(*inputs, Tensor(float(labels), ms.float32)).asnumpy().item() == pytest.approx(expected, rel=1e-5)


def test_empty_rows_and_rows_without_labels_add_nothing(parts: Setup) -> None:
    _, rows, _ = parts
    full = loss_of(parts, [0, 3, -1, -1], 10.0)
    labels = rows.batch([0, 3, 5, 1])["labels"]
    labels[2:] = -100
    assert loss_of(parts, [0, 3, 5, 1], 10.0, labels) == pytest.approx(full, rel=1e-5)
    assert loss_of(parts, [-1] * 4, 1.0) == pytest.approx(0.0, abs=1e-3)


def test_any_label_counts_even_token_zero(parts: Setup) -> None:
    _, rows, weights = parts
    batch = rows.batch([0, -1, -1, -1])
    length = int((batch["segment_ids"][0] == 1).sum())
    labels = np.full_like(batch["labels"], -100)
    labels[0, length - 1] = 0
    logits = decoders.logits(weights, windows.CONFIG, batch["input_ids"][0, :length].tolist())[-1]
    expected = np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits[0]
    assert loss_of(parts, [0, -1, -1, -1], 1.0, labels) == pytest.approx(expected, rel=1e-4)


def test_a_smoothed_label_shares_with_all_tokens(parts: Setup) -> None:
    cell, rows, weights = parts
    smoothed = TokenLoss(cell.model, smoothing=0.1)
    indices = [0, 3, -1, -1]
    expected = 0.0
    for number in (int(number) for index in indices[:2] for number in rows.records_of(index)):
        tokens, mask = rows.records.record(number)
        for place in np.flatnonzero(mask[1:]):
            logits = decoders.logits(weights, windows.CONFIG, tokens.tolist())[place]
            losses = np.log(np.exp(logits - logits.max()).sum()) + logits.max() - logits
            target = np.full(decoders.VOCAB, 0.1 / decoders.VOCAB)
            target[tokens[place + 1]] += 0.9
            expected += float(target @ losses)
    for length in (None, 60):  # with fillers
        inputs = map(Tensor, model_inputs(rows.batch(indices), length))
        assert smoothed(*inputs, Tensor(7.0, ms.float32)).asnumpy().item() == pytest.approx(expected / 7, rel=1e-4)


def test_gradient_is_that_of_the_formula(parts: Setup) -> None:
    cell, rows, weights = parts
    indices = [0, 3, 5, -1]
    parameters = list(cell.model.trainable_params())
    gradient_of = ms.value_and_grad(cell, None, parameters)
    batch = rows.batch(indices)
    _, gradients = gradient_of(*map(Tensor, model_inputs(batch)), Tensor(7.0, ms.float32))

    def loss(changed: decoders.Weights) -> float:
        return sum(windows.record_losses(rows, changed, windows.CONFIG, i)[0] for i in indices[:3]) / 7

    rng = np.random.default_rng(0)
    seen = 0
    for parameter, gradient in zip(parameters, gradients, strict=True):
        values = gradient.asnumpy()
        largest = np.unravel_index(np.abs(values).argmax(), values.shape)
        anywhere = tuple(int(rng.integers(width)) for width in values.shape)
        for place in (largest, anywhere):
            step = np.zeros(values.shape)
            step[place] = 1e-4
            base = weights[parameter.name].astype(np.float64)
            slope = (
                loss(weights | {parameter.name: base + step}) - loss(weights | {parameter.name: base - step})
            ) / 2e-4
            assert values[place] == pytest.approx(slope, rel=2e-3, abs=2e-6), (parameter.name, place)
            seen += abs(slope) > 1e-3
    assert seen > 12


def test_validation_takes_blocks_of_logits_and_counts_each_label_once(
    parts: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell, rows, weights = parts
    indices = [0, 3, 5, 1]
    expected = sum(windows.record_losses(rows, weights, windows.CONFIG, index)[0] for index in indices)
    inputs = model_inputs(rows.batch(indices), int(rows.label_counts[indices].sum()) + 5)
    monkeypatch.setattr(loss_module, "_BLOCK_BYTES", 0)
    found = []
    # One block, several with a rest, and blocks of fillers alone.
    for block in (1000, 7, 2):
        monkeypatch.setattr(loss_module, "_BLOCK_ROWS", block)
        scores = TokenScores(cell.model)
        scores.set_train(False)
        found.append([score.asnumpy().item() for score in scores(*map(Tensor, inputs))])
    assert all(total == pytest.approx(expected, rel=1e-5) for total, _ in found)
    assert len({right for _, right in found}) == 1
