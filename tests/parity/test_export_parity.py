"""Models merged here, loaded by transformers: PEFT's own merge, token for token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import safetensors.numpy
import tiny

from ms_medqa import models
from ms_medqa.generation import generate, load_model
from ms_medqa.models.shards import Stored, plan_shards
from ms_medqa.peft.export import Exported, export

torch = pytest.importorskip("torch", reason="parity with PEFT needs PyTorch")
transformers = pytest.importorskip("transformers", reason="parity with PEFT needs transformers")
peft = pytest.importorskip("peft", reason="parity with PEFT needs PEFT")
pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("pynative_mode")]

SIZES = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,
    "eos_token_id": None,
    "bos_token_id": None,
}
# Kind, changes of the configuration, stored type, largest shard.
MODELS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "qwen2 tied": ("Qwen2", {"tie_word_embeddings": True}, "bfloat16", "5GB"),
    "llama sharded": ("Llama", {"tie_word_embeddings": False}, "float32", "40KB"),
    "mistral": ("Mistral", {"sliding_window": 8, "tie_word_embeddings": False}, "float32", "5GB"),
    "qwen3": ("Qwen3", {"head_dim": 24, "tie_word_embeddings": False}, "float32", "100KB"),
}
TARGETS = ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"]
IDS = np.random.default_rng(0).integers(1, 400, (2, 20)).astype(np.int32)


class Case:
    """A base that transformers wrote, an adapter that PEFT wrote, and what was merged here."""

    def __init__(self, folder: Path, kind: str, changes: dict[str, Any], stored: str, shard: str) -> None:
        self.base, self.adapter, self.merged = (folder / name for name in ("base", "adapter", "merged"))
        self.stored = stored
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**(SIZES | changes))
        model = getattr(transformers, f"{kind}ForCausalLM")(config)
        model.to(getattr(torch, stored)).save_pretrained(self.base)
        tiny.write_tokenizer(self.base)
        options = peft.LoraConfig(
            r=4,
            lora_alpha=6,
            target_modules=TARGETS,
            rank_pattern={"o_proj": 2},
            use_rslora=True,
            task_type="CAUSAL_LM",
        )
        adapted = peft.get_peft_model(self.plain(), options)
        with torch.no_grad():
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    parameter.copy_(torch.randn_like(parameter) * 0.1)
        adapted.save_pretrained(self.adapter)
        self.result: Exported = export(self.base, self.adapter, self.merged, max_shard_size=shard, check=True)

        # A merge in bfloat16 rounds. Widened, the same base shows the merge alone.
        self.exact = self.merged if stored == "float32" else folder / "exact"
        if stored != "float32":
            export(self.base, self.adapter, self.exact, dtype="float32")

    def plain(self) -> Any:
        return loaded(self.base)

    def reference(self) -> Any:
        """PEFT's own merge, in float32."""
        return peft.PeftModel.from_pretrained(self.plain(), self.adapter).merge_and_unload().eval()


def loaded(folder: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.fixture(scope="module", params=MODELS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("case"), *MODELS[request.param])


def torch_logits(model: Any) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor(IDS).long()).logits.numpy()


def test_logits_are_those_of_peft(case: Case) -> None:
    expected = torch_logits(case.reference())
    assert np.abs(torch_logits(loaded(case.exact)) - expected).max() <= 1e-4
    assert np.abs(expected - torch_logits(case.plain())).max() > 0.5
    assert case.result.comparison is not None
    assert case.result.comparison.ok
    assert np.abs(torch_logits(loaded(case.merged)) - expected).max() <= case.result.comparison.bound


def test_weights_are_rounded_as_peft_rounds_them(case: Case) -> None:
    expected, found = case.reference().to(getattr(torch, case.stored)).state_dict(), loaded(case.merged).state_dict()
    assert found.keys() == expected.keys()
    differing, total = 0, 0
    for name, value in expected.items():
        wanted = value.float().numpy()
        # Sums in another order fall now and then on the other side of a border between two numbers.
        np.testing.assert_allclose(
            found[name].numpy(), wanted, rtol=2**-7 if case.stored == "bfloat16" else 1e-5, atol=1e-6
        )
        differing, total = differing + int((found[name].numpy() != wanted).sum()), total + wanted.size
    if case.stored == "bfloat16":
        assert differing < 1e-3 * total


def test_greedy_tokens_are_ours_unmerged(case: Case) -> None:
    model = load_model(case.base, case.adapter, merge=False)
    ours = generate(model, IDS, max_new_tokens=64, greedy=True, repetition_penalty=1.0, eos_token_id=())
    with torch.no_grad():
        theirs = loaded(case.exact).generate(
            torch.tensor(IDS).long(),
            attention_mask=torch.ones(IDS.shape, dtype=torch.long),
            max_new_tokens=64,
            do_sample=False,
            pad_token_id=0,
        )
    assert theirs.shape[1] == IDS.shape[1] + 64
    assert ours == theirs[:, IDS.shape[1] :].tolist()
    assert all(len(set(row)) > 5 for row in ours)


def test_tokenizer(case: Case) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(case.merged)
    expected = transformers.AutoTokenizer.from_pretrained(case.base)
    for text in tiny.TEXT:
        assert theirs(text)["input_ids"] == expected(text)["input_ids"]


def test_what_other_tools_read(case: Case) -> None:
    """vLLM, vllm-ascend and mindnlp look at these files before they load a tensor."""
    folder = case.merged
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert config["architectures"][0].endswith("ForCausalLM")
    assert config["model_type"] in ("qwen2", "llama", "mistral", "qwen3")
    assert (config.get("torch_dtype") or config.get("dtype")) == case.stored
    assert "auto_map" not in config
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert json.loads((folder / name).read_text("utf-8"))
    paths = sorted(folder.glob("*.safetensors"))
    found = {}
    for path in paths:
        with safetensors.safe_open(path, "pt") as file:
            assert file.metadata() == {"format": "pt"}
            found |= dict.fromkeys(file.keys(), path.name)
            assert {file.get_tensor(key).dtype for key in file.keys()} == {getattr(torch, case.stored)}  # noqa: SIM118
    if len(paths) > 1:
        index = json.loads((folder / "model.safetensors.index.json").read_text("utf-8"))
        assert index["weight_map"] == found
        assert index["metadata"]["total_size"] == case.result.size
    else:
        assert [path.name for path in paths] == ["model.safetensors"]
        assert not (folder / "model.safetensors.index.json").exists()
    names = {name for name, _ in case.plain().named_parameters()}
    assert found.keys() == names


def test_a_head_that_the_config_wrongly_ties(tmp_path: Path) -> None:
    """transformers 5 uses the head of the files; so do we, and what we export says so."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(**(SIZES | {"tie_word_embeddings": True}))
    transformers.Qwen2ForCausalLM(config).save_pretrained(tmp_path / "base")
    path = tmp_path / "base" / "model.safetensors"
    weights = safetensors.numpy.load_file(path)
    tied = torch_logits(loaded(tmp_path / "base"))
    weights["lm_head.weight"] = np.roll(weights["model.embed_tokens.weight"], 1, 0)
    safetensors.numpy.save_file(weights, path, metadata={"format": "pt"})
    expected = torch_logits(loaded(tmp_path / "base"))
    if int(transformers.__version__.partition(".")[0]) >= 5:
        assert np.abs(expected - tied).max() > 1
    else:
        pytest.skip("transformers 4 ties them all the same")
    export(tmp_path / "base", None, tmp_path / "out")
    for folder in (tmp_path / "base", tmp_path / "out"):
        np.testing.assert_allclose(models.load_model(folder)(ms.Tensor(IDS)).asnumpy(), expected, atol=1e-4)
    np.testing.assert_allclose(torch_logits(loaded(tmp_path / "out")), expected, atol=1e-6)


@pytest.mark.parametrize("limit", [50, 100, 250, 10_000])
def test_shards_are_those_of_the_library(limit: int) -> None:
    hub = pytest.importorskip("huggingface_hub")
    rng = np.random.default_rng(limit)
    tensors = {f"t{i}": torch.zeros(int(size), dtype=torch.float16) for i, size in enumerate(rng.integers(1, 90, 40))}
    split = hub.split_torch_state_dict_into_shards(tensors, max_shard_size=limit)
    plan = plan_shards({name: Stored("float16", tuple(value.shape)) for name, value in tensors.items()}, limit)
    if not split.is_sharded:
        assert list(plan.files) == ["model.safetensors"]
        return
    assert {file: list(names) for file, names in plan.files.items()} == split.filename_to_tensors
    assert plan.index is not None
    assert plan.index["metadata"]["total_size"] == split.metadata["total_size"]
