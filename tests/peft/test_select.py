"""Which modules an adapter takes: names, expressions, layers, and the words where they fit nothing."""

from __future__ import annotations

from typing import Any

import decoders
import pytest

from ms_medqa.config import UserError
from ms_medqa.models import CausalLM
from ms_medqa.models.families import read_config
from ms_medqa.models.loading import naming_of
from ms_medqa.peft import inject_lora, lora_layers
from ms_medqa.peft.select import Targets, select

pytestmark = pytest.mark.usefixtures("graph_mode")

QKV = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
MLP = ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
ALL = [*QKV, "self_attn.o_proj", *MLP]
LAYERS = {
    "llama": decoders.config_of("LlamaForCausalLM", num_hidden_layers=3),
    "tied": decoders.config_of("Qwen2ForCausalLM", num_hidden_layers=3, tie_word_embeddings=True),
    "qwen": decoders.qwen_config(num_hidden_layers=3),
    "baichuan": decoders.baichuan_config(num_hidden_layers=3),
    "baichuan2": decoders.baichuan_config("2-13B", num_hidden_layers=3),
}


def empty(family: str) -> CausalLM:
    return CausalLM(read_config(LAYERS[family], "config.json"))


def chosen(family: str, **targets: Any) -> tuple[list[str], list[str]]:
    model = empty(family)
    return select(model, naming_of(model), Targets(**targets))


def paths(names: list[str], layers: tuple[int, ...] = (0, 1, 2)) -> list[str]:
    return [f"model.layers.{layer}.{name}" for layer in layers for name in names]


@pytest.mark.parametrize(
    ("family", "targets", "expected"),
    [
        ("llama", {"target_modules": ["q_proj", "down_proj"]}, paths(["self_attn.q_proj", "mlp.down_proj"])),
        ("llama", {"target_modules": ["self_attn.q_proj"]}, paths(["self_attn.q_proj"])),
        ("llama", {"target_modules": ["layers.1.mlp.up_proj"]}, paths(["mlp.up_proj"], (1,))),
        ("llama", {"target_modules": ["q_proj", "lm_head"]}, [*paths(["self_attn.q_proj"]), "lm_head"]),
        ("llama", {"target_modules": "all-linear"}, paths(ALL)),
        ("tied", {"target_modules": "All-Linear"}, paths(ALL)),
        ("llama", {"target_modules": r".*\.[02]\..*(gate|up)_proj"}, paths(MLP[:2], (0, 2))),
        ("llama", {"target_modules": "lm_head"}, ["lm_head"]),
        (
            "llama",
            {"target_modules": "all-linear", "exclude_modules": ["o_proj", "mlp.down_proj"]},
            paths(QKV + MLP[:2]),
        ),
        ("llama", {"target_modules": "all-linear", "exclude_modules": r".*\.mlp\..*"}, paths(ALL[:4])),
        ("llama", {"target_modules": ["q_proj"], "layers_to_transform": 2}, paths(QKV[:1], (2,))),
        # As in PEFT, numbers do not count for a path that is given whole.
        (
            "llama",
            {"target_modules": ["q_proj", "lm_head"], "layers_to_transform": [0, 2]},
            [*paths(QKV[:1], (0, 2)), "lm_head"],
        ),
        (
            "llama",
            {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["h", "layers"]},
            paths(QKV[:1], (1,)),
        ),
        # Under the checkpoint's names.
        ("qwen", {"target_modules": ["c_attn", "w1"]}, paths([*QKV, "mlp.up_proj"])),
        ("qwen", {"target_modules": ["c_proj", "w2"]}, paths(["self_attn.o_proj", "mlp.gate_proj", "mlp.down_proj"])),
        ("qwen", {"target_modules": ["attn.c_proj"]}, paths(["self_attn.o_proj"])),
        ("qwen", {"target_modules": r"transformer\.h\.1\.mlp\.\w+"}, paths(MLP, (1,))),
        ("qwen", {"target_modules": ["w1"], "layers_to_transform": 0, "layers_pattern": "h"}, paths(MLP[1:2], (0,))),
        ("baichuan", {"target_modules": ["W_pack"]}, paths(QKV)),
        ("baichuan", {"target_modules": ["q_proj", "v_proj"]}, paths([QKV[0], QKV[2]])),
    ],
    ids=str,
)
def test_layers_that_are_meant_are_chosen(family: str, targets: dict[str, Any], expected: list[str]) -> None:
    assert chosen(family, **targets) == (expected, [])


@pytest.mark.parametrize(
    ("family", "names", "expected"),
    [
        ("llama", ["lm_head", "embed_tokens"], ["model.embed_tokens", "lm_head"]),
        ("llama", ["model.norm"], ["model.norm"]),
        # PEFT compares the end of the path, dot or no dot.
        ("llama", ["norm"], [*paths(["input_layernorm", "post_attention_layernorm"]), "model.norm"]),
        ("qwen", ["wte"], ["model.embed_tokens"]),
        # Tied weights are one parameter, whichever of its names is given.
        ("tied", ["embed_tokens"], ["model.embed_tokens"]),
        ("tied", ["lm_head", "embed_tokens"], ["model.embed_tokens"]),
        ("tied", ["lm_head"], ["model.embed_tokens"]),
    ],
    ids=str,
)
def test_modules_that_are_trained_whole(family: str, names: list[str], expected: list[str]) -> None:
    assert chosen(family, target_modules=["o_proj"], modules_to_save=names)[1] == expected


def test_a_module_that_is_trained_whole_has_no_adapter() -> None:
    layers, whole = chosen("llama", target_modules=["q_proj", "lm_head"], modules_to_save=["lm_head"])
    assert (layers, whole) == (paths(QKV[:1]), ["lm_head"])


@pytest.mark.parametrize(
    ("family", "targets", "words"),
    [
        (
            "llama",
            {"target_modules": "q_proj"},
            r"lora\.target_modules = 'q_proj' matches no layer: .* whole path",
        ),
        ("llama", {"target_modules": "(q"}, r"lora\.target_modules = \(q: not a regular expression"),
        ("llama", {"target_modules": ["c_attn"]}, r"no layer named c_attn: layers here: .*q_proj"),
        ("qwen", {"target_modules": ["query"]}, r"no layer named query: layers here: c_attn.*q_proj.*w2"),
        ("tied", {"target_modules": ["lm_head"]}, r"lora\.target_modules: no layer named lm_head"),
        (
            "llama",
            {"target_modules": ["q_proj"], "exclude_modules": ["o"]},
            r"exclude_modules: no layer named o:",
        ),
        (
            "llama",
            {"target_modules": ["q_proj"], "exclude_modules": "o"},
            r"exclude_modules = .o. matches no",
        ),
        (
            "llama",
            {"target_modules": ["q_proj"], "layers_to_transform": [1, 3, 7]},
            r"lora\.layers_to_transform: no layer 3, 7: the model has layers 0 to 2",
        ),
        ("llama", {"target_modules": ["q_proj"], "layers_to_transform": -1}, r"no layer -1"),
        ("llama", {"target_modules": ["q_proj"], "exclude_modules": ["q_proj"]}, r"= \[q_proj\]: .* leave none"),
        (
            "llama",
            {"target_modules": ["q_proj"], "layers_to_transform": 1, "layers_pattern": "h"},
            r"layers_pattern .* leave none",
        ),
        ("llama", {"target_modules": ["lm_head"], "modules_to_save": ["lm_head"]}, r"modules_to_save leave none"),
        (
            "llama",
            {"target_modules": ["q_proj"], "modules_to_save": ["head", "mlp"]},
            r"lora\.modules_to_save: no module named mlp: it may name embed_tokens, .*lm_head",
        ),
        ("llama", {"target_modules": ["q_proj"], "modules_to_save": [""]}, r"lora\.modules_to_save: no module named"),
        ("baichuan2", {"target_modules": ["lm_head"]}, r"the head of this model is normalized, it takes no adapter"),
    ],
    ids=str,
)
def test_what_fits_nothing_is_told(family: str, targets: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        chosen(family, **targets)


def test_ranks_and_alphas_of_patterns() -> None:
    model = empty("qwen")
    ranks = {r"h\.0\.attn\.c_attn": 2, "q_proj": 3, "c_attn": 4}
    alphas = {"w1": 9.0, r".*\.2\.mlp\.up_proj": 5.0}
    inject_lora(model, 8, 16.0, ["c_attn", "w1"], rank_pattern=ranks, alpha_pattern=alphas, use_rslora=True)
    found = {path.removeprefix("model.layers."): layer for path, layer in lora_layers(model)}
    # The first pattern that fits counts.
    assert [found[f"0.{name}"].r for name in QKV] == [2, 2, 2]
    assert [found[f"1.{name}"].r for name in QKV] == [3, 4, 4]
    assert found["2.mlp.up_proj"].r == 8
    assert {found[f"{layer}.mlp.up_proj"].alpha for layer in range(3)} == {9.0}
    assert found["1.self_attn.k_proj"].scaling == 16 / 2
    assert found["1.self_attn.k_proj"].lora_a.shape == (4, 32)


@pytest.mark.parametrize("option", ["rank_pattern", "alpha_pattern"])
def test_a_pattern_that_fits_no_adapted_layer_is_an_error(option: str) -> None:
    model = empty("llama")
    for pattern in ("k_proj", "proj", "layers.3.self_attn.q_proj"):
        with pytest.raises(UserError, match=rf"lora\.{option}: '{pattern}' fits no layer that has an adapter"):
            inject_lora(model, 8, 16.0, ["q_proj"], **{option: {"q_proj": 2, pattern: 4}})
    assert lora_layers(model) == []
