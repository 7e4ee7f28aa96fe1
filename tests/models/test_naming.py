"""The names of weights: where each lies in a checkpoint, what a family needs to be added, faults in its own words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
from mindspore import Tensor

from ms_medqa.config import UserError
from ms_medqa.models import families, load_model
from ms_medqa.models.checkpoint import load_config
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.families.base import Family
from ms_medqa.models.loading import naming_of
from ms_medqa.models.naming import Naming, Place, naming_of_config
from ms_medqa.models.safetensors import SafetensorsFile
from ms_medqa.models.saving import write_weights

pytestmark = pytest.mark.usefixtures("pynative_mode")

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": decoders.config_of("LlamaForCausalLM", attention_bias=True, mlp_bias=True),
    "mistral": decoders.config_of("MistralForCausalLM", sliding_window=None),
    "qwen2": decoders.config_of(tie_word_embeddings=True),
    "qwen3": decoders.config_of("Qwen3ForCausalLM", head_dim=12),
    "qwen": decoders.qwen_config(no_bias=False),
    "baichuan": decoders.baichuan_config("7B"),
    "baichuan with alibi": decoders.baichuan_config("13B", num_attention_heads=2),
}
IDS = [5, 9, 2, 33, 60, 61, 7]

# Names of a family that nobody has released.
RENAMED = {
    "model.embed_tokens": "decoder.words",
    "model.norm": "decoder.last_norm",
    "lm_head": "output",
    "model.layers.{}.input_layernorm": "decoder.{}.norm1",
    "model.layers.{}.self_attn.o_proj": "decoder.{}.attention.out",
    "model.layers.{}.mlp.down_proj": "decoder.{}.mlp.down",
}
FUSED = {
    "decoder.{}.attention.kvq": tuple(f"model.layers.{{}}.self_attn.{name}_proj" for name in "kvq"),
    "decoder.{}.mlp.gate_up": ("model.layers.{}.mlp.gate_proj", "model.layers.{}.mlp.up_proj"),
}


def naming(folder: Path, config: dict[str, Any]) -> Naming:
    decoders.write(folder, config)
    return naming_of(CausalLM(load_config(folder)))


def load_config_of(folder: Path, config: dict[str, Any]) -> ModelConfig:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return load_config(folder)


@pytest.mark.parametrize("name", CONFIGS)
class TestEachFamily:
    """All of a checkpoint is named, and every row belongs to one parameter."""

    def test_its_tensors_are_those_of_the_checkpoint(self, name: str, tmp_path: Path) -> None:
        found = naming(tmp_path, CONFIGS[name])
        assert {tensor: found.shape(tensor) for tensor in found.contents} == decoders.tensor_shapes(CONFIGS[name])

    def test_parameters_are_the_rows_of_their_places(self, name: str, tmp_path: Path) -> None:
        found = naming(tmp_path, CONFIGS[name])
        weights = decoders.random_weights(CONFIGS[name])
        parameters = {p.name: p.asnumpy() for p in load_model(tmp_path).get_parameters()}
        assert parameters.keys() == found.places.keys()
        for parameter, place in found.places.items():
            rows = weights[place.name][place.start : place.stop]
            assert np.array_equal(parameters[parameter], rows), parameter
            assert place.rows == len(weights[place.name])
            assert place.whole == (len(rows) == place.rows)
        for tensor, members in found.contents.items():
            assert np.array_equal(np.concatenate([parameters[member] for member in members]), weights[tensor])

    def test_saved_weights_are_the_checkpoint_again(self, name: str, tmp_path: Path) -> None:
        weights = decoders.write(tmp_path / "model", CONFIGS[name])
        write_weights(load_model(tmp_path / "model"), tmp_path / "saved.safetensors")
        saved = SafetensorsFile(tmp_path / "saved.safetensors")
        assert {*saved.keys()} == weights.keys()
        for tensor, value in weights.items():
            assert np.array_equal(saved.read(tensor), value), tensor


MORE = {
    "qwen3 with biases": decoders.config_of("Qwen3ForCausalLM", attention_bias=True, num_key_value_heads=1),
    "baichuan 2": decoders.baichuan_config("2-7B"),
    "llama with a head_dim": decoders.config_of("LlamaForCausalLM", head_dim=6, num_hidden_layers=11),
}


@pytest.mark.parametrize("config", (CONFIGS | MORE).values(), ids=[*CONFIGS, *MORE])
def test_names_follow_from_the_config_alone(config: dict[str, Any], tmp_path: Path) -> None:
    assert {load_config_of(tmp_path / name, other).family for name, other in CONFIGS.items()} == {*families.REGISTRY}
    shape = load_config_of(tmp_path, config)
    built, alone = naming_of(CausalLM(shape)), naming_of_config(shape)
    assert list(alone.shapes.items()) == list(built.shapes.items())
    assert (alone.places, alone.contents) == (built.places, built.contents)


class TestModules:
    """Paths of modules, which adapters are named by."""

    def test_of_a_fused_family(self, tmp_path: Path) -> None:
        found = naming(tmp_path, decoders.qwen_config(num_hidden_layers=11))
        ours = [f"model.layers.10.self_attn.{name}_proj" for name in "qkv"]
        assert [found.module(path) for path in ours] == ["transformer.h.10.attn.c_attn"] * 3
        assert found.modules("transformer.h.10.attn.c_attn") == ours
        assert [found.places[f"{path}.bias"].start for path in ours] == [0, 32, 64]
        assert found.places[f"{ours[1]}.weight"] == Place("transformer.h.10.attn.c_attn.weight", 32, 64, 96)
        for path, theirs in (
            ("model.embed_tokens", "transformer.wte"),
            ("model.norm", "transformer.ln_f"),
            ("lm_head", "lm_head"),
            ("model.layers.1.input_layernorm", "transformer.h.1.ln_1"),
            ("model.layers.1.post_attention_layernorm", "transformer.h.1.ln_2"),
            ("model.layers.10.self_attn.o_proj", "transformer.h.10.attn.c_proj"),
            ("model.layers.10.mlp.gate_proj", "transformer.h.10.mlp.w2"),
            ("model.layers.10.mlp.up_proj", "transformer.h.10.mlp.w1"),
            ("model.layers.10.mlp.down_proj", "transformer.h.10.mlp.c_proj"),
        ):
            assert found.module(path) == theirs
            assert found.modules(theirs) == [path]

    def test_of_baichuan(self, tmp_path: Path) -> None:
        found = naming(tmp_path, decoders.baichuan_config("2-13B"))
        ours = [f"model.layers.1.self_attn.{name}_proj" for name in "qkv"]
        assert found.modules("model.layers.1.self_attn.W_pack") == ours
        assert found.module(ours[2]) == "model.layers.1.self_attn.W_pack"
        assert found.module("model.layers.1.mlp.gate_proj") == "model.layers.1.mlp.gate_proj"

    @pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3", "mistral"])
    def test_of_the_others_are_their_own(self, name: str, tmp_path: Path) -> None:
        found = naming(tmp_path, CONFIGS[name])
        for parameter in found.places:
            path = parameter.rpartition(".")[0]
            assert found.module(path) == path
            assert found.modules(path) == [path]

    def test_another_models_module_is_none_of_this(self, tmp_path: Path) -> None:
        found = naming(tmp_path, decoders.qwen_config())
        for path in ("model.layers.0.self_attn.q_proj", "transformer.h.2.attn.c_attn", "transformer.h.0.attn", ""):
            assert found.modules(path) == []


class TestFaults:
    """Weights that do not fit are called what the checkpoint calls them."""

    def message(self, folder: Path, config: dict[str, Any], weights: decoders.Weights) -> str:
        decoders.write(folder, config, weights)
        with pytest.raises(UserError) as error:
            load_model(folder)
        assert str(folder) in str(error.value)
        assert "\n" not in str(error.value)
        return str(error.value)

    def test_qwen(self, tmp_path: Path) -> None:
        config = decoders.qwen_config()
        weights = decoders.random_weights(config)
        del weights["transformer.h.1.attn.c_attn.bias"]
        weights["model.layers.0.self_attn.q_proj.weight"] = np.zeros((32, 32), np.float32)
        weights["transformer.h.0.mlp.w2.weight"] = np.zeros((47, 32), np.float32)
        text = self.message(tmp_path, config, weights)
        assert text.count("missing transformer.h.1.attn.c_attn.bias") == 1
        assert "unexpected model.layers.0.self_attn.q_proj.weight" in text
        assert "transformer.h.0.mlp.w2.weight has shape (47, 32), expected (48, 32)" in text
        assert "k_proj" not in text

    def test_baichuan(self, tmp_path: Path) -> None:
        config = decoders.baichuan_config("13B")
        weights = decoders.random_weights(config)
        weights["model.layers.1.self_attn.W_pack.weight"] = np.zeros((64, 32), np.float32)
        del weights["model.layers.0.self_attn.W_pack.weight"]
        text = self.message(tmp_path, config, weights)
        assert "missing model.layers.0.self_attn.W_pack.weight" in text
        assert "model.layers.1.self_attn.W_pack.weight has shape (64, 32), expected (96, 32)" in text
        assert text.count("W_pack") == 2


class TestNewFamily:
    """A family with names of its own and two fused modules, rows of unequal number: one `Family` is all it takes."""

    @pytest.fixture
    def made(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], decoders.Weights]:
        """Qwen2's config with its weights; the folder holds them in the new family's names."""
        qwen2 = families.REGISTRY["qwen2"]

        def read_config(raw: Any) -> Any:
            return replace(qwen2.read_config(raw), family="novel")

        family = Family("novel", ("NovelLM",), read_config, renamed=RENAMED, fused=FUSED)
        monkeypatch.setitem(families.REGISTRY, "novel", family)
        monkeypatch.setitem(families.ARCHITECTURES, "NovelLM", family)
        config = decoders.config_of(num_attention_heads=4, num_key_value_heads=1, num_hidden_layers=2)
        weights = decoders.random_weights(config)
        theirs = dict(weights)
        for layer in range(2):
            ours = f"model.layers.{layer}."
            for name, parts in (
                ("attention.kvq", [f"self_attn.{part}_proj" for part in "kvq"]),
                ("mlp.gate_up", ["mlp.gate_proj", "mlp.up_proj"]),
            ):
                for leaf in ("weight", "bias"):
                    if f"{ours}{parts[0]}.{leaf}" in theirs:
                        stacked = [theirs.pop(f"{ours}{part}.{leaf}") for part in parts]
                        theirs[f"decoder.{layer}.{name}.{leaf}"] = np.concatenate(stacked)
            for path, new in RENAMED.items():
                name = f"{path}.weight".format(layer)
                if name in theirs:
                    theirs[f"{new}.weight".format(layer)] = theirs.pop(name)
        decoders.write(tmp_path, config | {"architectures": ["NovelLM"]}, theirs)
        return config, weights

    def test_it_loads_and_computes(self, made: tuple[dict[str, Any], decoders.Weights], tmp_path: Path) -> None:
        config, weights = made
        model = load_model(tmp_path)
        out = model(Tensor(np.array([IDS], np.int32))).asnumpy()[0]
        np.testing.assert_allclose(out, decoders.logits(weights, config, IDS), atol=2e-5)
        found = naming_of(model)
        place = found.places["model.layers.1.self_attn.q_proj.weight"]
        assert place == Place("decoder.1.attention.kvq.weight", 16, 48, 48)
        assert found.places["model.layers.0.self_attn.v_proj.bias"] == Place("decoder.0.attention.kvq.bias", 8, 16, 48)
        # The norm that nothing renames keeps its name.
        assert found.module("model.layers.1.post_attention_layernorm") == "model.layers.1.post_attention_layernorm"

    @pytest.mark.usefixtures("made")
    def test_modules_are_in_the_order_of_their_rows(self, tmp_path: Path) -> None:
        found = naming_of(CausalLM(load_config(tmp_path)))
        for module, names in (("attention.kvq", ["k", "v", "q"]), ("mlp.gate_up", ["gate", "up"])):
            parts = [path.split(".")[-1].removesuffix("_proj") for path in found.modules(f"decoder.1.{module}")]
            assert parts == names

    @pytest.mark.usefixtures("made")
    def test_it_is_saved_in_its_own_names(self, tmp_path: Path) -> None:
        before, path = SafetensorsFile(tmp_path / "model.safetensors"), tmp_path / "saved.safetensors"
        write_weights(load_model(tmp_path), path)
        after = SafetensorsFile(path)
        assert {*after.keys()} == {*before.keys()}
        for name in before.keys():  # noqa: SIM118
            assert np.array_equal(after.read(name), before.read(name)), name

    @pytest.mark.usefixtures("made")
    def test_errors_list_it(self, tmp_path: Path) -> None:
        decoders.write(tmp_path, decoders.config_of(architectures=["OtherLM"]))
        with pytest.raises(UserError, match=r"supported: .*NovelLM"):
            load_model(tmp_path)
