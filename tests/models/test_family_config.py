"""What a `config.json` may say, and what is refused rather than ignored."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import decoders
import pytest

from ms_medqa.config import UserError
from ms_medqa.models import families
from ms_medqa.models.companions import companions
from ms_medqa.models.config import RopeScaling
from ms_medqa.models.families import read_config
from ms_medqa.models.families.base import Family

LINEAR = {"type": "linear", "factor": 4.0}
ORIGINAL = "original_max_position_embeddings"
WINDOWS = ["sliding_attention", "full_attention"]


def llama(**changes: Any) -> dict[str, Any]:
    return decoders.config_of("LlamaForCausalLM", **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rope_parameters": {"full_attention": {"rope_theta": 5e5}}}, "rope_parameters: full_attention not supported"),
        ({"rope_scaling": {"type": "dynamic", "alpha": 1000, "factor": 1.0}}, "alpha not supported.*'dynamic'.*factor"),
        ({"rope_scaling": {"factor": 4.0}}, "factor not supported.*'default'.*other types: linear, dynamic, llama3"),
        ({"rope_scaling": LINEAR | {"rope_type": "default"}}, "'default' and type = 'linear' must be the same"),
        ({"rope_scaling": LINEAR | {"bogus": 1, "beta_fast": 32}}, "bogus, beta_fast not supported"),
        ({"rope_scaling": LINEAR | {"partial_rotary_factor": 0.5}}, "partial_rotary_factor not supported"),
        ({"rope_scaling": LINEAR | {ORIGINAL: 32}}, "original_max_position_embeddings not supported"),
        ({"rope_scaling": {"rope_type": ["linear"], "factor": 4.0}}, r"rope scaling \['linear'\] is not supported"),
        ({"rope_scaling": []}, r"rope_scaling: rope scaling \[\] must be an object"),
        ({"rope_scaling": LINEAR | {"factor": {}}}, "factor = {} must be a number"),
        ({"rope_scaling": LINEAR | {"factor": 1e300}}, r"64 times factor = 1e\+300 is above 2147483647"),
        ({"rope_scaling": decoders.LLAMA3 | {ORIGINAL: 0}}, "original_max_position_embeddings = 0 must be"),
        ({"rope_scaling": decoders.LLAMA3, ORIGINAL: 0}, "original_max_position_embeddings = 0 must be"),
        ({"rope_theta": 1e-300}, r"rope_theta = 1e-300 must be a number from 1 to 1e\+30"),
        ({"rope_parameters": {"rope_theta": 1e31}}, "rope_theta = 1e"),
        ({"torch_dtype": ["a"]}, r"torch_dtype = \['a'\] must be .*bfloat16"),
        ({"dtype": [], "torch_dtype": "float16"}, r"dtype = \[\] must be"),
        ({"num_hidden_layers": 2**30}, "num_hidden_layers = 1073741824 is above 1000"),
        ({"head_dim": 1026}, "head_dim = 1026 is above 1024"),
        ({"hidden_size": 2**14, "num_attention_heads": 1, "num_key_value_heads": 1}, "head_dim = 16384 is above"),
        ({"num_attention_heads": 2**20, "head_dim": 8}, "num_attention_heads = 1048576 is above"),
        ({"hidden_size": 2**20}, "hidden_size = 1048576 is above"),
        ({"intermediate_size": 2**30}, "intermediate_size = 1073741824 is above"),
        ({"vocab_size": 2**30}, "vocab_size = 1073741824 is above"),
    ],
)
def test_what_a_config_must_not_say(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=rf"^here: .*{words}") as error:
        read_config(llama(**changes), "here")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("family", ["Mistral", "Qwen2", "Qwen3"])
def test_a_window_for_each_of_too_many_layers_is_never_built(family: str) -> None:
    config = decoders.config_of(f"{family}ForCausalLM", use_sliding_window=True, sliding_window=4, head_dim=8)
    with pytest.raises(UserError, match="num_hidden_layers = 2000000000 is above 1000"):
        read_config(config | {"num_hidden_layers": 2 * 10**9}, "here")


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        ("Mistral", {"sliding_window": 6, "layer_types": ["full_attention"] * 2}, "contradicts sliding_window = 6"),
        ("Mistral", {"sliding_window": 6, "layer_types": WINDOWS}, "contradicts sliding_window = 6"),
        ("Mistral", {"sliding_window": None, "layer_types": WINDOWS}, "names sliding_attention, but"),
        ("Qwen2", {"use_sliding_window": False, "sliding_window": 4, "layer_types": WINDOWS}, "sliding_attention, but"),
        ("Qwen3", {"use_sliding_window": False, "sliding_window": 4, "layer_types": WINDOWS}, "sliding_attention, but"),
        (
            "Qwen3",
            {"use_sliding_window": True, "sliding_window": None, "layer_types": WINDOWS},
            "use_sliding_window is",
        ),
        ("Qwen2", {"use_sliding_window": False, "layer_types": ["full_attention"]}, "for each of the 2 layers"),
    ],
)
def test_kinds_of_layers_that_contradict_the_window(family: str, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        read_config(decoders.config_of(f"{family}ForCausalLM", **changes), "here")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("family", "changes", "windows"),
    [
        ("Mistral", {"sliding_window": 6, "layer_types": ["sliding_attention"] * 2}, (6, 6)),
        ("Mistral", {"sliding_window": None, "layer_types": ["full_attention"] * 2}, ()),
        ("Qwen2", {"use_sliding_window": False, "sliding_window": 6, "layer_types": ["full_attention"] * 2}, ()),
    ],
)
def test_kinds_of_layers_that_agree_with_the_window(family: str, changes: dict[str, Any], windows: Any) -> None:
    assert read_config(decoders.config_of(f"{family}ForCausalLM", **changes), "here").windows == windows


@pytest.mark.parametrize(
    ("changes", "scaling"),
    [
        ({"rope_scaling": {}}, RopeScaling()),
        (
            {"rope_parameters": {"rope_theta": 10000, "rope_type": "default", "partial_rotary_factor": 1.0}},
            RopeScaling(),
        ),
        ({"rope_scaling": {"type": "default", "factor": 1.0, ORIGINAL: 64}}, RopeScaling()),
        (
            {"rope_scaling": LINEAR | {"rope_type": "linear", "mscale": None, "attention_factor": None}},
            RopeScaling("linear", 4.0, 64),
        ),
        ({"rope_scaling": {"rope_type": None, "type": "dynamic", "factor": 2}}, RopeScaling("dynamic", 2.0, 64)),
        (
            {"rope_scaling": decoders.LLAMA3 | {"type": "llama3", ORIGINAL: None}},
            RopeScaling("llama3", 8.0, 64, 1.0, 4.0),
        ),
        ({"rope_scaling": decoders.LLAMA3, ORIGINAL: 16}, RopeScaling("llama3", 8.0, 16, 1.0, 4.0)),
        ({"rope_scaling": decoders.LLAMA3, ORIGINAL: None}, RopeScaling("llama3", 8.0, 32, 1.0, 4.0)),
        ({ORIGINAL: 16}, RopeScaling()),
    ],
)
def test_rope_keys_that_files_have(changes: dict[str, Any], scaling: RopeScaling) -> None:
    config = read_config(llama(**changes), "here")
    assert (config.rope_scaling, config.rope_theta) == (scaling, 10000.0)


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({"torch_dtype": "torch.bfloat16"}, "bfloat16"),
        ({"dtype": "float16", "torch_dtype": "bfloat16"}, "float16"),
        ({"dtype": None, "torch_dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "auto"}, "float32"),
    ],
)
def test_the_stored_type(changes: dict[str, Any], dtype: str) -> None:
    assert read_config(llama(**changes), "here").dtype == dtype


@pytest.mark.parametrize(("written", "ends"), [(-1, ()), (decoders.VOCAB, ()), ([3, -1, 96, 97], (3, 96))])
def test_end_tokens_that_the_vocabulary_does_not_have_end_nothing(written: Any, ends: tuple[int, ...]) -> None:
    assert read_config(llama(eos_token_id=written), "here").eos_token_ids == ends


@pytest.mark.parametrize("remote", [True, False])
def test_a_new_family_says_itself_whether_others_need_its_code(
    remote: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    novel = Family("novel", ("NovelLM",), families.REGISTRY["llama"].read_config, remote_code=remote)
    monkeypatch.setitem(families.REGISTRY, "novel", novel)
    auto_map = {"AutoModelForCausalLM": "modeling_novel.NovelLM"}
    (tmp_path / "config.json").write_text(json.dumps(llama(architectures=["NovelLM"], auto_map=auto_map)))
    (tmp_path / "modeling_novel.py").write_text("")
    found = companions(tmp_path, family="novel")
    assert found.code == (["modeling_novel.py"] if remote else [])
    assert ("auto_map" in json.loads(found.files["config.json"])) == remote
