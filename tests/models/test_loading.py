"""Model folders: every stored type, and shards."""

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
from ms_medqa.models import checkpoint, load_model, loading, resolve_model
from ms_medqa.models.checkpoint import load_config
from ms_medqa.models.fingerprint import base_fingerprint
from ms_medqa.models.safetensors import SafetensorsFile


def values_of(folder: Path) -> decoders.Weights:
    return {p.name: p.asnumpy() for p in load_model(folder, dtype="float32").get_parameters()}


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
        (tmp_path / "x.safetensors").write_bytes(decoders.raw_file(header, bits.tobytes()))
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
        decoders.edit_config(folder, tie_word_embeddings=True)
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
        decoders.edit_config(folder, tie_word_embeddings=True)
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
        decoders.edit_config(folder, tie_word_embeddings=True)
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
        decoders.edit_config(folder, tie_word_embeddings=True)
        weights = safetensors.numpy.load_file(folder / "model.safetensors")
        del weights["lm_head.weight"]
        safetensors.numpy.save_file(weights, folder / "model.safetensors")
        alone = base_fingerprint(folder)
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
        safetensors.numpy.save_file(weights, folder / "model.safetensors")
        assert base_fingerprint(folder) == alone

    def test_a_tied_head_of_another_shape(self, folder: Path) -> None:
        decoders.edit_config(folder, tie_word_embeddings=True)
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
        decoders.edit_config(folder, eos_token_id=written)
        assert load_config(folder).eos_token_ids == ids

    def test_generation_config_adds_end_tokens(self, folder: Path) -> None:
        decoders.edit_config(folder, eos_token_id=7)
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
        decoders.edit_config(folder, rope_theta="absent", rope_parameters=rope, dtype="bfloat16")
        config = load_config(folder)
        assert (config.rope_theta, config.dtype) == (5e5, "bfloat16")
        # Where a file has both, transformers takes this one.
        decoders.edit_config(folder, rope_theta=1e4)
        assert load_config(folder).rope_theta == 5e5

    def test_a_folder_goes_before_a_shipped_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert resolve_model("medqa-tiny").is_absolute()
        (tmp_path / "medqa-tiny").mkdir()
        assert resolve_model("medqa-tiny").resolve() == tmp_path / "medqa-tiny"
