"""Thirty LoRA steps against transformers, PEFT and torch.optim.AdamW on the same batches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import decoders
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from ms_medqa.data.dataset import BatchPlan, Rows, build_rows, model_inputs
from ms_medqa.data.records import from_rows
from ms_medqa.models import load_model
from ms_medqa.peft import inject_lora, lora_layers, save_adapter, trainable_parameters
from ms_medqa.training.loss import TokenLoss
from ms_medqa.training.optimizer import AdamW
from ms_medqa.training.schedule import Schedule
from ms_medqa.training.step import TrainStep

torch = pytest.importorskip("torch", reason="parity with PyTorch needs PyTorch")
transformers = pytest.importorskip("transformers", reason="parity with transformers needs transformers")
peft = pytest.importorskip("peft", reason="parity with PEFT needs PEFT")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("graph_mode")]

STEPS, WARMUP, PEAK, LOWEST, DECAY, MAX_NORM = 30, 4, 2e-2, 1e-4, 0.1, 1.1


def make_rows() -> Rows:
    """Two to three records of unequal length share a row; one row in four is too short for a second one."""
    rng = np.random.default_rng(4)
    rows = []
    for number in range(50):
        length = int(rng.integers(5, 18))
        mask = (np.arange(length) >= rng.integers(1, length - 1)).astype(np.uint8)
        # Few tokens, so that there is something to learn.
        rows.append((f"r{number}", rng.integers(1, 30, length), mask))
    return build_rows(from_rows(rows), 24, packing=True)


def rate(done: int) -> float:
    if done <= WARMUP:
        return PEAK * done / WARMUP
    share = (done - WARMUP) / (STEPS - WARMUP)
    return LOWEST + (PEAK - LOWEST) * (1 + math.cos(math.pi * share)) / 2


def torch_loss(model: Any, rows: Rows, indices: np.ndarray) -> Any:
    """Summed loss of some rows, one record a row: nothing of packing is left."""
    total = torch.zeros(())
    for index in indices[indices >= 0]:
        for number in rows.records_of(int(index)):
            tokens, mask = rows.records.record(int(number))
            ids = torch.tensor(tokens[None]).long()
            losses = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
            total = total + (losses * torch.tensor(mask[1:]).float()).sum()
    return total


# Changes of the base's config, options of the adapter.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "q, k and v": ({}, {"alpha": 16.0, "target_modules": ["q_proj", "k_proj", "v_proj"]}),
    "all linear": ({}, {"alpha": 2.0, "target_modules": "all-linear", "use_rslora": True}),
    "tied embedding": (
        {"tie_word_embeddings": True},
        {"alpha": 16.0, "target_modules": ["v_proj", "down_proj"], "modules_to_save": ["embed_tokens"]},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_thirty_steps(tmp_path: Path, case: str) -> None:
    base, start, end = tmp_path / "base", tmp_path / "start", tmp_path / "end"
    changes, options = CASES[case]
    decoders.write(base, decoders.config_of(**changes))
    model = load_model(base)
    inject_lora(model, 8, seed=9, **options)
    save_adapter(model, start, str(base))
    optimizer = AdamW(trainable_parameters(model), weight_decay=DECAY)
    step = TrainStep(TokenLoss(model), optimizer, Schedule("cosine", PEAK, LOWEST, WARMUP, STEPS), 2, MAX_NORM)
    step.set_train(True)

    reference = transformers.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    reference = peft.PeftModel.from_pretrained(reference, start, is_trainable=True)
    trained = [parameter for parameter in reference.parameters() if parameter.requires_grad]
    torch_optimizer = torch.optim.AdamW(trained, lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=DECAY)

    rows = make_rows()
    plan = BatchPlan(rows, 2, 2, 1, seed=0)
    losses, clipped = [], 0
    for number in range(STEPS):
        epoch, at = divmod(number, plan.steps_per_epoch)
        count = plan.label_count(epoch, at)
        outputs: tuple[Tensor, ...] = ()
        expected = torch.zeros(())
        for micro in range(2):
            indices = plan.rows_of(epoch, at, micro, 0)
            batch = rows.batch(indices)
            last = Tensor(micro == 1)
            outputs = step(*map(Tensor, model_inputs(batch)), Tensor(float(count), ms.float32), last)
            expected = expected + torch_loss(reference, rows, indices) / count
        torch_optimizer.zero_grad()
        expected.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(trained, MAX_NORM))
        torch_optimizer.param_groups[0]["lr"] = rate(number + 1)
        torch_optimizer.step()
        loss, overflow, _, lr, found_norm = (value.asnumpy().item() for value in outputs)
        assert not overflow
        assert loss == pytest.approx(expected.item(), rel=1e-3), number
        assert lr == pytest.approx(rate(number + 1), rel=1e-4)
        assert found_norm == pytest.approx(norm, rel=1e-2), number
        losses.append(loss)
        clipped += norm > MAX_NORM
    assert 0 < clipped < STEPS
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])

    save_adapter(model, end, str(base))
    theirs = {name.replace(".default.", "."): value for name, value in reference.named_parameters()}
    for path, layer in lora_layers(model):
        for half, parameter in (("A", layer.lora_a), ("B", layer.lora_b)):
            value = theirs[f"base_model.model.{path}.lora_{half}.weight"].detach().numpy()
            np.testing.assert_allclose(parameter.asnumpy(), value, atol=2e-3, err_msg=path)
