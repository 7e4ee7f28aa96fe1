"""Exported folders: what is in them, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import decoders
import mindspore as ms
import numpy as np
import pytest
import safetensors.numpy
from exports import QKV, contents, tensors_of, write_adapter
from mindspore import Tensor

from ms_medqa.config import UserError
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.models import CausalLM, load_model
from ms_medqa.models.checkpoint import load_config
from ms_medqa.models.fingerprint import base_fingerprint
from ms_medqa.models.safetensors import SafetensorsFile
from ms_medqa.models.safetensors_writer import encode
from ms_medqa.peft import load_adapter
from ms_medqa.peft.export import export
from ms_medqa.peft.export_summary import summary

# As the command runs it: a model that computes once is not worth compiling.
pytestmark = pytest.mark.usefixtures("pynative_mode")

IDS = Tensor(np.random.default_rng(0).integers(0, decoders.VOCAB, (2, 12)).astype(np.int32))
PACKED = ["model.layers.1.self_attn.W_pack", "model.layers.0.mlp.down_proj"]
FUSED = ["transformer.h.0.attn.c_attn", "transformer.h.1.mlp.c_proj"]


class TestMerging:
    """Changed tensors are exact, all others keep their bytes."""

    @pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16"])
    @pytest.mark.parametrize(
        ("config", "modules"),
        [
            (decoders.config_of("Qwen2ForCausalLM", tie_word_embeddings=True), QKV),
            (decoders.baichuan_config("2-13B"), PACKED),
            (decoders.qwen_config(), FUSED),
        ],
        ids=["tied", "W_pack", "c_attn"],
    )
    def test_weights(self, tmp_path: Path, config: dict[str, Any], modules: list[str], stored: str) -> None:
        weights = decoders.write(tmp_path / "base", config)
        (tmp_path / "base" / "model.safetensors").write_bytes(decoders.serialize(weights, stored))
        added = write_adapter(tmp_path / "adapter", config, modules)
        result = export(tmp_path / "base", tmp_path / "adapter", tmp_path / "out")
        before, after = tensors_of(tmp_path / "base"), tensors_of(tmp_path / "out")
        assert list(after) == list(before)
        assert (result.changed, result.copied) == (len(modules), len(before) - len(modules))
        file, steps = SafetensorsFile(tmp_path / "out" / "model.safetensors"), {"float32": 2**-22, "float16": 2**-11}
        old = SafetensorsFile(tmp_path / "base" / "model.safetensors")
        for name in before:
            if name not in added:
                assert after[name] == before[name], name
                continue
            assert after[name][0] == before[name][0]
            expected = old.read(name).astype(np.float64) + added[name]
            np.testing.assert_allclose(file.read(name), expected, rtol=steps.get(stored, 2**-8), atol=1e-6)
            assert np.abs(added[name]).max() > 0.5

    @pytest.mark.parametrize(
        "config", [decoders.qwen_config(), decoders.baichuan_config("2-7B")], ids=["c_attn", "head"]
    )
    def test_logits_are_those_of_the_unmerged_model(self, tmp_path: Path, config: dict[str, Any]) -> None:
        decoders.write(tmp_path / "base", config)
        write_adapter(tmp_path / "adapter", config, FUSED if "seq_length" in config else PACKED, scale=0.1)
        model = load_model(tmp_path / "base")
        plain = model(IDS).asnumpy()
        load_adapter(model, tmp_path / "adapter", merge=False)
        expected = model(IDS).asnumpy()
        result = export(tmp_path / "base", tmp_path / "adapter", tmp_path / "out", max_shard_size="20KB", check=True)
        assert result.comparison is not None
        assert result.comparison.ok
        np.testing.assert_allclose(load_model(tmp_path / "out")(IDS).asnumpy(), expected, atol=2e-5, rtol=1e-5)
        assert np.abs(expected - plain).max() > 0.05

    def test_a_head_of_its_own_is_untied(self, tmp_path: Path) -> None:
        config = decoders.config_of(tie_word_embeddings=True)
        weights = decoders.write(tmp_path / "base", config)
        # The copy of the head that some files carry.
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        decoders.write(tmp_path / "base", config, weights)
        write_adapter(tmp_path / "adapter", config, QKV, modules_to_save=["embed_tokens"])
        path = tmp_path / "adapter" / "adapter_model.safetensors"
        saved, name = safetensors.numpy.load_file(path), "base_model.model.model.embed_tokens.weight"
        saved[name] = weights["model.embed_tokens.weight"] + 1
        safetensors.numpy.save_file(saved, path, metadata={"format": "pt"})
        result = export(tmp_path / "base", tmp_path / "adapter", tmp_path / "out", check=True)
        assert result.comparison is not None
        assert result.comparison.ok
        merged = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
        assert np.array_equal(merged["model.embed_tokens.weight"], weights["model.embed_tokens.weight"] + 1)
        assert np.array_equal(merged["lm_head.weight"], weights["model.embed_tokens.weight"])
        assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))["tie_word_embeddings"] is False

    @pytest.mark.parametrize("format", ["hf", "ckpt"])
    def test_a_head_that_the_config_wrongly_ties(self, tmp_path: Path, format: str) -> None:
        config = decoders.config_of(tie_word_embeddings=True)
        weights = decoders.write(tmp_path / "base", config)
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"][::-1].copy()
        decoders.write(tmp_path / "base", config, weights)
        write_adapter(tmp_path / "adapter", config, QKV, scale=0.1)
        for adapter in (None, tmp_path / "adapter"):
            result = export(tmp_path / "base", adapter, tmp_path / "out", format=format, check=True)
            assert result.comparison is not None
            assert result.comparison.ok
            assert "lm_head.weight differs from model.embed_tokens.weight" in result.notes[0]
            assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))["tie_word_embeddings"] is False
        if format == "hf":
            merged = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
            assert np.array_equal(merged["lm_head.weight"], weights["lm_head.weight"])

    def test_an_equal_copy_of_a_tied_head_is_left_out(self, tmp_path: Path) -> None:
        config = decoders.config_of(tie_word_embeddings=True)
        weights = decoders.write(tmp_path / "base", config)
        decoders.write(tmp_path / "base", config, {**weights, "lm_head.weight": weights["model.embed_tokens.weight"]})
        result = export(tmp_path / "base", None, tmp_path / "out")
        assert (result.left_out, result.notes) == (["lm_head.weight"], ())
        assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))["tie_word_embeddings"] is True

    def test_no_model_is_built(
        self, base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (adapter / "base.json").write_text(json.dumps({"fingerprint": base_fingerprint(base), "model": "llama"}))

        def build(*args: Any) -> None:
            raise AssertionError("a model was built")

        monkeypatch.setattr(CausalLM, "__init__", build)
        export(base, adapter, tmp_path / "out")

    def test_tensors_that_follow_from_others_are_left_out(self, base: Path, adapter: Path, tmp_path: Path) -> None:
        result = export(base, adapter, tmp_path / "out")
        assert result.left_out == ["model.layers.0.self_attn.rotary_emb.inv_freq"]
        assert not any("inv_freq" in name for name in tensors_of(tmp_path / "out"))
        assert any("inv_freq" in line for line in summary(result))

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_another_type(self, base: Path, tmp_path: Path, dtype: str) -> None:
        weights = decoders.random_weights(decoders.config_of("LlamaForCausalLM"))
        (base / "model.safetensors").write_bytes(decoders.serialize(weights, "float32"))
        result = export(base, None, tmp_path / "out", dtype=dtype)
        for name, (_, data) in tensors_of(tmp_path / "out").items():
            assert data == encode(weights[name], dtype).tobytes(), name
        assert (result.copied == result.total) == (dtype == "float32")
        assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))["torch_dtype"] == dtype

    def test_numbers_that_float16_cannot_hold(self, base: Path, tmp_path: Path) -> None:
        weights = decoders.random_weights(decoders.config_of("LlamaForCausalLM"))
        weights["model.layers.1.mlp.up_proj.weight"][3, 3] = -70000
        (base / "model.safetensors").write_bytes(decoders.serialize(weights, "float32"))
        with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds 7e\+04.*--dtype bfloat16"):
            export(base, None, tmp_path / "out", dtype="float16")
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
    def test_a_broken_base(self, base: Path, tmp_path: Path, value: float, dtype: str) -> None:
        weights = decoders.random_weights(decoders.config_of("LlamaForCausalLM"))
        weights["model.layers.1.mlp.up_proj.weight"][3, 3] = value
        (base / "model.safetensors").write_bytes(decoders.serialize(weights, "float32"))
        with pytest.raises(UserError, match=r"model\.layers\.1\.mlp\.up_proj\.weight holds NaN or infinity: the base"):
            export(base, None, tmp_path / "out", dtype=dtype)
        # What is not converted keeps its bytes.
        export(base, None, tmp_path / "out")

    def test_numbers_that_bfloat16_cannot_hold(self, base: Path, tmp_path: Path) -> None:
        weights = decoders.random_weights(decoders.config_of("LlamaForCausalLM"))
        largest = np.uint32(0x7F7F7FFF).view(np.float32)
        weights["model.norm.weight"][3] = largest
        (base / "model.safetensors").write_bytes(decoders.serialize(weights, "float32"))
        export(base, None, tmp_path / "out", dtype="bfloat16")
        weights["model.norm.weight"][3] = np.nextafter(largest, np.float32(np.inf))
        (base / "model.safetensors").write_bytes(decoders.serialize(weights, "float32"))
        with pytest.raises(UserError, match=r"norm\.weight holds 3\.4e\+38, which bfloat16 cannot.*--dtype float32"):
            export(base, None, tmp_path / "out", dtype="bfloat16")

    def test_a_broken_adapter(self, base: Path, adapter: Path, tmp_path: Path) -> None:
        path, name = adapter / "adapter_model.safetensors", "base_model.model.model.embed_tokens.weight"
        whole = np.full((decoders.VOCAB, 32), np.nan, np.float32)
        safetensors.numpy.save_file(safetensors.numpy.load_file(path) | {name: whole}, path)
        with pytest.raises(UserError, match="with the adapter in it, it holds NaN or infinity"):
            export(base, adapter, tmp_path / "out")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "base"]


class TestRefusals:
    """Merging what does not belong together."""

    def test_other_shapes(self, base: Path, tmp_path: Path) -> None:
        write_adapter(tmp_path / "wide", decoders.config_of("LlamaForCausalLM", hidden_size=64), QKV)
        with pytest.raises(UserError) as error:
            export(base, tmp_path / "wide", tmp_path / "out")
        text = str(error.value)
        assert "model.layers.0.self_attn.q_proj" in text
        assert "(64, 64)" in text
        assert "(32, 32)" in text
        assert not (tmp_path / "out").exists()

    def test_another_base(self, base: Path, adapter: Path, tmp_path: Path) -> None:
        note = {"fingerprint": base_fingerprint(base), "model": "llama"}
        (adapter / "base.json").write_text(json.dumps(note), encoding="utf-8")
        export(base, adapter, tmp_path / "out")
        weights = decoders.random_weights(decoders.config_of("LlamaForCausalLM"), seed=5)
        (base / "model.safetensors").write_bytes(decoders.serialize(weights, "bfloat16"))
        with pytest.raises(UserError, match="was trained on llama"):
            export(base, adapter, tmp_path / "other")
        assert not (tmp_path / "other").exists()

    @pytest.mark.parametrize("name", ["base", "base/merged", "adapter", "."])
    def test_an_output_that_is_read(self, base: Path, adapter: Path, tmp_path: Path, name: str) -> None:
        before = contents(base)
        with pytest.raises(UserError, match="overlaps"):
            export(base, adapter, tmp_path / name)
        assert contents(base) == before

    def test_an_output_where_linked_shards_lie(self, base: Path, tmp_path: Path) -> None:
        export(base, None, tmp_path / "store")
        (tmp_path / "linked").mkdir()
        for path in (tmp_path / "store").iterdir():
            if path.name != "export.json":
                (tmp_path / "linked" / path.name).symlink_to(path)
        before = contents(tmp_path / "store")
        with pytest.raises(UserError, match="overlaps"):
            export(tmp_path / "linked", None, tmp_path / "store")
        assert contents(tmp_path / "store") == before
        export(tmp_path / "linked", None, tmp_path / "store" / "merged")


class TestCompanions:
    """Config, tokenizer, prompt; never code."""

    def test_files(self, base: Path, adapter: Path, tmp_path: Path, tiny_tokenizer_folder: Path) -> None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tiny_tokenizer_folder / name, adapter / name)
        Prompt.named("plain", Tokenizer.load(adapter)).save(adapter)
        (base / "tokenizer.json").write_text("{}")
        for name in ("tokenizer.model", "generation_config.json", "README.md", "LICENSE", "modeling_x.py"):
            (base / name).write_text("{}")
        export(base, adapter, tmp_path / "out")
        found = contents(tmp_path / "out")
        assert sorted(found) == [
            "chat_template.jinja",
            "config.json",
            "export.json",
            "generation_config.json",
            "model.safetensors",
            "prompt.json",
            "tokenizer.json",
            "tokenizer.model",
            "tokenizer_config.json",
        ]
        assert found["tokenizer.json"] == (tiny_tokenizer_folder / "tokenizer.json").read_bytes()
        assert found["prompt.json"] == (adapter / "prompt.json").read_bytes()
        assert found["config.json"] == (base / "config.json").read_bytes()

    def test_code_that_transformers_does_not_need(self, base: Path, tmp_path: Path) -> None:
        raw = json.loads((base / "config.json").read_text("utf-8"))
        auto_map = {"AutoModelForCausalLM": "modeling_x.Model"}
        (base / "config.json").write_text(json.dumps(raw | {"auto_map": auto_map}))
        (base / "modeling_x.py").write_text("")
        result = export(base, None, tmp_path / "out")
        assert json.loads((tmp_path / "out" / "config.json").read_text("utf-8")) == raw
        assert not any("not copied" in line for line in summary(result))

    @pytest.mark.parametrize("there", [True, False])
    def test_code_that_transformers_needs(self, tmp_path: Path, there: bool) -> None:
        base, config = tmp_path / "base", decoders.qwen_config(torch_dtype="float32")
        decoders.write(base, config)
        settings = {"auto_map": {"AutoTokenizer": ["tokenization_qwen.QWenTokenizer", None]}, "model_max_length": 8192}
        (base / "tokenizer_config.json").write_text(json.dumps(settings))
        (base / "qwen.tiktoken").write_text("")
        code = ["modeling_qwen.py", "qwen_generation_utils.py", "tokenization_qwen.py"]
        for name in code if there else ():
            (base / name).write_text("raise SystemExit('code was run')")
        lines = summary(export(base, None, tmp_path / "out"))
        raw, tokenizer = (
            json.loads((tmp_path / "out" / name).read_text("utf-8"))
            for name in ("config.json", "tokenizer_config.json")
        )
        assert not list((tmp_path / "out").glob("*.py"))
        assert ("auto_map" in raw, "auto_map" in tokenizer) == (there, there)
        assert tokenizer["model_max_length"] == 8192
        assert any("--trust-remote-code" in line for line in lines)
        if there:
            assert any(", ".join(code) in line for line in lines)
            assert f"  cp {base}/*.py {tmp_path / 'out'}/" in lines
        else:
            assert any("does not have it" in line for line in lines)


class TestCheckpoint:
    """`--format ckpt`: what MindSpore's own functions load."""

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_load_param_into_net(self, base: Path, adapter: Path, tmp_path: Path, dtype: str) -> None:
        export(base, adapter, tmp_path / "hf", dtype=dtype)
        export(base, adapter, tmp_path / "out", format="ckpt", dtype=dtype)
        assert sorted(contents(tmp_path / "out")) == ["config.json", "export.json", "model.ckpt"]
        parameters = ms.load_checkpoint(str(tmp_path / "out" / "model.ckpt"))
        assert {str(value.dtype).lower() for value in parameters.values()} == {dtype}
        model = CausalLM(load_config(tmp_path / "out"))
        assert ms.load_param_into_net(model, parameters) == ([], [])
        assert np.array_equal(model(IDS).asnumpy(), load_model(tmp_path / "hf")(IDS).asnumpy())

    @pytest.mark.parametrize(
        "config", [decoders.qwen_config(), decoders.baichuan_config("2-7B")], ids=["c_attn", "normalized head"]
    )
    def test_families_with_other_names(self, tmp_path: Path, config: dict[str, Any]) -> None:
        decoders.write(tmp_path / "base", config)
        export(tmp_path / "base", None, tmp_path / "out", format="ckpt")
        model = CausalLM(load_config(tmp_path / "out"))
        # As in a training with adapters, whose head is frozen.
        for parameter in model.get_parameters():
            parameter.requires_grad = False
        assert ms.load_param_into_net(model, ms.load_checkpoint(str(tmp_path / "out" / "model.ckpt"))) == ([], [])
        expected = load_model(tmp_path / "base")(IDS).asnumpy()
        np.testing.assert_allclose(model(IDS).asnumpy(), expected, atol=1e-5, rtol=1e-5)


class TestCheck:
    """`--check` tells rounding from a wrong merge."""

    @pytest.mark.parametrize(
        ("format", "dtype"), [("hf", "auto"), ("hf", "float16"), ("ckpt", "auto"), ("ckpt", "float32")]
    )
    def test_a_right_export(self, base: Path, adapter: Path, tmp_path: Path, format: str, dtype: str) -> None:
        found = export(base, adapter, tmp_path / "out", format=format, dtype=dtype, check=True).comparison
        assert found is not None
        assert found.ok
        assert 0 < found.difference <= found.bound < found.largest

    def test_copies_are_exact(self, base: Path, tmp_path: Path) -> None:
        found = export(base, None, tmp_path / "out", check=True).comparison
        assert found is not None
        assert found.ok
        assert found.difference == 0
        assert "no weight was rounded" in found.lines()[1]

    def test_zeros_are_not_rounded(self, tmp_path: Path) -> None:
        config = decoders.config_of("Qwen2ForCausalLM")
        weights = decoders.random_weights(config)
        for name, value in weights.items():
            if name.endswith("bias") or "embed" in name or "head" in name:
                value[-40:] = 0
        decoders.write(tmp_path / "base", config, weights)
        found = export(tmp_path / "base", None, tmp_path / "out", dtype="bfloat16", check=True).comparison
        assert found is not None
        # Were they moved, as numbers near one are, the bound would be larger than any logit.
        assert found.difference <= found.bound < 0.1 * found.largest

    def test_a_tokenizer_of_another_model(self, base: Path, tmp_path: Path, tiny_tokenizer_folder: Path) -> None:
        shutil.copyfile(tiny_tokenizer_folder / "tokenizer.json", base / "tokenizer.json")
        shutil.copyfile(tiny_tokenizer_folder / "tokenizer_config.json", base / "tokenizer_config.json")
        with pytest.raises(UserError, match=r"gives the id \d+, the model's vocabulary has 97"):
            export(base, None, tmp_path / "out", check=True)
        assert not (tmp_path / "out").exists()

    def test_a_wrong_export(self, base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from ms_medqa.peft import export as module

        right = module.changes

        def wrong(*args: Any) -> Any:
            found = right(*args)
            found.popitem()
            return found

        monkeypatch.setattr(module, "changes", wrong)
        found = export(base, adapter, tmp_path / "out", check=True).comparison
        assert found is not None
        assert not found.ok
        assert "do not use this export" in found.lines()[-1]
