"""Options of `adapter_config.json` that decide ranks and scales, against the formula in NumPy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import safetensors.numpy

from ms_medqa.config import UserError
from ms_medqa.models import load_model
from ms_medqa.models.loading import assign
from ms_medqa.peft import inject_lora, load_adapter, lora_layers, read_adapter, save_adapter
from ms_medqa.peft.rows import load_row_adapters

pytestmark = pytest.mark.usefixtures("graph_mode")

CONFIG = decoders.config_of("LlamaForCausalLM")
PATHS = [f"model.layers.{n}.self_attn.{name}_proj" for n in (0, 1) for name in "qv"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, decoders.Weights]:
    folder = tmp_path_factory.mktemp("base")
    return folder, decoders.write(folder, CONFIG)


def write_adapter(folder: Path, ranks: list[int], **options: Any) -> dict[str, np.ndarray]:
    """An adapter with these ranks on PATHS; returns B A of each path."""
    folder.mkdir()
    rng, tensors, products = np.random.default_rng(2), {}, {}
    for path, rank in zip(PATHS, ranks, strict=True):
        a = rng.normal(0, 0.2, (rank, 32)).astype(np.float32)
        b = rng.normal(0, 0.2, (16 if "v_proj" in path else 32, rank)).astype(np.float32)
        tensors |= {f"base_model.model.{path}.lora_{half}.weight": value for half, value in (("A", a), ("B", b))}
        products[path] = b.astype(np.float64) @ a
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, **options}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    safetensors.numpy.save_file(tensors, folder / "adapter_model.safetensors")
    return products


@pytest.mark.parametrize(
    ("ranks", "options", "scales"),
    [
        ([4, 4, 4, 4], {}, [1.5] * 4),
        ([4, 4, 4, 4], {"use_rslora": True}, [3.0] * 4),
        ([2, 4, 2, 4], {"rank_pattern": {"q_proj": 2}}, [3.0, 1.5, 3.0, 1.5]),
        ([4, 4, 4, 4], {"alpha_pattern": {"self_attn.v_proj": 1.0}}, [1.5, 0.25, 1.5, 0.25]),
        # A key is a regular expression for the end of a path, behind a dot or at the start; the first that fits counts.
        ([8, 4, 2, 4], {"rank_pattern": {"proj": 3, r"layers\.0\..*q_proj": 8, "q_proj": 2}}, [0.75, 1.5, 3.0, 1.5]),
        ([4, 4, 4, 2], {"rank_pattern": {"^model.layers.1.self_attn.(k|v)_proj": 2}}, [1.5, 1.5, 1.5, 3.0]),
        (
            [2, 4, 2, 4],
            {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"q_proj": 5}, "use_rslora": True},
            [5 / math.sqrt(2), 3.0, 5 / math.sqrt(2), 3.0],
        ),
        # What PEFT sets back itself, and what the tensors tell anyway.
        ([4, 4, 4, 4], {"fan_in_fan_out": True}, [1.5] * 4),
        (
            [4, 4, 4, 4],
            {"layers_to_transform": [0, 1], "layers_pattern": "layers", "exclude_modules": ["k_proj"]},
            [1.5] * 4,
        ),
        ([4, 4, 4, 4], {"target_modules": r".*\.[qv]_proj", "ensure_weight_tying": True}, [1.5] * 4),
    ],
    ids=str,
)
def test_merged_weights_follow_the_formula(
    base: tuple[Path, decoders.Weights], tmp_path: Path, ranks: list[int], options: dict[str, Any], scales: list[float]
) -> None:
    products = write_adapter(tmp_path / "adapter", ranks, **options)
    merged, apart = load_model(base[0]), load_model(base[0])
    load_adapter(merged, tmp_path / "adapter")
    load_adapter(apart, tmp_path / "adapter", merge=False)
    weights = {parameter.name: parameter.asnumpy() for parameter in merged.get_parameters()}
    layers = dict(lora_layers(apart))
    assert list(layers) == PATHS
    for path, rank, scale in zip(PATHS, ranks, scales, strict=True):
        expected = base[1][f"{path}.weight"] + scale * products[path]
        np.testing.assert_allclose(weights[f"{path}.weight"], expected, atol=1e-6)
        assert layers[path].scaling == pytest.approx(scale, rel=1e-12)
        assert layers[path].r == rank
        update = layers[path].lora_b.asnumpy().astype(np.float64) @ layers[path].lora_a.asnumpy()
        np.testing.assert_allclose(update, products[path], atol=1e-6)


@pytest.mark.parametrize("beside", [False, True])
def test_what_is_done_about_fan_in_fan_out_is_said(
    base: tuple[Path, decoders.Weights], tmp_path: Path, capsys: pytest.CaptureFixture[str], beside: bool
) -> None:
    write_adapter(tmp_path / "adapter", [4] * 4, fan_in_fan_out=True)
    model = load_model(base[0])
    if beside:
        load_row_adapters(model, {"one": tmp_path / "adapter"})
    else:
        load_adapter(model, tmp_path / "adapter")
    out, err = capsys.readouterr()
    assert "note: " in err
    assert "fan_in_fan_out = true is for layers stored (in, out); here it is false" in err
    assert not out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rank_pattern": {"q_proj": 2}}, r"layers\.0\.self_attn\.q_proj needs lora_A \(2, in\) and lora_B \(out, 2\)"),
        ({"rank_pattern": {"q_proj": 0}}, r'rank_pattern = \{"q_proj": 0\} must give a number for each layer'),
        ({"rank_pattern": {"q_proj": True}}, r'rank_pattern = \{"q_proj": true\} must give'),
        ({"rank_pattern": ["q_proj"]}, r'rank_pattern = \["q_proj"\] must give'),
        ({"alpha_pattern": {"q_proj": "6"}}, r'alpha_pattern = \{"q_proj": "6"\} must give'),
        ({"alpha_pattern": {"(q_proj": 6}}, r"alpha_pattern: '\(q_proj' is not a regular expression"),
        ({"use_rslora": "yes"}, r'use_rslora = "yes" must be true or false'),
        ({"modules_to_save": "lm_head"}, r'modules_to_save = "lm_head" must be a list of names'),
    ],
    ids=str,
)
def test_values_that_make_no_sense(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    write_adapter(tmp_path / "adapter", [4] * 4, **options)
    with pytest.raises(UserError, match=words) as error:
        read_adapter(tmp_path / "adapter")
    assert str(tmp_path / "adapter") in str(error.value)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_ranks_and_scales_survive_a_round_trip(
    base: tuple[Path, decoders.Weights], tmp_path: Path, use_rslora: bool
) -> None:
    model = load_model(base[0])
    inject_lora(
        model,
        4,
        6.0,
        "all-linear",
        exclude_modules=["o_proj"],
        layers_to_transform=[1],
        rank_pattern={"v_proj": 2},
        alpha_pattern={"mlp.*": 2.5},
        use_rslora=use_rslora,
    )
    layers = dict(lora_layers(model))
    for _, layer in layers.items():
        assign(layer.lora_b, np.full(layer.lora_b.shape, 0.1, np.float32))
    save_adapter(model, tmp_path / "made", "base")
    config = json.loads((tmp_path / "made" / "adapter_config.json").read_text(encoding="utf-8"))
    # Names alone would mean layer 0 as well.
    assert config["target_modules"] == sorted(layers)
    assert (config["r"], config["use_rslora"]) == (4, use_rslora)
    pairs = read_adapter(tmp_path / "made").layers
    assert {path: (pair.r, pair.scaling) for path, pair in pairs.items()} == {
        path: (layer.r, layer.scaling) for path, layer in layers.items()
    }
    assert all(np.array_equal(pair.a, layers[path].lora_a.asnumpy()) for path, pair in pairs.items())
