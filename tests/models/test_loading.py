"""Model folders: every stored type, shards, and one clear line for what does not fit."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from ms_medqa.config import UserError
from ms_medqa.models import checkpoint, load_model, loading, resolve_model
from ms_medqa.models.checkpoint import load_config
from ms_medqa.models.fingerprint import base_fingerprint
from ms_medqa.models.safetensors import SafetensorsFile


def values_of(folder: Path) -> decoders.Weights:
    return {p.name: p.asnumpy() for p in load_model(folder, dtype="float32").get_parameters()}


def edit(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = {key: value for key, value in (config | changes).items() if value != "absent"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def raw_file(header: Any, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    decoders.write(tmp_path / "model", decoders.config_of())
    return tmp_path / "model"


class TestTypes:
    """What was stored is what the model gets."""

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    def test_each_type_is_read_exactly(self, folder: Path, dtype: str) -> None:
        weights = decoders.random_weights(decoders.config_of(), seed=3)
        # Eight significant bits, which all three types hold.
        weights = {name: (value.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, value in weights.items()}
        weights = {
            name: np.where(np.abs(value) < 1e-3, 0.25, value).astype(np.float32) for name, value in weights.items()
        }
        (folder / "model.safetensors").write_bytes(decoders.serialize(weights, dtype))
        loaded = values_of(folder)
        assert loaded.keys() == weights.keys()
        for name, value in weights.items():
            assert np.array_equal(loaded[name], value), name

    def test_a_device_with_bfloat16_gets_the_very_numbers(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = decoders.qwen_config()
        weights = decoders.random_weights(config)
        weights = {name: (value.view(np.uint32) & 0xFFFF0000).view(np.float32) for name, value in weights.items()}
        decoders.write(tmp_path, config)
        (tmp_path / "model.safetensors").write_bytes(decoders.serialize(weights, "bfloat16"))
        given: decoders.Weights = {}
        monkeypatch.setattr(loading, "_compute_dtype", lambda dtype: "bfloat16")
        # The CPU cannot write such numbers into a parameter.
        monkeypatch.setattr(loading, "assign", lambda parameter, value: given.update({parameter.name: value}))
        places = loading.naming_of(load_model(tmp_path)).places
        assert given.keys() == places.keys()
        for name, value in given.items():
            assert np.array_equal(value, weights[places[name].name][places[name].start : places[name].stop]), name

    def test_bfloat16_is_the_upper_half_of_float32(self, tmp_path: Path) -> None:
        bits = np.array([0x3F80, 0xBFC0, 0x0000, 0x7F7F, 0x0001], np.uint16)
        header = {"x": {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]}}
        (tmp_path / "x.safetensors").write_bytes(raw_file(header, bits.tobytes()))
        values = SafetensorsFile(tmp_path / "x.safetensors").read("x")
        assert values.dtype == np.float32
        assert values.tolist() == [1.0, -1.5, 0.0, 3.3895313892515355e38, 2.0**-133]

    @pytest.mark.parametrize("dtype", ["float32", "float16"])
    def test_written_bytes_are_read_by_the_library(self, dtype: str) -> None:
        tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3).T / 3, "b": np.float32([[-1.5]])}
        read = safetensors.numpy.load(decoders.serialize(tensors, dtype))
        assert {name: value.dtype.name for name, value in read.items()} == dict.fromkeys("ab", dtype)
        for name, value in tensors.items():
            assert np.array_equal(read[name], value.astype(dtype))

    def test_bfloat16_is_rounded_to_nearest_ties_to_even(self, tmp_path: Path) -> None:
        step = 2.0**-7  # between neighbours at 1
        values = np.float32(
            [1 + step / 2, 1 + 3 * step / 2, 1 + step * 0.49, 1 + step * 0.51, -(1 + 3 * step / 2), np.inf, np.nan, 0]
        )
        expected = [1, 1 + 2 * step, 1, 1 + step, -(1 + 2 * step), np.inf, np.nan, 0]
        data = decoders.serialize({"x": values.reshape(2, 4)}, "bfloat16")
        ((name, item),) = safetensors.deserialize(data)
        assert (name, item["dtype"], item["shape"]) == ("x", "BF16", [2, 4])
        (tmp_path / "x.safetensors").write_bytes(data)
        read = SafetensorsFile(tmp_path / "x.safetensors").read("x")
        np.testing.assert_array_equal(read, np.float32(expected).reshape(2, 4))


class TestFolder:
    """Layouts that are fine."""

    def test_shards_with_an_index(self, folder: Path) -> None:
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        names = sorted(weights)
        where = {}
        for number, part in enumerate((names[::2], names[1::2]), 1):
            file = f"model-{number:05d}-of-00002.safetensors"
            safetensors.numpy.save_file({name: weights[name] for name in part}, folder / file)
            where |= dict.fromkeys(part, file)
        # A stray file is not part of the model when there is an index.
        safetensors.numpy.save_file({"stray": np.zeros(3, np.float32)}, folder / "other.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": where}), encoding="utf-8")
        for name, value in values_of(folder).items():
            assert np.array_equal(value, weights[name])

    def test_a_file_beside_the_weights_is_not_part_of_the_model(self, folder: Path) -> None:
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        old = {name: value + 1 for name, value in weights.items()}
        safetensors.numpy.save_file(old, folder / "model_old.safetensors")
        safetensors.numpy.save_file({"stray": np.zeros(3, np.float32)}, folder / "adapter_model.safetensors")
        for name, value in values_of(folder).items():
            assert np.array_equal(value, weights[name])

    def test_weights_of_another_name(self, folder: Path) -> None:
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        (folder / "model.safetensors").rename(folder / "consolidated.safetensors")
        for name, value in values_of(folder).items():
            assert np.array_equal(value, weights[name])

    @pytest.mark.parametrize("stored", ["float32", "bfloat16"])
    def test_a_tied_head_needs_no_matrix(self, folder: Path, capsys: pytest.CaptureFixture[str], stored: str) -> None:
        edit(folder, tie_word_embeddings=True)
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        for head in (weights["model.embed_tokens.weight"], None):
            content = {**weights, "lm_head.weight": head} if head is not None else weights
            if head is None:
                del content["lm_head.weight"]
            (folder / "model.safetensors").write_bytes(decoders.serialize(content, stored))
            model = load_model(folder)
            assert model.lm_head is None
            assert model.config.tie_word_embeddings
            assert not capsys.readouterr().err

    def test_equal_numbers_in_other_bytes_are_a_tied_head(self, folder: Path) -> None:
        edit(folder, tie_word_embeddings=True)
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        embedding = weights["model.embed_tokens.weight"].astype(np.float16)
        embedding[3, 3] = 0.0
        for head in (embedding.astype(np.float32), np.where(embedding == 0, np.float16(-0.0), embedding)):
            changed = {"model.embed_tokens.weight": embedding, "lm_head.weight": head}
            safetensors.numpy.save_file(weights | changed, folder / "model.safetensors")
            assert load_model(folder).lm_head is None

    @pytest.mark.parametrize("place", [(0, 0), (53, 17), (-1, -1)])
    def test_a_head_that_differs_is_used_though_the_config_ties_it(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, place: tuple[int, int]
    ) -> None:
        edit(folder, tie_word_embeddings=True)
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].copy()
        safetensors.numpy.save_file(weights, folder / "model.safetensors")
        equal = base_fingerprint(folder)
        weights["lm_head.weight"][place] += 1
        safetensors.numpy.save_file(weights, folder / "model.safetensors")
        # Several blocks, the last one smaller.
        monkeypatch.setattr(checkpoint, "_COMPARED", 32 * 10)
        model = load_model(folder)
        assert model.config.tie_word_embeddings is False
        assert np.array_equal(model.lm_head.weight.asnumpy(), weights["lm_head.weight"])
        told = capsys.readouterr().err
        assert told.startswith(f"note: {folder}: lm_head.weight differs from model.embed_tokens.weight, so it is used")
        assert told.count("\n") == 1
        assert base_fingerprint(folder) == base_fingerprint(folder, model.config) != equal

    def test_an_equal_head_keeps_the_fingerprint(self, folder: Path) -> None:
        edit(folder, tie_word_embeddings=True)
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        del weights["lm_head.weight"]
        safetensors.numpy.save_file(weights, folder / "model.safetensors")
        alone = base_fingerprint(folder)
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        safetensors.numpy.save_file(weights, folder / "model.safetensors")
        assert base_fingerprint(folder) == alone

    def test_a_tied_head_of_another_shape(self, folder: Path) -> None:
        edit(folder, tie_word_embeddings=True)
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"][:5]
        safetensors.numpy.save_file(weights, folder / "model.safetensors")
        with pytest.raises(UserError, match=r"lm_head\.weight has shape \(5, 32\), expected \(97, 32\)"):
            load_model(folder)

    def test_old_rotary_buffers_are_no_fault(self, folder: Path) -> None:
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(4, np.float32)
        weights["model.position_ids"] = np.zeros((1, 4), np.int64)
        safetensors.numpy.save_file(weights, folder / "model.safetensors")
        assert len(values_of(folder)) == len(weights) - 2

    @pytest.mark.parametrize(("written", "ids"), [(7, (7,)), ([7, 9], (7, 9)), (None, ()), ("absent", ())])
    def test_end_tokens(self, folder: Path, written: Any, ids: tuple[int, ...]) -> None:
        edit(folder, eos_token_id=written)
        assert load_config(folder).eos_token_ids == ids

    def test_generation_config_adds_end_tokens(self, folder: Path) -> None:
        edit(folder, eos_token_id=7)
        path = folder / "generation_config.json"
        for written, ids in (([9, 7, 11], (7, 9, 11)), (9, (7, 9)), (None, (7,))):
            path.write_text(json.dumps({"eos_token_id": written, "top_k": 20}), encoding="utf-8")
            assert load_config(folder).eos_token_ids == ids
        for text in ('{"eos_token_id": "</s>"}', "{"):
            path.write_text(text, encoding="utf-8")
            with pytest.raises(UserError, match=r"generation_config\.json: ") as error:
                load_config(folder)
            assert "\n" not in str(error.value)

    def test_rotary_base_of_transformers_5(self, folder: Path) -> None:
        rope = {"rope_type": "default", "rope_theta": 5e5}
        edit(folder, rope_theta="absent", rope_parameters=rope, dtype="bfloat16")
        config = load_config(folder)
        assert (config.rope_theta, config.dtype) == (5e5, "bfloat16")
        # Where a file has both, transformers takes this one.
        edit(folder, rope_theta=1e4)
        assert load_config(folder).rope_theta == 5e5

    def test_a_folder_goes_before_a_shipped_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert resolve_model("medqa-tiny").is_absolute()
        (tmp_path / "medqa-tiny").mkdir()
        assert resolve_model("medqa-tiny").resolve() == tmp_path / "medqa-tiny"


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
        edit(folder, architectures=names)
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
        edit(folder, **changes)
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
        edit(folder, num_hidden_layers=9)
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
        edit(folder, **changes)
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
            raw_file(b"{not json}"),
            raw_file(b"\xff\xfe\x00\x01"),
            raw_file([]),
            raw_file({"x": [1]}),
            raw_file({"x": {"dtype": "F32", "shape": [2]}}),
            raw_file({"x": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, b"\0" * 8),
            raw_file({"x": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}}, b"\0" * 8),
        ],
        ids=lambda data: data[8:40].decode("latin-1"),
    )
    def test_a_file_that_is_something_else(self, folder: Path, data: bytes) -> None:
        (folder / "model.safetensors").write_bytes(data)
        with pytest.raises(UserError, match=r"model\.safetensors: "):
            load_model(folder)

    def test_a_stored_type_that_cannot_be_read(self, tmp_path: Path) -> None:
        header = {"x": {"dtype": "F8_E4M3", "shape": [4], "data_offsets": [0, 4]}}
        (tmp_path / "x.safetensors").write_bytes(raw_file(header, b"\0" * 4))
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
