"""Model folders that do not fit: one clear line for each fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from ms_medqa.config import UserError
from ms_medqa.models import checkpoint, load_model, loading
from ms_medqa.models.fingerprint import base_fingerprint
from ms_medqa.models.safetensors import SafetensorsFile


class TestConfigFaults:
    """What is wrong with `config.json`, with its path."""

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"absent: no such folder.*medqa-tiny"):
            load_model(tmp_path / "absent")
        (tmp_path / "file").write_text("x", encoding="utf-8")
        with pytest.raises(UserError, match="file: no such folder"):
            load_model(tmp_path / "file")

    def test_no_config(self, folder: Path) -> None:
        (folder / "config.json").unlink()
        with pytest.raises(UserError, match=r"model/config\.json: no such file: is this a model folder"):
            load_model(folder)

    @pytest.mark.parametrize("text", ["{", "[1]", "\x00\xff", "", "[" * 100_000], ids=lambda text: text[:5])
    def test_no_json_object(self, folder: Path, text: str) -> None:
        (folder / "config.json").write_text(text, encoding="latin-1")
        with pytest.raises(UserError, match=r"model/config\.json: not "):
            load_model(folder)

    @pytest.mark.parametrize("names", [["GPT2LMHeadModel"], [], "absent"])
    def test_other_families_are_named_with_those_that_work(self, folder: Path, names: Any) -> None:
        decoders.edit_config(folder, architectures=names)
        with pytest.raises(
            UserError, match=r"not a supported model family.*LlamaForCausalLM.*Qwen2ForCausalLM"
        ) as error:
            load_model(folder)
        assert str(folder / "config.json") in str(error.value)
        if names == ["GPT2LMHeadModel"]:
            assert "GPT2LMHeadModel" in str(error.value)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"hidden_size": "absent"}, "'hidden_size' is missing"),
            ({"rope_scaling": {"type": "linear"}}, "rope scaling 'linear' needs a factor"),
            ({"rope_scaling": {"type": "dynamic", "factor": 0.5}}, "rope scaling 'dynamic' needs a factor"),
            ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope scaling 'llama3' needs low_freq_factor"),
            ({"rope_scaling": {"rope_type": "yarn", "factor": 8.0}}, "'yarn'.*supported: default, linear, dynamic"),
            ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
            ({"use_sliding_window": True, "sliding_window": "4096"}, "sliding_window"),
            (
                {"use_sliding_window": True, "sliding_window": 4, "layer_types": ["chunked_attention"] * 2},
                "layer_types must name one of full_attention, sliding_attention",
            ),
            ({"quantization_config": {"bits": 4}}, "quantization_config"),
            ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is not supported"),
            ({"num_key_value_heads": 3}, "num_key_value_heads"),
            ({"head_dim": 7}, "head_dim"),
            ({"hidden_size": "32"}, "hidden_size"),
            ({"num_attention_heads": 0}, "num_attention_heads"),
            ({"hidden_size": None}, "hidden_size"),
            ({"vocab_size": True}, "vocab_size"),
            ({"num_attention_heads": 5, "num_key_value_heads": 5}, "5 does not divide hidden_size = 32"),
            ({"num_attention_heads": 64, "num_key_value_heads": 64}, "64 does not divide hidden_size = 32"),
            ({"hidden_size": 10**30}, "hidden_size = 10+ must be a whole number from 1 to 2147483647"),
            ({"rope_theta": 10**400}, "rope_theta"),
            ({"tie_word_embeddings": "false"}, "tie_word_embeddings = 'false' must be true or false"),
            ({"use_sliding_window": "false"}, "use_sliding_window"),
            ({"use_sliding_window": True, "sliding_window": 4, "layer_types": [{}, 1]}, "layer_types must name one"),
            ({"dual_chunk_attention_config": {"local_size": 8}}, "'chunk_size' is missing"),
            ({"dual_chunk_attention_config": 8}, "dual_chunk_attention_config = 8 must be an object"),
            ({"rms_norm_eps": "1e-6"}, "rms_norm_eps"),
            ({"rope_theta": -1}, "rope_theta"),
            ({"rope_scaling": "linear"}, "rope scaling 'linear'"),
            ({"eos_token_id": "</s>"}, "eos_token_id"),
            ({"eos_token_id": [0, None]}, "eos_token_id"),
            ({"architectures": [["Qwen2ForCausalLM"]]}, "not a supported model family"),
        ],
    )
    def test_one_line_names_file_and_key(self, folder: Path, changes: dict[str, Any], words: str) -> None:
        decoders.edit_config(folder, **changes)
        with pytest.raises(UserError, match=words) as error:
            load_model(folder)
        assert str(folder / "config.json") in str(error.value)
        assert "\n" not in str(error.value)


class TestWeightFaults:
    """What is wrong with the weights."""

    def test_everything_that_does_not_fit_is_named_together(self, folder: Path) -> None:
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        del weights["model.layers.1.mlp.up_proj.weight"]
        weights["model.layers.2.mlp.up_proj.weight"] = np.zeros((48, 32), np.float32)
        weights["model.norm.weight"] = np.zeros(31, np.float32)
        safetensors.numpy.save_file(weights, folder / "model.safetensors")
        with pytest.raises(UserError) as error:
            load_model(folder)
        text = str(error.value)
        assert str(folder) in text
        assert "missing model.layers.1.mlp.up_proj.weight" in text
        assert "unexpected model.layers.2.mlp.up_proj.weight" in text
        assert "model.norm.weight has shape (31,), expected (32,)" in text

    def test_whole_numbers_are_no_weights(self, folder: Path) -> None:
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        for name, dtype in (("model.layers.0.mlp.up_proj.weight", np.uint8), ("model.norm.weight", np.int64)):
            weights[name] = weights[name].astype(dtype)
        safetensors.numpy.save_file(weights, folder / "model.safetensors")
        with pytest.raises(
            UserError, match=r"up_proj\.weight has type U8, expected F32, F16.*norm\.weight has type I64"
        ):
            load_model(folder)

    def test_a_long_list_is_cut(self, folder: Path) -> None:
        decoders.edit_config(folder, num_hidden_layers=9)
        with pytest.raises(UserError, match=r"and \d+ more") as error:
            load_model(folder)
        assert str(error.value).count("missing ") == 10

    def test_an_untied_head_must_be_there(self, folder: Path) -> None:
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        del weights["lm_head.weight"]
        safetensors.numpy.save_file(weights, folder / "model.safetensors")
        with pytest.raises(UserError, match=r"missing lm_head\.weight"):
            load_model(folder)

    @pytest.mark.parametrize("kind", ["F32", "BF16"])
    def test_numbers_that_float16_cannot_hold(self, folder: Path, kind: str) -> None:
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        weights["model.layers.1.mlp.up_proj.weight"][3, 3] = -70000
        stored = "float32" if kind == "F32" else "bfloat16"
        (folder / "model.safetensors").write_bytes(decoders.serialize(weights, stored))
        with pytest.raises(
            UserError,
            match=r"up_proj\.weight holds 7\S*e\+04, which float16 cannot hold: load it as bfloat16 or float32",
        ):
            load_model(folder, dtype="float16")
        load_model(folder, dtype="float32")

    @pytest.mark.parametrize(
        "changes", [{"num_hidden_layers": 10**6}, {"hidden_size": 2**16}, {"vocab_size": 10**6}, {"head_dim": 2**16}]
    )
    def test_no_model_is_built_for_weights_that_do_not_fit(
        self, folder: Path, changes: dict[str, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        decoders.edit_config(folder, **changes)
        monkeypatch.setattr(loading, "CausalLM", None)
        for reader in (load_model, base_fingerprint):
            # Some numbers are refused before any file is opened.
            with pytest.raises(UserError, match=r"do not fit config\.json|config\.json: "):
                reader(folder)

    def test_pickles_are_never_read(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(UserError, match=r"must be \*\.safetensors.*pytorch_model\.bin.*never read"):
            load_model(folder)

    def test_what_a_trainer_leaves_is_no_model(self, folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "training_args.bin")
        assert not checkpoint.has_weights(folder)
        with pytest.raises(UserError, match="none found"):
            load_model(folder)

    def test_no_weights(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        with pytest.raises(UserError, match="none found"):
            load_model(folder)

    @pytest.mark.parametrize("share", [0.0, 0.0001, 0.01, 0.5, 0.9999])
    def test_a_file_that_is_cut_off(self, folder: Path, share: float) -> None:
        path = folder / "model.safetensors"
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(UserError, match=r"model\.safetensors: .*cut off.*copy it again"):
            load_model(folder)

    @pytest.mark.parametrize(
        "data",
        [
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
            decoders.raw_file(b"{not json}"),
            decoders.raw_file(b"\xff\xfe\x00\x01"),
            decoders.raw_file([]),
            decoders.raw_file({"x": [1]}),
            decoders.raw_file({"x": {"dtype": "F32", "shape": [2]}}),
            decoders.raw_file({"x": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, b"\0" * 8),
            decoders.raw_file({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"\0" * 8),
        ],
        ids=lambda data: data[8:40].decode("latin-1"),
    )
    def test_a_file_that_is_something_else(self, folder: Path, data: bytes) -> None:
        (folder / "model.safetensors").write_bytes(data)
        with pytest.raises(UserError, match=r"model\.safetensors: "):
            load_model(folder)

    def test_a_stored_type_that_cannot_be_read(self, tmp_path: Path) -> None:
        header = {"x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
        (tmp_path / "x.safetensors").write_bytes(decoders.raw_file(header, b"\0" * 4))
        with pytest.raises(UserError, match=r"tensor x has type F8_E4M3.*F32"):
            SafetensorsFile(tmp_path / "x.safetensors").read("x")

    def test_two_files_that_hold_the_same_tensor(self, folder: Path) -> None:
        data = (folder / "model.safetensors").read_bytes()
        for name in ("new.safetensors", "old.safetensors"):
            (folder / name).write_bytes(data)
        (folder / "model.safetensors").unlink()
        with pytest.raises(UserError, match=r"both new\.safetensors and old\.safetensors hold lm_head\.weight"):
            load_model(folder)

    def index(self, folder: Path, weight_map: Any) -> None:
        (folder / "model.safetensors").unlink()
        index = {"weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

    @pytest.mark.parametrize("shard", ["../../etc/secret.safetensors", "/etc/passwd", 7, "", ".", "..", "a\0b"])
    def test_an_index_that_points_elsewhere(self, folder: Path, shard: Any) -> None:
        self.index(folder, {"model.norm.weight": shard})
        with pytest.raises(UserError, match=r"model\.safetensors\.index\.json: `weight_map` ") as error:
            load_model(folder)
        assert "\0" not in str(error.value)

    @pytest.mark.parametrize("weight_map", [{}, [], None])
    def test_an_index_without_files(self, folder: Path, weight_map: Any) -> None:
        self.index(folder, weight_map)
        with pytest.raises(UserError, match=r"index\.json: `weight_map` must give the file of each tensor"):
            load_model(folder)

    @pytest.mark.parametrize(
        ("shards", "words"),
        [
            (["b.safetensors"], r"b\.safetensors is missing"),
            (["c.safetensors", "b.safetensors"], r"b\.safetensors and 1 more are missing"),
            (["b" * 300], "b{300} is missing"),
        ],
    )
    def test_a_missing_shard(self, folder: Path, shards: list[str], words: str) -> None:
        self.index(folder, {str(number): name for number, name in enumerate(shards)})
        with pytest.raises(
            UserError, match=rf"model: {words}, which model\.safetensors\.index\.json names: copy or download it again"
        ):
            load_model(folder)
