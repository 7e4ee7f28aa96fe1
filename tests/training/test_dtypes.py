"""What is computed in which type: the table of docs/training.md, looked up in a float16 run."""

from __future__ import annotations

from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
import trainable
from mindspore import Tensor

from ms_medqa.config import load_config
from ms_medqa.data.dataset import model_inputs
from ms_medqa.peft import trainable_parameters
from ms_medqa.training.build import Run, build_run, build_step

pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A float16 run with adapters, and an embedding that is trained whole."""
    lora = {"modules_to_save": ["embed_tokens"]}
    config = trainable.write_config(tmp_path_factory.mktemp("half") / "out", lora=lora, runtime={"dtype": "float16"})
    return build_run(load_config(config, []))


def test_frozen_weights_are_float16_and_trained_ones_float32(half: Run) -> None:
    trained = {parameter.name for parameter in trainable_parameters(half.model)}
    assert any("lora_a" in name for name in trained)
    assert any("embed_tokens" in name for name in trained)
    keys = {value.name for draws in half.draws for value in draws.values}
    for parameter in half.model.get_parameters():
        kept_wide = parameter.name in trained | keys
        assert parameter.dtype == (ms.float32 if kept_wide else ms.float16), parameter.name


def test_activations_are_float16_and_logits_float32(half: Run) -> None:
    batch = half.data.train.batch([0])
    inputs = [Tensor(array) for array in model_inputs(batch)[:3]]
    hidden = half.model.hidden(*inputs)
    assert hidden.dtype == ms.float16
    assert half.model.head(hidden).dtype == ms.float32


def test_gradients_are_summed_and_moments_kept_in_float32(half: Run) -> None:
    step = build_step(half)
    assert {parameter.dtype for parameter in (*step.totals, *step.optimizer.m, *step.optimizer.v)} == {ms.float32}
    assert step.scale_sense.dtype == ms.float32
    plan = half.data.train_plan
    outputs: tuple[Tensor, ...] = ()
    for micro in range(plan.accumulation):
        batch = plan.rows.batch(plan.rows_of(0, 0, micro, 0))
        inputs = (*model_inputs(batch, plan.most_labels(1)), *plan.step_scalars(0, 0, micro))
        outputs = step(*map(Tensor, inputs))
    loss, overflow, scale, rate, norm = outputs
    assert {value.dtype for value in (loss, scale, rate, norm)} == {ms.float32}
    assert not overflow.asnumpy()
    # A float16 sum of squares would have lost most of this norm's digits.
    assert np.float32(np.float16(norm.asnumpy())) != norm.asnumpy()


def test_training_all_weights_is_float32_whatever_is_asked_for(tmp_path: Path) -> None:
    config = trainable.write_config(tmp_path / "out", lora=None, runtime={"dtype": "float16"})
    run = build_run(load_config(config, []))
    assert {parameter.dtype for parameter in run.model.get_parameters()} == {ms.float32}
