"""Training runs with the options of the `lora` section: what they print, what they leave, and how they resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import trainable

from ms_medqa.config import UserError
from ms_medqa.config.loader import load_config
from ms_medqa.models import load_model
from ms_medqa.models.fingerprint import base_fingerprint
from ms_medqa.peft import load_adapter

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
LORA = {
    "target_modules": "all-linear",
    "exclude_modules": ["o_proj"],
    "rank_pattern": {"mlp.*": 2},
    "use_rslora": True,
    "modules_to_save": ["embed_tokens", "lm_head"],
}
SECTIONS: dict[str, Any] = {"lora": LORA, "runtime": {"device": "CPU", "dtype": "float16"}, "train": {"save_steps": 2}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float16 run that trains the embedding and the head as well."""
    output = tmp_path_factory.mktemp("runs") / "whole"
    assert trainable.train(trainable.write_config(output, **SECTIONS)) == 0
    return output


def test_the_adapter_holds_what_was_trained(run: Path) -> None:
    base = trainable.place() / "model"
    adapter = run / "adapter"
    noted = json.loads((adapter / "base.json").read_text(encoding="utf-8"))
    assert noted == {"fingerprint": base_fingerprint(base), "model": str(base)}
    tensors = trainable.tensors(adapter / "adapter_model.safetensors")
    weights = trainable.tensors(base / "model.safetensors")
    for name in (EMBEDDING, HEAD):
        value = tensors[f"base_model.model.{name}"]
        # Steps of this size are lost in float16, where a weight of 0.2 has neighbours 0.0001 away.
        assert np.any((value != weights[name]) & (np.abs(value - weights[name]) < 5e-5))
    losses = [line["loss"] for line in trainable.metrics(run, "train")]
    assert losses[-1] < losses[0]
    assert {line["overflow"] for line in trainable.metrics(run, "train")} == {False}
    load_adapter(load_model(base), adapter)


def test_a_resumed_run_ends_the_same(run: Path, tmp_path: Path) -> None:
    first = min((run / "checkpoints").glob("step-*"))
    config = trainable.write_config(tmp_path / "again", **SECTIONS)
    assert trainable.train(config, f"train.resume={first}") == 0
    for name in ("adapter_model.safetensors", "adapter_config.json", "base.json"):
        assert (tmp_path / "again" / "adapter" / name).read_bytes() == (run / "adapter" / name).read_bytes()


def test_other_base_weights_are_no_base_to_resume_on(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "model"
    shutil.copytree(trainable.place() / "model", other)
    decoders.write(other, trainable.CONFIG, decoders.random_weights(trainable.CONFIG, seed=1))
    config = trainable.write_config(tmp_path / "again", **SECTIONS, model={"path": str(other)})
    first = min((run / "checkpoints").glob("step-*"))
    assert trainable.train(config, f"train.resume={first}") == 2
    assert "was written under other settings: base weights" in capsys.readouterr().err


def test_weights_that_are_drawn_anew_have_no_fingerprint(tmp_path: Path) -> None:
    config = trainable.write_config(
        tmp_path / "run", model={"path": str(trainable.place() / "model"), "init": "random"}
    )
    assert trainable.train(config, "train.max_steps=1") == 0
    assert not (tmp_path / "run" / "adapter" / "base.json").exists()


def test_the_plan_names_the_adapter(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lora = {"target_modules": "all-linear", "modules_to_save": ["norm"], "fan_in_fan_out": True}
    assert trainable.train(trainable.write_config(tmp_path / "run", lora=lora), "--dry-run") == 0
    out = capsys.readouterr().out
    assert "LoRA r=4 alpha=8 on all-linear, whole: norm" in out
    assert "note: lora.fan_in_fan_out is for layers stored (in, out); here it is false" in out


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("target_modules=3", "lora.target_modules = 3: a list of names, or one regular expression"),
        ("target_modules=[]", "lora.target_modules = []: a list of names, or one regular expression"),
        ("target_modules=(", "lora.target_modules = '(': '(' is not a regular expression"),
        ("exclude_modules=['']", "lora.exclude_modules = ['']: a list of names"),
        ("layers_to_transform=-1", "lora.layers_to_transform = -1: a layer's number from 0, or a list of them"),
        ("layers_to_transform=true", "lora.layers_to_transform = True: a layer's number from 0"),
        ("layers_pattern=h", "lora.layers_pattern = 'h': it means nothing without lora.layers_to_transform"),
        ("rank_pattern={q_proj: 2.5}", "lora.rank_pattern = {'q_proj': 2.5}: a mapping from names of layers to whole"),
        ("alpha_pattern={q_proj: 0}", "lora.alpha_pattern = {'q_proj': 0}: a mapping from names of layers to numbers"),
        ("rank_pattern={(: 2}", "is not a regular expression"),
        ("use_rslra=true", "did you mean 'lora.use_rslora'?"),
    ],
)
def test_values_that_the_config_refuses(override: str, words: str) -> None:
    with pytest.raises(UserError) as error:
        load_config(None, [f"lora.{override}"])
    assert words in str(error.value)


def test_layers_beside_an_expression_are_refused() -> None:
    overrides = ["lora.target_modules=.*q_proj", "lora.layers_to_transform=[0]"]
    with pytest.raises(UserError, match=r"lora\.layers_to_transform = \[0\]: not beside a regular expression"):
        load_config(None, overrides)
    assert load_config(None, ["lora.target_modules=all-linear", overrides[1]]).lora is not None


def test_nothing_may_be_left_out() -> None:
    for value in ("[]", "null"):
        lora = load_config(None, [f"lora.exclude_modules={value}"]).lora
        assert lora is not None
        assert not lora.exclude_modules
