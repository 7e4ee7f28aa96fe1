"""Adapters on disk: the PEFT format, round trips, and adapters that do not belong here."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import safetensors.numpy
from mindspore import Tensor

from ms_medqa.config import RunError, UserError
from ms_medqa.models import load_model
from ms_medqa.models.loading import assign
from ms_medqa.peft import check_adapter, inject_lora, load_adapter, lora_layers, read_adapter, save_adapter

pytestmark = pytest.mark.usefixtures("graph_mode")

CONFIG = decoders.config_of()
IDS = [[5, 9, 2, 33, 60, 61, 7, 1], [90, 1, 1, 4, 8, 77, 21, 3]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    decoders.write(folder, CONFIG)
    return folder


@pytest.fixture(scope="module")
def made(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """An adapter folder and the logits of the model that it was saved from, by the formula."""
    model = load_model(base)
    inject_lora(model, 4, 6.0, ["v_proj", "q_proj", "down_proj"], dropout=0.25, seed=3)
    rng = np.random.default_rng(5)
    weights = decoders.random_weights(CONFIG)
    for path, layer in lora_layers(model):
        assign(layer.lora_b, rng.normal(0, 0.1, layer.lora_b.shape).astype(np.float32))
        weights[f"{path}.weight"] += 1.5 * (layer.lora_b.asnumpy() @ layer.lora_a.asnumpy())
    folder = tmp_path_factory.mktemp("made") / "deep" / "adapter"
    save_adapter(model, folder, "some/base")
    return folder, np.stack([decoders.logits(weights, CONFIG, ids) for ids in IDS])


def run(model: Any) -> np.ndarray:
    return model(Tensor(np.array(IDS, np.int32))).asnumpy()


@pytest.fixture
def adapter(made: tuple[Path, np.ndarray], tmp_path: Path) -> Path:
    """A copy to spoil."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    for path in made[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def set_options(folder: Path, **options: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | options), encoding="utf-8")


def weights_of(model: Any) -> dict[str, np.ndarray]:
    return {parameter.name: parameter.asnumpy().copy() for parameter in model.get_parameters()}


def test_the_files_are_what_peft_writes(made: tuple[Path, np.ndarray]) -> None:
    folder = made[0]
    assert {path.name for path in folder.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["peft_type"] == "LORA"
    assert config["task_type"] == "CAUSAL_LM"
    assert config["base_model_name_or_path"] == "some/base"
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 6, 0.25)
    assert isinstance(config["lora_alpha"], int)
    assert config["target_modules"] == ["down_proj", "q_proj", "v_proj"]
    tensors = safetensors.numpy.load_file(folder / "adapter_model.safetensors")
    shapes = {"self_attn.q_proj": (32, 32), "self_attn.v_proj": (16, 32), "mlp.down_proj": (32, 48)}
    expected = {}
    for layer in (0, 1):
        for path, (out, width) in shapes.items():
            prefix = f"base_model.model.model.layers.{layer}.{path}"
            expected |= {f"{prefix}.lora_A.weight": (4, width), f"{prefix}.lora_B.weight": (out, 4)}
    assert {name: value.shape for name, value in tensors.items()} == expected
    assert {value.dtype for value in tensors.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("merged", [True, False])
def test_what_was_saved_comes_back(base: Path, made: tuple[Path, np.ndarray], merged: bool) -> None:
    folder, expected = made
    model = load_model(base)
    plain = run(model)  # compiled before the adapter comes
    assert np.abs(plain - expected).max() > 0.05
    loaded = load_adapter(model, folder, merge=merged)
    assert {pair.scaling for pair in loaded.layers.values()} == {1.5}
    assert bool(lora_layers(model)) is not merged
    assert np.abs(run(model) - expected).max() <= 2e-5


def test_an_adapter_is_folded_the_same_into_a_model_that_has_not_computed_yet(base: Path, adapter: Path) -> None:
    fresh, used = (load_model(base, dtype="float32") for _ in range(2))
    load_adapter(fresh, adapter, fresh=True)
    load_adapter(used, adapter)
    wanted = weights_of(used)
    plain = weights_of(load_model(base, dtype="float32"))
    assert not all(np.array_equal(wanted[name], value) for name, value in plain.items())
    for name, value in weights_of(fresh).items():
        np.testing.assert_array_equal(value, wanted[name])


def keep_tensors(adapter: Path, what: str, **options: Any) -> None:
    """Leave only the tensors of an adapter whose names hold `what`, and set options."""
    path = adapter / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    safetensors.numpy.save_file({name: value for name, value in tensors.items() if what in name}, path)
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    (adapter / "adapter_config.json").write_text(json.dumps(config | options), encoding="utf-8")


@pytest.mark.parametrize(
    ("what", "options", "words"),
    [
        ("layers.0.", {}, r"holds no tensors of model\.layers\.1\.\S+ and 2 more, which its options name"),
        (
            "layers.",
            {"target_modules": r".*[qv]_proj"},
            r"holds tensors of \S+down_proj and 1 more, which",
        ),
        (
            "layers.",
            {"exclude_modules": ["layers.1.self_attn.q_proj"]},
            r"holds tensors of \S+, which its options do not",
        ),
        ("layers.", {"target_modules": "(q"}, r"target_modules = \(q: not a regular expression"),
        ("layers.", {"layers_to_transform": "0"}, r'layers_to_transform = "0" must be numbers of layers'),
    ],
)
def test_an_adapter_whose_tensors_are_not_those_of_its_options_is_refused(
    base: Path, adapter: Path, what: str, options: dict[str, Any], words: str
) -> None:
    keep_tensors(adapter, what, **options)
    with pytest.raises(UserError, match=words):
        load_adapter(load_model(base), adapter)


def test_layers_that_the_adapter_leaves_out_stay_as_they_are(base: Path, adapter: Path) -> None:
    keep_tensors(adapter, "layers.0.", layers_to_transform=[0])
    merged, apart = load_model(base), load_model(base)
    before = weights_of(merged)
    load_adapter(merged, adapter, merge=True)
    load_adapter(apart, adapter, merge=False)
    layers = dict(lora_layers(apart))
    assert {path.split(".")[2] for path in layers} == {"0"}
    for name, value in weights_of(merged).items():
        layer = layers.get(name.removesuffix(".weight"))
        assert np.array_equal(value, before[name]) is (layer is None)
        if layer is not None:
            update = 1.5 * (layer.lora_b.asnumpy() @ layer.lora_a.asnumpy())
            np.testing.assert_allclose(value, before[name] + update, atol=1e-6)


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"hidden_size": 48}, r"down_proj is \(32, 48\), the model's is \(48, 48\) and \d more"),
        ({"num_hidden_layers": 1}, r"model\.layers\.1\.\S+ is not in the model"),
        ({"num_key_value_heads": 4}, r"v_proj is \(16, 32\), the model's is \(32, 32\)"),
    ],
)
def test_an_adapter_of_another_model_is_refused_and_changes_nothing(
    made: tuple[Path, np.ndarray], tmp_path: Path, other: dict[str, Any], words: str, merged: bool
) -> None:
    decoders.write(tmp_path / "other", decoders.config_of(**other))
    model = load_model(tmp_path / "other")
    before = weights_of(model)
    with pytest.raises(UserError, match=f"made for another model: .*{words}") as error:
        load_adapter(model, made[0], merge=merged)
    assert str(made[0]) in str(error.value)
    after = weights_of(model)
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], value) for name, value in before.items())


def test_an_adapter_can_be_checked_before_its_model_is_loaded(
    base: Path, made: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    check_adapter(base, made[0])
    decoders.write(tmp_path / "other", decoders.config_of(hidden_size=48))
    with pytest.raises(UserError, match="made for another model"):
        check_adapter(tmp_path / "other", made[0])
    (tmp_path / "other" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="other"):
        check_adapter(tmp_path / "other", made[0])


@pytest.mark.parametrize("merged", [True, False])
def test_an_embedding_takes_no_update_of_a_linear_layer(base: Path, adapter: Path, merged: bool) -> None:
    path = adapter / "adapter_model.safetensors"
    name = "base_model.model.model.embed_tokens.lora_{}.weight"
    pair = {name.format("A"): np.ones((4, 32), np.float32), name.format("B"): np.ones((97, 4), np.float32)}
    safetensors.numpy.save_file(safetensors.numpy.load_file(path) | pair, path)
    with pytest.raises(UserError, match=r"model\.embed_tokens is an embedding"):
        load_adapter(load_model(base), adapter, merge=merged)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("second", [True, False])
def test_a_second_adapter_is_refused_and_changes_nothing(
    base: Path, made: tuple[Path, np.ndarray], first: bool, second: bool
) -> None:
    model = load_model(base)
    load_adapter(model, made[0], merge=first)
    before = weights_of(model)
    with pytest.raises(UserError, match="has an adapter already: load the base model anew"):
        load_adapter(model, made[0], merge=second)
    after = weights_of(model)
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(
    "option",
    [
        {"use_dora": True},
        {"use_qalora": True},
        {"use_bdlora": {"nblocks": 2}},
        {"bias": "lora_only"},
        {"lora_bias": True},
        {"layer_replication": [[0, 1]]},
        {"trainable_token_indices": [3]},
        {"alora_invocation_tokens": [3, 4]},
        {"kasa_config": {"beta": 1e-4}},
        # Options that are not known here: a later version of PEFT may have them.
        {"use_something_new": True},
        {"something_new_config": {"rate": 0}},
        {"something_new": "some"},
        # These starts change the base weights, so the adapter alone is not what was trained.
        {"init_lora_weights": "pissa"},
        {"init_lora_weights": "pissa_niter_4"},
        {"init_lora_weights": "olora"},
        {"init_lora_weights": "loftq"},
        {"init_lora_weights": "corda"},
    ],
    ids=str,
)
def test_options_that_would_change_the_answer_are_refused(adapter: Path, option: dict[str, Any]) -> None:
    set_options(adapter, **option)
    ((name, value),) = option.items()
    with pytest.raises(UserError, match=rf"adapter_config\.json: option {name} = .* is not supported") as error:
        read_adapter(adapter)
    assert json.dumps(value) in str(error.value)


def test_options_that_change_nothing_are_taken(adapter: Path) -> None:
    set_options(
        adapter,
        rank_pattern={},
        alpha_pattern={},
        use_dora=False,
        layers_to_transform=None,
        init_lora_weights="gaussian",
        peft_version="9.9",
        revision=None,
        inference_mode=False,
        megatron_core="megatron.core",
        qalora_group_size=16,
        loftq_config={},
        eva_config=None,
        velora_config={"rank": 1},
        # ms-swift's own.
        lora_dtype=None,
        lorap_emb_lr=1e-6,
        lorap_lr_ratio=16.0,
        layers_pattern=None,
        ensure_weight_tying=False,
        use_something_new=False,
        something_new_config=None,
        target_modules=".*proj",
        exclude_modules=None,
        lora_alpha=6.0,
    )
    assert len(read_adapter(adapter).layers) == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3' is not supported"),
        ({"peft_type": None}, "peft_type None is not supported"),
        ({"r": 0}, "r = 0"),
        ({"r": "4"}, "r = '4'"),
        ({"lora_alpha": None}, "lora_alpha = None"),
        ({"lora_alpha": 10**400}, "lora_alpha = 10000"),
        ({"r": 8}, r"needs lora_A \(8, in\) and lora_B \(out, 8\)"),
    ],
)
def test_a_config_that_makes_no_sense(adapter: Path, options: dict[str, Any], words: str) -> None:
    set_options(adapter, **options)
    with pytest.raises(UserError, match=words) as error:
        read_adapter(adapter)
    assert str(adapter) in str(error.value)


def test_files_that_are_missing_or_broken(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"absent/adapter_config\.json: no such file: is this an adapter folder"):
        read_adapter(tmp_path / "absent")
    tensors = adapter / "adapter_model.safetensors"
    data = tensors.read_bytes()
    tensors.write_bytes(data[:-5])
    with pytest.raises(UserError, match=r"adapter_model\.safetensors: cut off, 5 bytes are missing"):
        read_adapter(adapter)
    tensors.unlink()
    with pytest.raises(UserError, match=r"adapter_model\.safetensors: No such file"):
        read_adapter(adapter)
    (adapter / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(UserError, match=r"adapter_model\.bin are never read here: `ms-medqa import-bin \S+adapter -"):
        read_adapter(adapter)
    tensors.write_bytes(data)
    (adapter / "adapter_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"adapter_config\.json: not readable JSON"):
        read_adapter(adapter)


def test_tensors_that_do_not_belong_there(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    tensors = safetensors.numpy.load_file(path)
    stray = "base_model.model.model.embed_tokens.lora_embedding_A"
    safetensors.numpy.save_file(tensors | {stray: np.zeros((4, 97), np.float32)}, path)
    with pytest.raises(UserError, match=f"unexpected tensor {stray}"):
        read_adapter(adapter)
    half = next(name for name in tensors if "lora_B" in name)
    safetensors.numpy.save_file({name: value for name, value in tensors.items() if name != half}, path)
    with pytest.raises(UserError, match="needs lora_A"):
        read_adapter(adapter)
    safetensors.numpy.save_file({half: tensors[half][0], half.replace("_B", "_A"): tensors[half].T}, path)
    with pytest.raises(UserError, match="needs lora_A"):
        read_adapter(adapter)
    for value in (np.nan, np.inf):
        safetensors.numpy.save_file(tensors | {half: np.full_like(tensors[half], value)}, path)
        with pytest.raises(UserError, match="holds NaN or infinity"):
            read_adapter(adapter)
    safetensors.numpy.save_file(tensors | {half: tensors[half].astype(np.int32)}, path)
    with pytest.raises(UserError, match=rf"{half} has type I32: supported: F64"):
        read_adapter(adapter)
    safetensors.numpy.save_file({}, path)
    with pytest.raises(UserError, match="no adapter tensors"):
        read_adapter(adapter)


def test_a_full_disk_leaves_the_earlier_adapter(base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    model = load_model(base)
    inject_lora(model, 2, 4.0, ["q_proj"])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match=r"no space left writing .*adapter"):
        save_adapter(model, adapter, "base")
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == before
