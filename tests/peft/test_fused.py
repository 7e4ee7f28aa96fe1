"""Adapters of families whose checkpoints fuse q, k and v or have names of their own: both ways, against NumPy."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import decoders
import mindspore as ms
import numpy as np
import pytest
import safetensors.numpy
from mindspore import Tensor, nn, ops

from ms_medqa.models import load_model
from ms_medqa.models.loading import assign, naming_of
from ms_medqa.peft import (
    changes,
    inject_lora,
    load_adapter,
    lora_layers,
    read_adapter,
    save_adapter,
    trainable_parameters,
)

pytestmark = pytest.mark.usefixtures("pynative_mode")

IDS = [[5, 9, 2, 33, 60, 61, 7, 1], [90, 1, 1, 4, 8, 77, 21, 3]]
CONFIGS = {
    "qwen": decoders.qwen_config(),
    "baichuan": decoders.baichuan_config("7B"),
    "baichuan2-13b": decoders.baichuan_config("2-13B"),
}
# A layer's fused module, and a plain one under the checkpoint's name.
MODULES = {
    "qwen": ("transformer.h.{}.attn.c_attn", "transformer.h.{}.mlp.w1"),
    "baichuan": ("model.layers.{}.self_attn.W_pack", "model.layers.{}.mlp.up_proj"),
    "baichuan2-13b": ("model.layers.{}.self_attn.W_pack", "model.layers.{}.mlp.up_proj"),
}


@pytest.fixture
def base(family: str, tmp_path: Path) -> tuple[Path, decoders.Weights]:
    return tmp_path / "base", decoders.write(tmp_path / "base", CONFIGS[family])


class SquaredLogits(nn.Cell):
    """Something to differentiate."""

    def __init__(self, model: nn.Cell) -> None:
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, input_ids: Tensor) -> Tensor:
        return ops.square(self.model.construct(input_ids)).sum()


def run(model: Any) -> np.ndarray:
    return model(Tensor(np.array(IDS, np.int32))).asnumpy()


def expected(weights: decoders.Weights, family: str) -> np.ndarray:
    return np.stack([decoders.logits(weights, CONFIGS[family], ids) for ids in IDS])


def write_theirs(folder: Path, tensors: dict[str, np.ndarray], **options: Any) -> None:
    folder.mkdir()
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 6,
        "target_modules": sorted({path.rsplit(".", 2)[-3] for path in tensors}),
        **options,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    named = {f"base_model.model.{name}": value for name, value in tensors.items()}
    safetensors.numpy.save_file(named, folder / "adapter_model.safetensors")


@pytest.mark.parametrize(
    ("family", "merged"), [("qwen", True), ("qwen", False), ("baichuan", True), ("baichuan2-13b", False)]
)
def test_an_adapter_of_the_checkpoints_own_modules(
    family: str, base: tuple[Path, decoders.Weights], tmp_path: Path, merged: bool
) -> None:
    folder, weights = base
    rng, tensors, ranks, alphas = np.random.default_rng(3), {}, {}, {}
    modules = {f"transformer.h.{n}.{name}" for n in (0, 1) for name in ("attn.c_proj", "mlp.c_proj", "mlp.w2")}
    modules = {path for path in modules if family == "qwen"} | {m.format(n) for m in MODULES[family] for n in (0, 1)}
    for number, path in enumerate(sorted(modules)):
        rank, alpha = (4, 6.0) if number % 2 else (2, 3.5)
        if not number % 2:
            ranks[path], alphas[path] = rank, alpha
        out, width = weights[f"{path}.weight"].shape
        a = rng.normal(0, 0.2, (rank, width)).astype(np.float32)
        b = rng.normal(0, 0.2, (out, rank)).astype(np.float32)
        tensors |= {f"{path}.lora_A.weight": a, f"{path}.lora_B.weight": b}
        weights[f"{path}.weight"] = weights[f"{path}.weight"] + np.float32(alpha / rank) * (b @ a)
    write_theirs(tmp_path / "theirs", tensors, rank_pattern=ranks, alpha_pattern=alphas)
    model = load_model(folder)
    load_adapter(model, tmp_path / "theirs", merge=merged)
    np.testing.assert_allclose(run(model), expected(weights, family), atol=1e-4)


@pytest.mark.parametrize(
    ("family", "parts", "use_rslora"),
    [
        ("qwen", ("q_proj", "k_proj", "v_proj"), False),
        ("qwen", ("k_proj",), True),
        ("baichuan", ("q_proj", "v_proj"), True),
    ],
)
def test_what_is_made_here_is_saved_on_the_fused_module(
    family: str, base: tuple[Path, decoders.Weights], tmp_path: Path, parts: tuple[str, ...], use_rslora: bool
) -> None:
    folder, weights = base
    model = load_model(folder)
    fused, plain = MODULES[family]
    # One part has another rank and another alpha, so that the blocks differ in width and scale.
    ranks, alphas = {parts[-1]: 3}, {f"layers.1.self_attn.{parts[-1]}": 5.0}
    inject_lora(
        model, 4, 7.0, [*parts, "up_proj"], rank_pattern=ranks, alpha_pattern=alphas, use_rslora=use_rslora, seed=1
    )
    rng, rows = np.random.default_rng(8), {"q_proj": slice(0, 32), "k_proj": slice(32, 64), "v_proj": slice(64, 96)}
    before = {name: value.copy() for name, value in weights.items()}
    for path, layer in lora_layers(model):
        assign(layer.lora_b, rng.normal(0, 0.2, layer.lora_b.shape).astype(np.float32))
        number, name = int(path.split(".")[2]), path.rsplit(".", 1)[-1]
        rank = 3 if name == parts[-1] else 4
        alpha = 5.0 if name == parts[-1] and number == 1 else 7.0
        scale = alpha / (math.sqrt(rank) if use_rslora else rank)
        update = scale * (layer.lora_b.asnumpy().astype(np.float64) @ layer.lora_a.asnumpy())
        target = weights[f"{(plain if name == 'up_proj' else fused).format(number)}.weight"]
        target[rows.get(name, slice(None))] += update
    ours = run(model)
    np.testing.assert_allclose(ours, expected(weights, family), atol=1e-4)

    save_adapter(model, tmp_path / "made", "base")
    config = json.loads((tmp_path / "made" / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["target_modules"] == sorted(path.rsplit(".", 1)[-1] for path in (fused, plain))
    tensors = safetensors.numpy.load_file(tmp_path / "made" / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.{fused.format(0)}.lora_{half}.weight"] for half in "AB")
    rank = 4 * len(parts) - 1
    assert (a.shape, b.shape) == ((rank, 32), (96, rank))
    for name, place in rows.items():
        assert b[place].any() == (name in parts)
    # The product on the fused matrix, from the file and its options alone.
    for number in (0, 1):
        path = fused.format(number)
        a, b = (tensors[f"base_model.model.{path}.lora_{half}.weight"].astype(np.float64) for half in "AB")
        r, alpha = (
            config["rank_pattern"].get(path, config["r"]),
            config["alpha_pattern"].get(path, config["lora_alpha"]),
        )
        assert r == len(a)
        merged = before[f"{path}.weight"] + alpha / (math.sqrt(r) if use_rslora else r) * (b @ a)
        np.testing.assert_allclose(merged, weights[f"{path}.weight"], atol=1e-6)
    model = load_model(folder)
    load_adapter(model, tmp_path / "made", merge=False)
    np.testing.assert_allclose(run(model), ours, atol=2e-5)


@pytest.mark.parametrize("family", ["qwen", "baichuan"])
def test_changes_speak_of_the_checkpoints_tensors(
    family: str, base: tuple[Path, decoders.Weights], tmp_path: Path
) -> None:
    folder, weights = base
    model = load_model(folder)
    inject_lora(model, 2, 4.0, ["q_proj", "v_proj"])
    for _, layer in lora_layers(model):
        assign(layer.lora_b, np.full(layer.lora_b.shape, 0.1, np.float32))
    save_adapter(model, tmp_path / "made", "base")
    base_model = load_model(folder)
    found = changes(read_adapter(tmp_path / "made"), naming_of(base_model))
    name = f"{MODULES[family][0].format(1)}.weight"
    assert set(found) == {f"{MODULES[family][0].format(n)}.weight" for n in (0, 1)}
    whole = found[name].apply(weights[name])
    assert (whole.dtype, whole.shape) == (np.float32, (96, 32))
    assert np.array_equal(whole[32:64], weights[name][32:64])
    np.testing.assert_array_equal(found[name].rows(60, 90).apply(weights[name][60:90]), whole[60:90])
    # The weights of the merged model are those numbers.
    load_adapter(base_model, tmp_path / "made")
    parameters = {parameter.name: parameter.asnumpy() for parameter in base_model.get_parameters()}
    parts = [parameters[f"model.layers.1.self_attn.{part}_proj.weight"] for part in "qkv"]
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-6)


@pytest.mark.parametrize(
    ("family", "targets"), [("qwen", "all-linear"), ("baichuan", ["W_pack"]), ("qwen", r".*\.c_attn")]
)
def test_a_fused_module_that_is_named_itself_has_one_update_of_the_rank_asked_for(
    family: str, base: tuple[Path, decoders.Weights], tmp_path: Path, targets: list[str] | str
) -> None:
    folder, _ = base
    fused = MODULES[family][0]
    model = load_model(folder)
    inject_lora(model, 4, 6.0, targets, dropout=0.1)
    layers = {path: layer for path, layer in lora_layers(model) if "layers.1.self_attn" in path}
    parts = [layers[f"model.layers.1.self_attn.{part}_proj"] for part in "qkv"]
    assert len({id(part.lora_a) for part in parts}) == 1
    # What one of them drops, the others drop.
    assert len({part.dropout.key.name for part in parts}) == 1
    rng = np.random.default_rng(2)
    for _, layer in lora_layers(model):
        assign(layer.lora_b, rng.normal(0, 0.2, layer.lora_b.shape).astype(np.float32))
    ours = run(model)

    save_adapter(model, tmp_path / "made", "base")
    config = json.loads((tmp_path / "made" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (config["r"], config["lora_alpha"], config["rank_pattern"], config["alpha_pattern"]) == (4, 6, {}, {})
    tensors = safetensors.numpy.load_file(tmp_path / "made" / "adapter_model.safetensors")
    a, b = (tensors[f"base_model.model.{fused.format(1)}.lora_{half}.weight"] for half in "AB")
    assert (a.shape, b.shape) == ((4, 32), (96, 4))
    np.testing.assert_array_equal(b, np.concatenate([part.lora_b.asnumpy() for part in parts]))
    again = load_model(folder)
    load_adapter(again, tmp_path / "made", merge=False)
    np.testing.assert_allclose(run(again), ours, atol=2e-5)


def test_the_gradient_of_a_shared_half_is_that_of_the_fused_update(tmp_path: Path) -> None:
    folder = tmp_path / "base"
    decoders.write(folder, CONFIGS["qwen"])
    gradients = []
    for targets in (["c_attn"], ["q_proj", "k_proj", "v_proj"]):
        model = load_model(folder)
        inject_lora(model, 4, 6.0, targets)
        start = np.random.default_rng(5).normal(0, 0.2, (4, 32)).astype(np.float32)
        for number, (_, layer) in enumerate(lora_layers(model)):
            assign(layer.lora_a, start)
            assign(layer.lora_b, np.random.default_rng(number).normal(0, 0.2, layer.lora_b.shape).astype(np.float32))
        trained = trainable_parameters(model)
        _, found = ms.value_and_grad(SquaredLogits(model), None, trained)(Tensor(np.array(IDS, np.int32)))
        gradients.append({p.name: g.asnumpy() for p, g in zip(trained, found, strict=True)})
    shared, apart = gradients
    for layer in (0, 1):
        parts = [f"model.layers.{layer}.self_attn.{part}_proj.lora" for part in "qkv"]
        expected = sum(apart[f"{part}_a"] for part in parts)
        np.testing.assert_allclose(shared[f"{parts[0]}_a"], expected, rtol=1e-4, atol=1e-3)
        for part in parts:
            np.testing.assert_allclose(shared[f"{part}_b"], apart[f"{part}_b"], rtol=1e-4, atol=1e-3)
