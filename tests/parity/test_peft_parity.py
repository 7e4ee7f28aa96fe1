"""Adapters both ways: PEFT loads ours, we load PEFT's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import safetensors.numpy
from mindspore import Tensor

from ms_medqa.models import load_model
from ms_medqa.models.loading import assign
from ms_medqa.peft import inject_lora, load_adapter, lora_layers, save_adapter

torch = pytest.importorskip("torch", reason="parity with PEFT needs PyTorch")
transformers = pytest.importorskip("transformers", reason="parity with PEFT needs transformers")
peft = pytest.importorskip("peft", reason="parity with PEFT needs PEFT")
pytestmark = pytest.mark.parity

IDS = np.random.default_rng(0).integers(0, decoders.VOCAB, (2, 12)).astype(np.int32)
TARGETS = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(scope="module", autouse=True)
def _set_up() -> Iterator[None]:
    torch.set_num_threads(1)
    with decoders.graph_mode():
        yield


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    decoders.write(folder, decoders.config_of())
    return folder


def torch_base(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def torch_logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(IDS).long()).logits.numpy()


def logits(model: Any) -> np.ndarray:
    return model(Tensor(IDS)).asnumpy()


@pytest.fixture(scope="module")
def theirs(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """An adapter that PEFT wrote, and PEFT's logits."""
    config = peft.LoraConfig(r=4, lora_alpha=12, lora_dropout=0.1, target_modules=TARGETS, task_type="CAUSAL_LM")
    torch.manual_seed(1)
    model = peft.get_peft_model(torch_base(base), config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    folder = tmp_path_factory.mktemp("theirs")
    model.save_pretrained(folder)
    return folder, torch_logits(model)


@pytest.mark.parametrize("merged", [True, False])
def test_we_load_what_peft_wrote(base: Path, theirs: tuple[Path, np.ndarray], merged: bool) -> None:
    model = load_model(base)
    load_adapter(model, theirs[0], merge=merged)
    np.testing.assert_allclose(logits(model), theirs[1], atol=2e-5, rtol=1e-4)


def test_peft_loads_what_we_wrote(base: Path, theirs: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    model = load_model(base)
    inject_lora(model, 4, 12.0, TARGETS, dropout=0.1, seed=2)
    rng = np.random.default_rng(3)
    for _, layer in lora_layers(model):
        assign(layer.lora_b, rng.normal(0, 0.1, layer.lora_b.shape).astype(np.float32))
    save_adapter(model, tmp_path, str(base))
    plain = torch_logits(torch_base(base))
    loaded = peft.PeftModel.from_pretrained(torch_base(base), tmp_path).eval()
    expected = torch_logits(loaded)
    assert np.abs(expected - plain).max() > 0.1
    np.testing.assert_allclose(logits(model), expected, atol=2e-5, rtol=1e-4)
    np.testing.assert_allclose(torch_logits(loaded.merge_and_unload()), expected, atol=2e-5, rtol=1e-4)

    ours, written = (
        safetensors.numpy.load_file(folder / "adapter_model.safetensors") for folder in (tmp_path, theirs[0])
    )
    assert {name: value.shape for name, value in ours.items()} == {n: v.shape for n, v in written.items()}
    our_config, their_config = (
        json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")) for folder in (tmp_path, theirs[0])
    )
    for config in (our_config, their_config):
        config["target_modules"] = sorted(config["target_modules"])
    assert {name: their_config[name] for name in our_config} == our_config
