"""Rows and steps for the training tests: small enough that the formulas can be written out beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import decoders
import mindspore as ms
import numpy as np
from mindspore import Tensor

from ms_medqa.data.dataset import BatchPlan, Rows, build_rows, model_inputs
from ms_medqa.data.records import TokenRecords, from_rows
from ms_medqa.models import load_model
from ms_medqa.peft import trainable_parameters
from ms_medqa.training.loss import TokenLoss
from ms_medqa.training.optimizer import AdamW
from ms_medqa.training.schedule import Schedule
from ms_medqa.training.step import TrainStep

LENGTH = 16
CONFIG = decoders.config_of(num_hidden_layers=1)


def make_records(count: int, seed: int = 0) -> TokenRecords:
    """Records of 4 to 16 tokens, of which the last 1 to 11 are trained."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        length = int(rng.integers(4, LENGTH + 1))
        mask = (np.arange(length) >= rng.integers(max(1, length - 11), length)).astype(np.uint8)
        rows.append((f"r{number}", rng.integers(1, decoders.VOCAB, length), mask))
    return from_rows(rows)


def make_rows(count: int, seed: int = 0) -> Rows:
    return build_rows(make_records(count, seed), LENGTH, packing=True)


def new_model(folder: Path, dtype: str = "float32", **changes: Any) -> Any:
    """A fresh model; every model made with the same `changes` has the same weights."""
    if not folder.exists():
        decoders.write(folder, CONFIG | changes)
    return load_model(folder, dtype=dtype)


def new_step(
    model: Any, accumulation: int = 1, *, max_grad_norm: float = 1.0, scale: Any = None, recomputed: int = 0
) -> TrainStep:
    """A step with a constant learning rate of 1e-3."""
    step = TrainStep(
        TokenLoss(model),
        AdamW(trainable_parameters(model), weight_decay=0.1),
        Schedule("cosine", 1e-3, 1e-3, 0, 1000),
        accumulation,
        max_grad_norm,
        scale,
        recomputed,
    )
    step.set_train(True)
    return step


def feed(step: TrainStep, plan: BatchPlan, number: int, epoch: int = 0) -> list[float]:
    """One optimizer step: [loss, overflow, loss scale, learning rate, gradient norm]."""
    count = Tensor(float(plan.label_count(epoch, number)), ms.float32)
    outputs: tuple[Tensor, ...] = ()
    for micro in range(plan.accumulation):
        outputs = call(step, plan.rows.batch(plan.rows_of(epoch, number, micro, 0)), count, micro, plan.accumulation)
    return [output.asnumpy().item() for output in outputs]


def call(
    step: TrainStep, batch: dict[str, np.ndarray], count: Tensor, micro: int, accumulation: int
) -> tuple[Tensor, ...]:
    return step(*map(Tensor, model_inputs(batch)), count, Tensor(micro == accumulation - 1))


def state_of(step: TrainStep, model: Any) -> dict[str, np.ndarray]:
    """Weights, trained or not, and the optimizer's numbers."""
    parameters = [*model.get_parameters(), *step.optimizer.m, *step.optimizer.v, step.optimizer.global_step]
    return {parameter.name: parameter.asnumpy().copy() for parameter in parameters}


def record_losses(rows: Rows, weights: decoders.Weights, config: dict[str, Any], index: int) -> tuple[float, int]:
    """Sum and number of the token losses of one row, record by record, by the NumPy decoder."""
    total, count = 0.0, 0
    for number in rows.records_of(index):
        tokens, mask = rows.records.record(int(number))
        losses = decoders.token_losses(weights, config, tokens.tolist())[mask[1:] == 1]
        total, count = total + float(losses.sum()), count + len(losses)
    return total, count
