"""The fingerprint of base weights: what keeps it, and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import decoders
import numpy as np
import pytest

from ms_medqa.config import UserError
from ms_medqa.models.fingerprint import base_fingerprint

CONFIGS = {
    "llama": decoders.config_of("LlamaForCausalLM", hidden_size=128, intermediate_size=256),
    "fused": decoders.baichuan_config("2-13B", hidden_size=128, intermediate_size=256),
}


def rounded(value: np.ndarray) -> np.ndarray:
    """To the numbers that bfloat16 has."""
    return ((value.astype(np.float32).view(np.uint32) + 0x8000) & 0xFFFF0000).view(np.float32)


def write(folder: Path, config: dict, weights: decoders.Weights, dtype: str, shards: int = 1) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    names, where = sorted(weights), {}
    for number in range(shards):
        file = "model.safetensors" if shards == 1 else f"model-{number}.safetensors"
        part = {name: weights[name] for name in names[number::shards]}
        (folder / file).write_bytes(decoders.serialize(part, dtype))
        where |= dict.fromkeys(part, file)
    if shards > 1:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    return folder


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> dict:
    return CONFIGS[request.param]


@pytest.fixture
def weights(config: dict) -> decoders.Weights:
    # As large as those of real models.
    return {name: rounded(value) for name, value in decoders.random_weights(config, scale=0.02).items()}


def test_shards_and_a_wider_type_keep_it(tmp_path: Path, config: dict, weights: decoders.Weights) -> None:
    stored = base_fingerprint(write(tmp_path / "a", config, weights, "bfloat16"))
    assert len(stored) == 64
    assert base_fingerprint(write(tmp_path / "b", config, weights, "float32")) == stored
    assert base_fingerprint(write(tmp_path / "c", config, weights, "bfloat16", shards=3)) == stored
    # A head that a tied model would not use, settings that are no weights.
    assert base_fingerprint(write(tmp_path / "d", config | {"eos_token_id": 5}, weights, "float32")) == stored


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_small_adapter_merged_into_one_layer_changes_it(
    dtype: str, tmp_path: Path, config: dict, weights: decoders.Weights
) -> None:
    before = base_fingerprint(write(tmp_path / "base", config, weights, dtype))
    name = next(name for name in weights if "q_proj" in name or "W_pack" in name)
    rng = np.random.default_rng(0)
    # Rank 8, after a few steps of 1e-5: most bfloat16 numbers stay as they were.
    update = 2 * rng.normal(0, 1e-5, (len(weights[name]), 8)) @ rng.uniform(-0.1, 0.1, (8, 128))
    merged = weights[name] + update.astype(np.float32)
    if dtype == "bfloat16":
        merged = rounded(merged)
        assert (merged == weights[name]).mean() > 0.95
    assert base_fingerprint(write(tmp_path / "merged", config, weights | {name: merged}, dtype)) != before


def test_the_same_numbers_in_other_layers_change_it(tmp_path: Path, config: dict, weights: decoders.Weights) -> None:
    before = base_fingerprint(write(tmp_path / "base", config, weights, "float32"))
    first, second = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"
    swapped = weights | {first: weights[second], second: weights[first]}
    assert base_fingerprint(write(tmp_path / "swapped", config, swapped, "float32")) != before


def test_weights_that_do_not_fit_have_none(tmp_path: Path, config: dict, weights: decoders.Weights) -> None:
    del weights["model.norm.weight"]
    with pytest.raises(UserError, match=r"missing model\.norm\.weight"):
        base_fingerprint(write(tmp_path / "base", config, weights, "float32"))
