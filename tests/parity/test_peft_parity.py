"""Adapters both ways, with every option that is applied: PEFT loads ours, we load PEFT's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import safetensors.numpy
from mindspore import Tensor

from ms_medqa.models import load_model
from ms_medqa.models.loading import assign
from ms_medqa.peft import inject_lora, load_adapter, save_adapter, trainable_parameters

torch = pytest.importorskip("torch", reason="parity with PEFT needs PyTorch")
transformers = pytest.importorskip("transformers", reason="parity with PEFT needs transformers")
peft = pytest.importorskip("peft", reason="parity with PEFT needs PEFT")
pytestmark = [
    pytest.mark.parity,
    # Each model computes once, which is not worth compiling; the tests beside `peft` compile.
    pytest.mark.usefixtures("pynative_mode"),
    # PEFT warns of ties, of fan_in_fan_out and of its own future.
    pytest.mark.filterwarnings("ignore"),
]

ROWS = [np.random.default_rng(n).integers(0, decoders.VOCAB, length).tolist() for n, length in enumerate((12, 5, 9))]
# (ids, mask) of rows of unequal length, padded on either side.
BATCHES = [decoders.padded(ROWS, side, 12) for side in ("left", "right")]
TARGETS = ["q_proj", "v_proj", "down_proj"]
WHOLE = ["embed_tokens", "lm_head"]
TIED = {"tie_word_embeddings": True}
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0}
# Family, changes of its config, options of the adapter in PEFT's words.
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "names": ("Qwen2", {}, {"target_modules": TARGETS, "lora_dropout": 0.1}),
    "all-linear": ("Llama", {}, {"target_modules": "all-linear"}),
    "all-linear, tied": ("Qwen2", TIED, {"target_modules": "all-linear", "exclude_modules": ["mlp.up_proj"]}),
    "expression": ("Qwen3", {"head_dim": 16}, {"target_modules": r".*\.1\..*(q|o|gate)_proj"}),
    "window": ("Mistral", {"sliding_window": 4}, {"target_modules": TARGETS}),
    "llama 3": ("Llama", {"rope_scaling": decoders.LLAMA3}, {"target_modules": "all-linear"}),
    "dynamic": ("Llama", {"max_position_embeddings": 8, "rope_scaling": DYNAMIC}, {"target_modules": TARGETS}),
    "head": ("Mistral", {}, {"target_modules": ["o_proj", "lm_head"], "exclude_modules": r".*layers\.0\..*"}),
    "one layer": ("Llama", {}, {"target_modules": [*TARGETS, "lm_head"], "layers_to_transform": 1}),
    "layers": ("Llama", {}, {"target_modules": TARGETS, "layers_to_transform": [0], "layers_pattern": "layers"}),
    "patterns": (
        "Qwen2",
        {},
        {
            "target_modules": [*TARGETS, "k_proj"],
            "rank_pattern": {r"layers\.0\..*_proj": 2, "v_proj": 6, "q_proj": 3},
            "alpha_pattern": {"^model.layers.1.self_attn.q_proj": 5, "self_attn.(q|v)_proj": 9},
        },
    ),
    "rslora": ("Mistral", {}, {"target_modules": TARGETS, "use_rslora": True, "rank_pattern": {"v_proj": 2}}),
    "fan_in_fan_out": ("Llama", {}, {"target_modules": TARGETS, "fan_in_fan_out": True}),
    "whole": ("Qwen2", {}, {"target_modules": TARGETS, "modules_to_save": WHOLE}),
    "whole head": ("Llama", {}, {"target_modules": ["q_proj", "lm_head"], "modules_to_save": ["lm_head"]}),
    "whole norms": ("Qwen3", {"head_dim": 16}, {"target_modules": TARGETS, "modules_to_save": ["norm"]}),
    "whole, tied": ("Qwen2", TIED, {"target_modules": TARGETS, "modules_to_save": WHOLE, "ensure_weight_tying": True}),
}
# Trained apart, what the base ties has two sets of weights; it is loaded so, and never made here.
UNTIED: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    f"untied {' and '.join(names)}": ("Qwen2", TIED, {"target_modules": TARGETS, "modules_to_save": names})
    for names in (WHOLE, WHOLE[:1], WHOLE[1:])
}
TIED_HEAD = {"tied head": ("Qwen2", TIED, {"target_modules": ["q_proj", "lm_head"]})}


@pytest.fixture
def case(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of the base, and the adapter's options."""
    family, changes, options = {**CASES, **UNTIED, **TIED_HEAD}[request.param]
    decoders.write(tmp_path / "base", decoders.config_of(f"{family}ForCausalLM", **changes))
    return tmp_path / "base", {"r": 4, "lora_alpha": 12, "task_type": "CAUSAL_LM", **options}


def torch_base(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def torch_logits(model: Any) -> np.ndarray:
    """(tokens, vocabulary): of both batches, padding left out."""
    found = []
    for ids, mask in BATCHES:
        places = torch.tensor(np.maximum(mask.cumsum(1) - 1, 0))
        with torch.no_grad():
            out = model(torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long(), position_ids=places)
        found.append(out.logits.numpy()[mask == 1])
    return np.concatenate(found)


def logits(model: Any) -> np.ndarray:
    """The same of one of ours."""
    return np.concatenate([model(Tensor(ids), Tensor(mask)).asnumpy()[mask == 1] for ids, mask in BATCHES])


def make_theirs(base: Path, options: dict[str, Any], folder: Path) -> Any:
    """An adapter that PEFT wrote, every trained number moved; returns PEFT's model."""
    torch.manual_seed(1)
    model = peft.get_peft_model(torch_base(base), peft.LoraConfig(**options)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    return model


def make_ours(base: Path, options: dict[str, Any], folder: Path) -> Any:
    """The same options here; returns our model."""
    ours = {name: value for name, value in options.items() if name not in ("lora_alpha", "task_type", "lora_dropout")}
    for name in ("ensure_weight_tying", "fan_in_fan_out"):
        ours.pop(name, None)
    model = load_model(base)
    inject_lora(model, alpha=options["lora_alpha"], dropout=options.get("lora_dropout", 0.0), seed=2, **ours)
    rng = np.random.default_rng(3)
    for parameter in trainable_parameters(model):
        assign(parameter, parameter.asnumpy() + rng.normal(0, 0.1, parameter.shape).astype(np.float32))
    save_adapter(model, folder, str(base))
    return model


def shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Of the file's tensors, without the base's own weights that PEFT adds below an adapter on the head."""
    tensors = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
    return {name: value.shape for name, value in tensors.items() if ".base_layer." not in name}


@pytest.mark.parametrize("case", [*CASES, *UNTIED], indirect=True)
def test_we_load_what_peft_wrote(case: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    base, options = case
    theirs = make_theirs(base, options, tmp_path / "theirs")
    expected = torch_logits(theirs)
    assert np.abs(expected - torch_logits(torch_base(base))).max() > 0.05
    apart = load_model(base)
    load_adapter(apart, tmp_path / "theirs", merge=False)
    np.testing.assert_allclose(logits(apart), expected, atol=1e-4, rtol=0)
    merged = load_model(base)
    load_adapter(merged, tmp_path / "theirs")
    weights = {name: value.detach().numpy() for name, value in theirs.merge_and_unload().named_parameters()}
    assert {parameter.name for parameter in merged.get_parameters()} == set(weights)
    for parameter in merged.get_parameters():
        np.testing.assert_allclose(parameter.asnumpy(), weights[parameter.name], atol=1e-6, err_msg=parameter.name)


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("case", TIED_HEAD, indirect=True)
def test_an_adapter_on_a_tied_head_leaves_the_embedding_alone(
    case: tuple[Path, dict[str, Any]], tmp_path: Path, merged: bool
) -> None:
    base, options = case
    # PEFT's own merge would add the update to the shared weight, so its model is taken unmerged.
    expected = torch_logits(make_theirs(base, options, tmp_path / "theirs"))
    model = load_model(base)
    load_adapter(model, tmp_path / "theirs", merge=merged)
    np.testing.assert_allclose(logits(model), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", CASES, indirect=True)
def test_peft_loads_what_we_wrote(case: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    base, options = case
    ours = make_ours(base, options, tmp_path / "ours")
    loaded = peft.PeftModel.from_pretrained(torch_base(base), tmp_path / "ours").eval()
    expected = torch_logits(loaded)
    assert np.abs(expected - torch_logits(torch_base(base))).max() > 0.05
    np.testing.assert_allclose(logits(ours), expected, atol=1e-4, rtol=0)
    np.testing.assert_allclose(torch_logits(loaded.merge_and_unload()), expected, atol=1e-4, rtol=0)
    # The same options mean the same tensors.
    make_theirs(base, options, tmp_path / "theirs")
    assert shapes(tmp_path / "ours") == shapes(tmp_path / "theirs")


@pytest.mark.parametrize("case", ["names"], indirect=True)
def test_our_config_is_the_one_that_peft_writes(case: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    base, options = case
    make_theirs(base, options, tmp_path / "theirs")
    make_ours(base, options, tmp_path / "ours")
    ours, theirs = (
        json.loads((tmp_path / name / "adapter_config.json").read_text(encoding="utf-8")) for name in ("ours", "theirs")
    )
    for config in (ours, theirs):
        config["target_modules"] = sorted(config["target_modules"])
    assert {name: theirs[name] for name in ours} == ours
