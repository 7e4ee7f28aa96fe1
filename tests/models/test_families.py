"""Each family's model against the reference, without and with a cache; folders that are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import decoders
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from ms_medqa.backend import few_rows
from ms_medqa.backend.few_rows_library import library
from ms_medqa.config import UserError
from ms_medqa.generation import MedicalQA, generate
from ms_medqa.models import load_model, loading
from ms_medqa.models.cache import CachedDecoder
from ms_medqa.models.families import ARCHITECTURES
from ms_medqa.models.loading import assign
from ms_medqa.models.prompt_reader import PromptReader

pytestmark = pytest.mark.usefixtures("pynative_mode")

PROMPTS = [[5, 9, 2, 33, 60, 61, 7], [90, 1, 1, 4], [8, 77, 21, 3, 3, 96, 50, 12, 13, 14, 15]]
ANSWERS = [[4, 70, 71, 4, 9, 88, 0, 1], [2, 2, 45, 46, 47, 3, 12, 80], [19, 33, 5, 6, 6, 94, 93, 7]]


def llama(**changes: Any) -> dict[str, Any]:
    return decoders.config_of("LlamaForCausalLM", **changes)


def mistral(window: int | None) -> dict[str, Any]:
    return decoders.config_of("MistralForCausalLM", sliding_window=window, rms_norm_eps=1e-5)


def qwen3(**changes: Any) -> dict[str, Any]:
    return decoders.config_of("Qwen3ForCausalLM", **({"head_dim": 12, "rope_theta": 1e6} | changes))


SHAPES: dict[str, dict[str, Any]] = {
    "llama": llama(rms_norm_eps=1e-5),
    "llama with biases, a key head for each query head": llama(
        attention_bias=True, mlp_bias=True, num_key_value_heads=4
    ),
    "llama with one key head for all and wide heads": llama(num_key_value_heads=1, head_dim=12),
    "deepseek-coder: linear scaling": llama(rope_theta=1e5, rope_scaling={"type": "linear", "factor": 4.0}),
    "llama with dynamic scaling, longer from the start": llama(
        max_position_embeddings=9, rope_scaling={"type": "dynamic", "factor": 3.0}
    ),
    "llama with dynamic scaling, longer while it answers": llama(
        max_position_embeddings=14, rope_scaling={"rope_type": "dynamic", "factor": 2.0}
    ),
    # Its pairs turn over 6, 20, 63 and more positions: one keeps its frequency, one is mixed, the others are stretched.
    "llama 3": llama(head_dim=16, rope_scaling=decoders.LLAMA3),
    "mistral with a window": mistral(4),
    "mistral without": mistral(None),
    "qwen2": decoders.config_of(),
    "qwen2, tied, one key head for all": decoders.config_of(num_key_value_heads=1, tie_word_embeddings=True),
    "qwen2 with a window above": decoders.config_of(use_sliding_window=True, sliding_window=3, max_window_layers=1),
    "qwen2 with a window where layer_types says": decoders.config_of(
        use_sliding_window=True, sliding_window=5, layer_types=["sliding_attention", "full_attention"]
    ),
    "qwen3": qwen3(tie_word_embeddings=True),
    "qwen3 with biases and a window": qwen3(
        attention_bias=True, use_sliding_window=True, sliding_window=4, max_window_layers=0
    ),
    "qwen": decoders.qwen_config(),
    "qwen with all biases": decoders.qwen_config(no_bias=False),
    "baichuan-7b": decoders.baichuan_config("7B"),
    "baichuan-13b": decoders.baichuan_config("13B"),
    "baichuan-13b with six heads": decoders.baichuan_config("13B", hidden_size=48, num_attention_heads=6),
    "baichuan2-7b": decoders.baichuan_config("2-7B"),
    "baichuan2-13b": decoders.baichuan_config("2-13B", hidden_size=40, num_attention_heads=5),
}

# The others differ from these in nothing that a cache sees: names, the head, how fast a pair turns.
CACHED = [
    "llama",
    "llama with biases, a key head for each query head",
    "llama with one key head for all and wide heads",
    "llama with dynamic scaling, longer from the start",
    "llama with dynamic scaling, longer while it answers",
    "mistral with a window",
    "qwen2 with a window where layer_types says",
    "qwen3 with biases and a window",
    "qwen with all biases",
    "baichuan-13b with six heads",
    "baichuan2-13b",
]

Made = tuple[Any, dict[str, Any], decoders.Weights]


@pytest.fixture(scope="module", params=SHAPES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    config = SHAPES[request.param]
    folder = tmp_path_factory.mktemp("family")
    weights = decoders.write(folder, config)
    return load_model(folder), config, weights


def close(found: np.ndarray, expected: np.ndarray) -> None:
    assert expected.std() > 0.5
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits(made: Made, side: str) -> None:
    model, config, weights = made
    ids, mask = decoders.padded(PROMPTS, side, 13)
    out = model(Tensor(ids), Tensor(mask)).asnumpy()
    assert out.dtype == np.float32
    for row, prompt in enumerate(PROMPTS):
        close(out[row][mask[row] == 1], decoders.logits(weights, config, prompt, [11] * len(prompt)))


@pytest.mark.parametrize(
    "kernels",
    [
        pytest.param(True, marks=pytest.mark.skipif(library() is None, reason="no C++ compiler at the installation")),
        False,
    ],
    ids=["with kernels of our own", "with operators of MindSpore"],
)
@pytest.mark.parametrize("made", CACHED, indirect=True)
def test_logits_with_a_cache(made: Made, kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernels:
        monkeypatch.setattr(few_rows, "kernel", lambda: None)
        monkeypatch.setattr(few_rows, "step_kernel", lambda: None)
    model, config, weights = made
    cached = CachedDecoder(PromptReader(model), batch=3, length=20)
    # The first prompt in pieces, as one that is longer than a graph takes or that shares its start with another.
    found: list[list[np.ndarray]] = [[], [], []]
    for row, prompt in enumerate(PROMPTS):
        start = 0
        for width, tokens in ((4, 3), (4, 3), (4, 1)) if row == 0 else ((16, len(prompt)),):
            piece = prompt[start : start + tokens]
            last = cached.read(piece, row, start, width, len(prompt)).asnumpy()
            start += len(piece)
        assert start == len(prompt)
        found[row].append(last[0])
    lengths = np.array([len(prompt) for prompt in PROMPTS], np.int32)
    for step, tokens in enumerate(np.array(ANSWERS, np.int32).T):
        logits = cached.step(Tensor(tokens), Tensor(lengths + np.int32(step))).asnumpy()
        for row in range(3):
            found[row].append(logits[row])
    for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        # What the row had when each token was read: its neighbours count for nothing.
        longest = [len(prompt)] * len(prompt) + [len(prompt) + 1 + step for step in range(len(answer))]
        expected = decoders.logits(weights, config, prompt + answer, longest)
        close(np.stack(found[row]), expected[len(prompt) - 1 :])


@pytest.mark.parametrize("made", CACHED, indirect=True)
def test_logits_of_prompts_that_are_read_together(made: Made) -> None:
    model, config, weights = made
    cached = CachedDecoder(PromptReader(model), batch=4, length=20)
    # Not in the order of the rows, and one row stays free.
    rows = [2, 0, 3]
    read = cached.read_together(PROMPTS, rows, 32).asnumpy()
    newest, lengths = np.zeros(4, np.int32), np.zeros(4, np.int32)
    newest[rows] = [answer[0] for answer in ANSWERS]
    lengths[rows] = [len(prompt) for prompt in PROMPTS]
    stepped = cached.step(Tensor(newest), Tensor(lengths)).asnumpy()
    for place, (row, prompt, answer) in enumerate(zip(rows, PROMPTS, ANSWERS, strict=True)):
        longest = [len(prompt)] * len(prompt) + [len(prompt) + 1]
        expected = decoders.logits(weights, config, prompt + answer[:1], longest)
        close(np.stack([read[place], stepped[row]]), expected[-2:])


@pytest.mark.parametrize(
    "config",
    [
        decoders.qwen_config(no_bias=False, seq_length=256, max_position_embeddings=256),
        decoders.baichuan_config("7B", max_position_embeddings=256),
        decoders.baichuan_config("13B", hidden_size=48, num_attention_heads=6, model_max_length=256),
        decoders.baichuan_config("2-7B", max_position_embeddings=256, model_max_length=256),
        decoders.baichuan_config("2-13B", hidden_size=40, num_attention_heads=5, model_max_length=256),
    ],
    ids=["qwen", "baichuan-7b", "baichuan-13b", "baichuan2-7b", "baichuan2-13b"],
)
def test_128_greedy_tokens_of_a_batch(config: dict[str, Any], tmp_path: Path) -> None:
    """Of the families that transformers has not; the others are compared with its own loop in `tests/parity`."""
    weights = decoders.write(tmp_path, config)
    answers = generate(load_model(tmp_path), PROMPTS, max_new_tokens=128, greedy=True, eos_token_id=[])
    assert all(len(set(answer)) > 5 for answer in answers)  # answers that go somewhere
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        # If each token is the likeliest behind those before it, a greedy loop finds the same.
        likeliest = decoders.logits(weights, config, prompt + answer).argmax(1)
        assert likeliest[len(prompt) - 1 : -1].tolist() == answer


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["qwen with all biases", "baichuan2-7b"])
def test_fused_rows_are_read_from_each_stored_type(name: str, stored: str, tmp_path: Path) -> None:
    config = SHAPES[name]
    # Eight significant bits, and none so small that float16 would round them.
    weights = {
        tensor: (value.view(np.uint32) & 0xFFFF0000).view(np.float32)
        for tensor, value in decoders.random_weights(config, seed=5).items()
    }
    weights = {tensor: np.where(np.abs(value) < 1e-3, 0.25, value) for tensor, value in weights.items()}
    decoders.write(tmp_path, config)
    (tmp_path / "model.safetensors").write_bytes(decoders.serialize(weights, stored))
    out = load_model(tmp_path, dtype="float32")(Tensor(np.array(PROMPTS[:1], np.int32))).asnumpy()
    close(out[0], decoders.logits(weights, config, PROMPTS[0]))


def test_baichuan2_is_known_by_its_vocabulary_alone(tmp_path: Path) -> None:
    config = decoders.baichuan_config(
        "7B", architectures=["BaichuanForCausalLM"], vocab_size=125696, hidden_size=8, num_attention_heads=2
    )
    assert "z_loss_weight" not in config
    weights = decoders.write(tmp_path, config)
    out = load_model(tmp_path)(Tensor(np.array(PROMPTS[:1], np.int32))).asnumpy()
    close(out[0], decoders.logits(weights, config, PROMPTS[0]))


@pytest.mark.parametrize("trained", [False, True])
def test_a_normalized_head_computes_the_same_loaded_or_trained(trained: bool, tmp_path: Path) -> None:
    config = SHAPES["baichuan2-7b"]
    weights = decoders.write(tmp_path, config)
    model = load_model(tmp_path)
    model.normalize_head = trained
    if trained:  # its rows leave length 1
        assign(model.lm_head.weight, weights["lm_head.weight"] * 2)
    out = model(Tensor(np.array(PROMPTS[:1], np.int32))).asnumpy()
    close(out[0], decoders.logits(weights, config, PROMPTS[0]))


@pytest.mark.parametrize("name", ["baichuan2-13b", "mistral with a window", "qwen3 with biases and a window"])
def test_float16_keeps_masks_distances_norms_and_a_head_of_unit_rows(name: str, tmp_path: Path) -> None:
    config = SHAPES[name]
    weights = decoders.random_weights(config)
    weights = {tensor: value.astype(np.float16).astype(np.float32) for tensor, value in weights.items()}
    decoders.write(tmp_path, config, weights)
    model = load_model(tmp_path, dtype="float16")
    assert {parameter.dtype for parameter in model.get_parameters()} == {ms.float16}
    ids, mask = decoders.padded(PROMPTS, "left", 13)
    # The second time, the head is normalized where it is used.
    for model.normalize_head in {False, config.get("z_loss_weight") == 0}:
        out = model(Tensor(ids), Tensor(mask)).asnumpy()
        for row, prompt in enumerate(PROMPTS):
            expected = decoders.logits(weights, config, prompt)
            np.testing.assert_allclose(out[row][mask[row] == 1], expected, atol=0.04)


def test_a_normalized_head_is_loaded_without_a_second_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # More rows than one block of them.
    config = decoders.baichuan_config("2-7B", vocab_size=5000)
    rows = decoders.write(tmp_path, config)["lm_head.weight"]
    # What has been read becomes the parameter; writing into one that has its memory would take a matrix more.
    monkeypatch.delattr(loading, "assign")
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(load_model(tmp_path).lm_head.weight.asnumpy(), rows, atol=1e-6)


def test_frequency_buffers_of_old_checkpoints_are_no_fault(tmp_path: Path) -> None:
    config = SHAPES["baichuan-7b"]
    weights = decoders.random_weights(config)
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32) for i in range(2)}
    decoders.write(tmp_path, config, weights | buffers)
    out = load_model(tmp_path)(Tensor(np.array(PROMPTS[:1], np.int32))).asnumpy()
    close(out[0], decoders.logits(weights, config, PROMPTS[0]))


def test_a_folder_without_a_tokenizer_is_a_model_but_answers_no_question(tmp_path: Path) -> None:
    decoders.write(tmp_path, SHAPES["qwen"])
    load_model(tmp_path)
    with pytest.raises(UserError, match="tokenizer") as error:
        MedicalQA(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["ChatGLMModel", "GPT2LMHeadModel"])
def test_another_family_is_refused_with_the_list_of_those_that_work(name: str, tmp_path: Path) -> None:
    decoders.write(tmp_path, llama(architectures=[name]))
    with pytest.raises(UserError, match=rf"config\.json: '{name}' is not a supported") as error:
        load_model(tmp_path)
    listed = str(error.value).split("supported: ")[-1]
    assert {*ARCHITECTURES} <= {part.strip(" )") for part in listed.split(",")}
    assert {"QWenLMHeadModel", "BaiChuanForCausalLM", "MistralForCausalLM", "Qwen3ForCausalLM"} < {*ARCHITECTURES}
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["llama", "mistral without", "qwen2", "qwen3", "qwen", "baichuan-7b", "baichuan-13b"])
def test_quantized_weights_are_refused(name: str, tmp_path: Path) -> None:
    decoders.write(tmp_path, SHAPES[name] | {"quantization_config": {"quant_method": "gptq", "bits": 4}})
    with pytest.raises(UserError, match=r"config\.json: quantization_config"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rotary_pct": 0.25}, "rotary_pct = 0.25 is not supported"),
        ({"scale_attn_weights": False}, "scale_attn_weights = False is not supported"),
        ({"apply_residual_connection_post_layernorm": True}, "post_layernorm = True is not supported"),
        ({"intermediate_size": 97}, "intermediate_size = 97 must be even"),
        ({"layer_norm_epsilon": "1e-6"}, "1e-6' must be a number"),
    ],
)
def test_options_of_qwen_that_are_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    decoders.write(tmp_path, decoders.qwen_config(**changes), {"none": np.zeros(1, np.float32)})
    with pytest.raises(UserError, match=words) as error:
        load_model(tmp_path)
    assert str(tmp_path / "config.json") in str(error.value)
