"""PyTorch's pickles to safetensors: the same numbers, and no code of a file is ever run."""

from __future__ import annotations

import ast
import json
import sys
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import safetensors.numpy

import ms_medqa
from ms_medqa.config import UserError
from ms_medqa.models import load_model
from ms_medqa.models.import_bin import import_bin, summary
from ms_medqa.models.safetensors import SafetensorsFile

pytestmark = pytest.mark.usefixtures("pynative_mode")

CONFIG = decoders.config_of("LlamaForCausalLM")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder without weights."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    return tmp_path / "model"


@pytest.fixture
def weights() -> dict[str, np.ndarray]:
    return decoders.random_weights(CONFIG)


@pytest.fixture
def torch() -> Any:
    module = pytest.importorskip("torch", reason="reading *.bin needs PyTorch")
    module.set_num_threads(1)
    return module


def save(torch: Any, content: Any, path: Path, **options: Any) -> None:
    torch.save(content, path, **options)


def tensors(torch: Any, weights: dict[str, np.ndarray], dtype: str = "float32") -> OrderedDict[str, Any]:
    return OrderedDict((name, torch.from_numpy(value).to(getattr(torch, dtype))) for name, value in weights.items())


def values_of(folder: Path) -> dict[str, np.ndarray]:
    return {p.name: p.asnumpy() for p in load_model(folder, dtype="float32").get_parameters()}


class TestReading:
    """What was pickled is what the model gets."""

    @pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
    @pytest.mark.parametrize("archive", [True, False])
    def test_each_type(
        self, torch: Any, folder: Path, weights: dict[str, np.ndarray], tmp_path: Path, dtype: str, archive: bool
    ) -> None:
        content = tensors(torch, weights, dtype)
        save(torch, content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=archive)
        for name in ("generation_config.json", "tokenizer.json", "README.md"):
            (folder / name).write_text("{}")
        result = import_bin(folder, tmp_path / "out")
        assert (result.tensors, result.files) == (len(weights), 1)
        found = SafetensorsFile(tmp_path / "out" / "model.safetensors")
        assert {found.dtype(name) for name in weights} == {{"float32": "F32", "float16": "F16"}.get(dtype, "BF16")}
        assert found.metadata == {"format": "pt"}
        for name, value in values_of(tmp_path / "out").items():
            assert np.array_equal(value, content[name].float().numpy()), name
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "config.json",
            "export.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
        ]

    @pytest.mark.parametrize("indexed", [True, False])
    def test_shards(
        self, torch: Any, folder: Path, weights: dict[str, np.ndarray], tmp_path: Path, indexed: bool
    ) -> None:
        content, where = tensors(torch, weights), {}
        for number in (1, 2, 3):
            name = f"pytorch_model-{number:05d}-of-00003.bin"
            part = {key: content[key] for key in list(content)[number - 1 :: 3]}
            where |= dict.fromkeys(part, name)
            save(torch, part, folder / name)
        save(torch, {"lr": 1e-4}, folder / "training_args.bin")
        if indexed:
            (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
        result = import_bin(folder, tmp_path / "out", max_shard_size="20KB")
        assert result.files > 2
        found = values_of(tmp_path / "out")
        assert found.keys() == weights.keys()
        assert all(np.array_equal(found[name], value) for name, value in weights.items())

    @pytest.mark.parametrize("wrapper", ["state_dict", "model"])
    def test_wrapped(
        self, torch: Any, folder: Path, weights: dict[str, np.ndarray], tmp_path: Path, wrapper: str
    ) -> None:
        content = {f"module.{name}": value for name, value in tensors(torch, weights).items()}
        save(torch, {wrapper: content, "epoch": 3, "step": torch.tensor(7)}, folder / "last.pt")
        import_bin(folder, tmp_path / "out")
        found = values_of(tmp_path / "out")
        assert all(np.array_equal(found[name], value) for name, value in weights.items())

    @pytest.mark.parametrize("tied", [True, False])
    def test_shared_memory(self, torch: Any, tmp_path: Path, tied: bool) -> None:
        config = CONFIG | {"tie_word_embeddings": tied}
        content = tensors(torch, decoders.random_weights(config))
        content["lm_head.weight"] = content["model.embed_tokens.weight"]
        content["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(4)
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text(json.dumps(config))
        save(torch, content, tmp_path / "model" / "pytorch_model.bin")
        result = import_bin(tmp_path / "model", tmp_path / "out")
        written = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
        assert ("lm_head.weight" in written) == (not tied)
        assert ("lm_head.weight" in result.left_out) == tied
        assert not any("inv_freq" in name for name in written)
        assert any("left out" in line for line in summary(result))
        load_model(tmp_path / "out")

    def test_buffers_are_left_out(
        self, torch: Any, folder: Path, weights: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        buffers = {
            "model.position_ids": torch.arange(4)[None],
            "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4),
            "model.layers.0.self_attn.masked_bias": torch.tensor(-1e9),
            "model.layers.0.self_attn.bias": torch.ones(1, 1, 4, 4, dtype=torch.bool),
        }
        save(torch, {**tensors(torch, weights), **buffers}, folder / "pytorch_model.bin")
        result = import_bin(folder, tmp_path / "out")
        assert sorted(result.left_out) == sorted(buffers)
        assert any("left out" in line for line in summary(result))
        assert values_of(tmp_path / "out").keys() == weights.keys()

    def test_float64_stays(self, torch: Any, folder: Path, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
        content, name = tensors(torch, weights), "model.norm.weight"
        content[name] = content[name].double() / 3
        save(torch, content, folder / "pytorch_model.bin")
        import_bin(folder, tmp_path / "out")
        written = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
        assert np.array_equal(written[name], content[name].numpy())
        assert written[name].dtype == np.float64
        assert np.array_equal(values_of(tmp_path / "out")[name], content[name].float().numpy())

    def test_views_are_written_whole_and_in_order(
        self, torch: Any, folder: Path, weights: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        content = tensors(torch, weights)
        name = "model.layers.0.self_attn.q_proj.weight"
        content[name] = content[name].t().contiguous().t()
        save(torch, content, folder / "pytorch_model.bin")
        import_bin(folder, tmp_path / "out")
        assert np.array_equal(values_of(tmp_path / "out")[name], weights[name])

    def test_an_adapter(self, torch: Any, tmp_path: Path) -> None:
        (tmp_path / "adapter").mkdir()
        (tmp_path / "adapter" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        content = {"base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 3)}
        save(torch, content, tmp_path / "adapter" / "adapter_model.bin")
        import_bin(tmp_path / "adapter", tmp_path / "out", max_shard_size="1")
        names = sorted(path.name for path in (tmp_path / "out").iterdir())
        assert names == ["adapter_config.json", "adapter_model.safetensors", "export.json"]
        found = safetensors.numpy.load_file(tmp_path / "out" / "adapter_model.safetensors")
        assert {name: value.shape for name, value in found.items()} == dict.fromkeys(content, (2, 3))


class Evil:
    """Pickled, it is a call that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


class TestRefusals:
    """One clear line, nothing is run, nothing is written."""

    @pytest.mark.parametrize("archive", [True, False])
    def test_a_malicious_pickle(
        self, torch: Any, folder: Path, weights: dict[str, np.ndarray], tmp_path: Path, archive: bool
    ) -> None:
        trap = tmp_path / "trap"
        content = {**tensors(torch, weights), "evil": Evil(trap)}
        path = folder / "pytorch_model.bin"
        save(torch, content, path, _use_new_zipfile_serialization=archive)
        with pytest.raises(UserError, match="holds more than weights") as error:
            import_bin(folder, tmp_path / "out")
        assert "\n" not in str(error.value)
        assert not trap.exists()
        assert not (tmp_path / "out").exists()
        # The same file does run code where it is read without the restriction.
        torch.load(path, weights_only=False)["evil"].close()
        assert trap.exists()

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"", "not a file of PyTorch"),
            (b"PK\x03\x04 cut off", "not readable by PyTorch"),
            (b"\x80\x02cut off", "holds more than weights"),
            (
                b"version https://git-lfs.github.com/spec/v1\n",
                "not a file of PyTorch, it begins with b'vers': a Git",
            ),
        ],
    )
    def test_a_broken_file(self, torch: Any, folder: Path, tmp_path: Path, content: bytes, words: str) -> None:
        (folder / "pytorch_model.bin").write_bytes(content)
        with pytest.raises(UserError, match=rf"pytorch_model\.bin: {words}") as error:
            import_bin(folder, tmp_path / "out")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("depth", [None, 6])
    def test_a_pickle_that_wraps_too_much(self, torch: Any, folder: Path, tmp_path: Path, depth: int | None) -> None:
        content: dict[str, Any] = {}
        content["model"] = content
        for _ in range(depth or 0):
            content = {"model": content}
        save(torch, content, folder / "pytorch_model.bin")
        with pytest.raises(UserError, match=r"pytorch_model\.bin: 'model' is a dict, not a tensor"):
            import_bin(folder, tmp_path / "out")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"extra": [1, 2]}, "'extra' is a list, not a tensor"),
            ({7: "float32"}, "7 is no name of a tensor"),
            ({"model.norm.weight": "int8"}, r"model\.norm\.weight has type int8: supported: float32"),
            ({"tok_embeddings.weight": "float32"}, "as Meta publishes them"),
        ],
    )
    def test_what_is_no_weight(
        self,
        torch: Any,
        folder: Path,
        weights: dict[str, np.ndarray],
        tmp_path: Path,
        change: dict[Any, Any],
        message: str,
    ) -> None:
        made = {k: torch.ones(3, dtype=getattr(torch, v)) if isinstance(v, str) else v for k, v in change.items()}
        save(torch, {**tensors(torch, weights), **made}, folder / "pytorch_model.bin")
        with pytest.raises(UserError, match=message):
            import_bin(folder, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_a_config_that_makes_no_sense(
        self, torch: Any, folder: Path, weights: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        # The weights are written all the same: what is wrong with the config is said where it is used.
        (folder / "config.json").write_text(json.dumps(CONFIG | {"architectures": [["LlamaForCausalLM"]]}))
        save(torch, tensors(torch, weights), folder / "pytorch_model.bin")
        assert import_bin(folder, tmp_path / "out").tensors == len(weights)

    def test_a_tensor_twice(self, torch: Any, folder: Path, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
        for name in ("pytorch_model-1.bin", "pytorch_model-2.bin"):
            save(torch, tensors(torch, weights), folder / name)
        with pytest.raises(UserError, match=r"both pytorch_model-1\.bin and pytorch_model-2\.bin hold"):
            import_bin(folder, tmp_path / "out")

    def test_a_missing_tensor(self, torch: Any, folder: Path, weights: dict[str, np.ndarray], tmp_path: Path) -> None:
        where = dict.fromkeys([*weights, "model.more.weight"], "pytorch_model.bin")
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": where}))
        save(torch, tensors(torch, weights), folder / "pytorch_model.bin")
        with pytest.raises(UserError, match=r"no file holds model\.more\.weight"):
            import_bin(folder, tmp_path / "out")

    def test_metas_files(self, folder: Path, tmp_path: Path) -> None:
        (folder / "consolidated.00.pth").write_bytes(b"")
        with pytest.raises(UserError, match="as Meta publishes them"):
            import_bin(folder, tmp_path / "out")

    @pytest.mark.parametrize("names", [{"a": "../x.bin"}, {}, {"a": 3}, {"a": ""}, {"a": ".."}, {"a": "a\0"}])
    def test_a_broken_index(self, folder: Path, tmp_path: Path, names: dict[str, Any]) -> None:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
        with pytest.raises(UserError, match=r"`weight_map` (must give the file|names .* no file of this folder)"):
            import_bin(folder, tmp_path / "out")

    def test_a_missing_shard(self, folder: Path, tmp_path: Path) -> None:
        (folder / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "pytorch_model-1.bin"}}')
        with pytest.raises(UserError, match=r"pytorch_model-1\.bin is missing"):
            import_bin(folder, tmp_path / "out")

    def test_no_pickles(self, folder: Path, tmp_path: Path) -> None:
        (folder / "training_args.bin").write_bytes(b"")
        with pytest.raises(UserError, match="none found"):
            import_bin(folder, tmp_path / "out")
        (folder / "model.safetensors").write_bytes(b"")
        with pytest.raises(UserError, match="safetensors, which are read as they are"):
            import_bin(folder, tmp_path / "out")


class TestPyTorch:
    """It is an extra, and an old one is not safe."""

    def test_without_it(self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / "pytorch_model.bin").write_bytes(b"")
        monkeypatch.setitem(sys.modules, "torch", None)
        with pytest.raises(UserError, match=r'pip install "ms_medqa\[import-bin\]"'):
            import_bin(folder, tmp_path / "out")

    @pytest.mark.parametrize("version", ["2.5.1", "2.9.1+cpu"])
    def test_an_unsafe_version(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
    ) -> None:
        (folder / "pytorch_model.bin").write_bytes(b"")
        module = types.ModuleType("torch")
        module.__version__ = version  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "torch", module)
        with pytest.raises(UserError, match=r"before 2\.10"):
            import_bin(folder, tmp_path / "out")


def test_nothing_else_reads_pickles() -> None:
    """No module of the package imports pickle or its like; PyTorch is imported in one place."""
    package = Path(ms_medqa.__file__).parent
    users: dict[str, set[str]] = {}
    for path in package.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                users.setdefault(name.split(".")[0], set()).add(path.relative_to(package).as_posix())
            # pandas and NumPy have readers of their own.
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("read_pickle", "allow_pickle"), path
            if isinstance(node, ast.keyword):
                assert node.arg != "allow_pickle", path
    assert not users.keys() & {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    assert users["torch"] == {"models/import_bin.py"}
    assert "numpy" in users
