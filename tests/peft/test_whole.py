"""`modules_to_save`: modules that are trained whole, saved in the adapter's file, and put back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import decoders
import mindspore as ms
import numpy as np
import pytest
import safetensors.numpy
from mindspore import Tensor, nn, ops

from ms_medqa.config import UserError
from ms_medqa.models import load_model
from ms_medqa.models.loading import assign, naming_of
from ms_medqa.peft import changes, inject_lora, load_adapter, lora_layers, read_adapter, save_adapter, unties
from ms_medqa.peft import trainable_parameters as trained

pytestmark = pytest.mark.usefixtures("graph_mode")

IDS = [[5, 9, 2, 33, 60, 61, 7, 1], [90, 1, 1, 4, 8, 77, 21, 3]]
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
UNTIED = decoders.config_of("LlamaForCausalLM", num_hidden_layers=1)
TIED = {**UNTIED, "tie_word_embeddings": True}
NORMALIZED = decoders.baichuan_config("2-7B", num_hidden_layers=1)


class MeanSquare(nn.Cell):
    """Of the logits: something to derive. The logits come with it."""

    def __init__(self, model: Any) -> None:
        super().__init__(auto_prefix=False)
        self.model = model

    def construct(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model.construct(input_ids)
        return ops.square(logits).mean(), logits


def run(model: Any) -> np.ndarray:
    return model(Tensor(np.array(IDS, np.int32))).asnumpy()


def expected(weights: decoders.Weights, config: dict[str, Any]) -> np.ndarray:
    return np.stack([decoders.logits(weights, config, ids) for ids in IDS])


def changed(model: Any, weights: decoders.Weights) -> decoders.Weights:
    """Give everything that is trained new numbers; the same in NumPy, B A + W for adapters."""
    rng, weights = np.random.default_rng(7), dict(weights)
    for parameter in trained(model):
        assign(parameter, parameter.asnumpy() + rng.normal(0, 0.1, parameter.shape).astype(np.float32))
        if ".lora_" not in parameter.name:
            weights[parameter.name] = parameter.asnumpy()
    for path, layer in lora_layers(model):
        name = f"{path}.weight"
        weights[name] = weights[name] + layer.scaling * (layer.lora_b.asnumpy() @ layer.lora_a.asnumpy())
    return weights


def write_theirs(folder: Path, tensors: dict[str, np.ndarray], **options: Any) -> Path:
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, **options}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    named = {f"base_model.model.{name}": value for name, value in tensors.items()}
    safetensors.numpy.save_file(named, folder / "adapter_model.safetensors")
    return folder


def like(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.2, shape).astype(np.float32)


@pytest.mark.parametrize(
    ("config", "names", "on_disk"),
    [
        (UNTIED, ["embed_tokens", "lm_head", "model.norm"], {EMBEDDING, HEAD, "model.norm.weight"}),
        (TIED, ["embed_tokens"], {EMBEDDING, HEAD}),
    ],
    ids=["untied", "tied"],
)
def test_trained_saved_and_back(tmp_path: Path, config: dict[str, Any], names: list[str], on_disk: set[str]) -> None:
    base = decoders.write(tmp_path / "base", config)
    model = load_model(tmp_path / "base")
    before = run(model)
    inject_lora(model, 4, 6.0, ["q_proj"], modules_to_save=names)
    assert np.array_equal(run(model), before)
    weights = changed(model, base)
    whole = {parameter.name for parameter in trained(model) if ".lora_" not in parameter.name}
    assert whole == on_disk & set(base)
    np.testing.assert_allclose(run(model), expected(weights, config), atol=5e-5)

    save_adapter(model, tmp_path / "made", "base")
    tensors = safetensors.numpy.load_file(tmp_path / "made" / "adapter_model.safetensors")
    saved = {name.removeprefix("base_model.model."): value for name, value in tensors.items() if ".lora_" not in name}
    assert set(saved) == on_disk
    for name, value in saved.items():
        assert np.array_equal(value, weights.get(name, weights[EMBEDDING]))
    options = json.loads((tmp_path / "made" / "adapter_config.json").read_text(encoding="utf-8"))
    assert options.get("ensure_weight_tying", False) is (config is TIED)
    assert options["modules_to_save"] == sorted(name.removesuffix(".weight") for name in whole)
    for merged in (True, False):
        again = load_model(tmp_path / "base")
        load_adapter(again, tmp_path / "made", merge=merged)
        assert bool(lora_layers(again)) is not merged
        assert np.array_equal(again.model.embed_tokens.weight.asnumpy(), weights[EMBEDDING])
        with pytest.raises(UserError, match="has an adapter already"):
            load_adapter(again, tmp_path / "made")
    np.testing.assert_allclose(run(again), expected(weights, config), atol=5e-5)
    # What was loaded apart is saved as it came.
    save_adapter(again, tmp_path / "again", "base")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "made" / name).read_bytes()


@pytest.mark.parametrize(
    ("saved", "merged"), [([EMBEDDING], True), ([HEAD], False), ([EMBEDDING, HEAD], True)], ids=str
)
def test_peft_unties_what_it_trains_apart(tmp_path: Path, saved: list[str], merged: bool) -> None:
    base = decoders.write(tmp_path / "base", TIED)
    tensors = {name: like(base[EMBEDDING].shape, seed) for seed, name in enumerate(saved)}
    names = [name.removesuffix(".weight").removeprefix("model.") for name in saved]
    theirs = write_theirs(tmp_path / "theirs", tensors, modules_to_save=names, ensure_weight_tying=False)
    model = load_model(tmp_path / "base")
    tied = naming_of(model)
    assert unties(read_adapter(theirs), tied)
    with pytest.raises(UserError, match="weights of their own, the model ties them: use a copy of the model with"):
        changes(read_adapter(theirs), tied)
    run(model)  # compiled with tied weights
    load_adapter(model, theirs, merge=merged)
    weights = {HEAD: base[EMBEDDING], **base, **tensors}
    np.testing.assert_allclose(run(model), expected(weights, UNTIED), atol=5e-5)
    assert model.config.tie_word_embeddings is False


def test_a_copy_of_the_tied_weight_leaves_it_tied(tmp_path: Path) -> None:
    base = decoders.write(tmp_path / "base", TIED)
    value = like(base[EMBEDDING].shape, 1)
    both = write_theirs(tmp_path / "both", {EMBEDDING: value, HEAD: value}, modules_to_save=["embed_tokens"])
    # Saved without `modules_to_save` (`save_embedding_layers`), a tensor goes into the tied weight itself.
    alone = write_theirs(tmp_path / "alone", {HEAD: value})
    for folder in (both, alone):
        model = load_model(tmp_path / "base")
        load_adapter(model, folder)
        assert model.lm_head is None
        assert np.array_equal(model.model.embed_tokens.weight.asnumpy(), value)


def test_a_normalized_head_is_trained_as_it_is_computed(tmp_path: Path) -> None:
    base = decoders.write(tmp_path / "base", NORMALIZED)
    model = load_model(tmp_path / "base")
    inject_lora(model, 4, 6.0, ["o_proj"], modules_to_save=["lm_head"])
    weights = changed(model, base)
    np.testing.assert_allclose(run(model), expected(weights, NORMALIZED), atol=5e-5)
    save_adapter(model, tmp_path / "made", "base")
    for merged in (True, False):
        model = load_model(tmp_path / "base")
        load_adapter(model, tmp_path / "made", merge=merged)
        rows = np.linalg.norm(model.lm_head.weight.asnumpy(), axis=1)
        np.testing.assert_allclose(rows, 1.0, atol=1e-6)
    np.testing.assert_allclose(run(model), expected(weights, NORMALIZED), atol=5e-5)


@pytest.mark.parametrize("config", [UNTIED, TIED, NORMALIZED], ids=["untied", "tied", "normalized"])
def test_trained_weights_of_a_float16_model_are_float32(tmp_path: Path, config: dict[str, Any]) -> None:
    base = decoders.write(tmp_path / "base", config)
    model = load_model(tmp_path / "base", dtype="float16")
    names = {parameter.name for parameter in model.get_parameters()}
    inject_lora(model, 4, 6.0, ["o_proj"], modules_to_save=["embed_tokens", "lm_head", "norm"])
    parameters = {parameter.name: parameter for parameter in model.get_parameters()}
    assert names <= set(parameters)
    assert {parameter.dtype for parameter in trained(model)} == {ms.float32}
    assert parameters["model.layers.0.mlp.up_proj.weight"].dtype == ms.float16
    weights = changed(model, base)
    ids = Tensor(np.array(IDS, np.int32))
    derive = ms.value_and_grad(MeanSquare(model), None, model.trainable_params(), has_aux=True)
    (_, found), gradients = derive(ids)
    np.testing.assert_allclose(found.asnumpy(), expected(weights, config), atol=0.05, rtol=0.01)
    for parameter, gradient in zip(model.trainable_params(), gradients, strict=True):
        assert gradient.dtype == ms.float32, parameter.name
        assert np.isfinite(gradient.asnumpy()).all()
        assert gradient.asnumpy().any(), parameter.name


@pytest.mark.parametrize(
    ("tensors", "options", "words"),
    [
        ({HEAD: (97, 16)}, {}, r"lm_head\.weight has shape \(97, 16\), the model's has \(97, 32\)"),
        ({"score.weight": (2, 32)}, {}, r"score\.weight is not in the model"),
        (
            {HEAD: (97, 32)},
            {"modules_to_save": ["lm_head", "embed_tokens"]},
            r"modules_to_save names embed_tokens, and \S+ holds no such tensor",
        ),
    ],
    ids=str,
)
def test_tensors_that_do_not_fit(
    tmp_path: Path, tensors: dict[str, tuple[int, ...]], options: dict[str, Any], words: str
) -> None:
    decoders.write(tmp_path / "base", UNTIED)
    theirs = write_theirs(tmp_path / "theirs", {name: like(shape, 0) for name, shape in tensors.items()}, **options)
    model = load_model(tmp_path / "base")
    before = {parameter.name: parameter.asnumpy().copy() for parameter in model.get_parameters()}
    with pytest.raises(UserError, match=words):
        load_adapter(model, theirs)
    assert all(np.array_equal(before[p.name], p.asnumpy()) for p in model.get_parameters())


def test_modules_to_save_without_any_tensor(tmp_path: Path) -> None:
    pair = {"x.q_proj.lora_A.weight": like((4, 32), 0), "x.q_proj.lora_B.weight": like((32, 4), 0)}
    theirs = write_theirs(tmp_path / "theirs", pair, modules_to_save=["lm_head"])
    with pytest.raises(UserError, match=r"no tensor of modules_to_save = lm_head"):
        read_adapter(theirs)


def test_weights_below_an_adapter_on_the_head(tmp_path: Path) -> None:
    """PEFT saves them beside such an adapter; the update comes on top of them, and both are saved again."""
    base = decoders.write(tmp_path / "base", UNTIED)
    below, a, b = like((97, 32), 0), like((4, 32), 1), like((97, 4), 2)
    tensors = {"lm_head.base_layer.weight": below, "lm_head.lora_A.weight": a, "lm_head.lora_B.weight": b}
    theirs = write_theirs(tmp_path / "theirs", tensors)
    merged, apart = load_model(tmp_path / "base"), load_model(tmp_path / "base")
    load_adapter(merged, theirs)
    load_adapter(apart, theirs, merge=False)
    weights = {**base, HEAD: below + 1.5 * (b @ a)}
    np.testing.assert_allclose(merged.lm_head.weight.asnumpy(), weights[HEAD], atol=1e-6)
    np.testing.assert_allclose(run(apart), expected(weights, UNTIED), atol=5e-5)
    save_adapter(apart, tmp_path / "again", "base")
    again = safetensors.numpy.load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert {name.removeprefix("base_model.model.") for name in again} == set(tensors)
    assert all(np.array_equal(value, tensors[name.removeprefix("base_model.model.")]) for name, value in again.items())
    options = json.loads((tmp_path / "again" / "adapter_config.json").read_text(encoding="utf-8"))
    assert (options["target_modules"], options["modules_to_save"]) == (["lm_head"], None)
