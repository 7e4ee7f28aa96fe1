"""Where a token stands: scalings, windows, ALiBi, and the longest sequence that a model takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import reference
from mindspore import Tensor

from ms_medqa import generate
from ms_medqa.config import UserError
from ms_medqa.models import load_model
from ms_medqa.models.checkpoint import load_config
from ms_medqa.models.positions import alibi_slopes, inverse_frequencies

pytestmark = pytest.mark.usefixtures("pynative_mode")

IDS = [5, 9, 2, 33, 60, 61, 7, 90, 1, 1, 4, 50]
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 32}


def llama(**changes: Any) -> dict[str, Any]:
    return decoders.config_of("LlamaForCausalLM", **changes)


def run(model: Any, ids: list[int]) -> np.ndarray:
    return model(Tensor(np.array([ids], np.int32))).asnumpy()[0]


class TestFrequencies:
    """How far one position turns each pair."""

    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {"head_dim": 12, "rope_theta": 5e5},
            {"rope_scaling": {"type": "linear", "factor": 4.0}},
            {"head_dim": 32, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
            # The numbers of Llama 3.1.
            {
                "head_dim": 128,
                "rope_theta": 5e5,
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": 8192},
            },
        ],
    )
    def test_they_follow_the_formula(self, changes: dict[str, Any], tmp_path: Path) -> None:
        config = llama(**changes)
        decoders.write(tmp_path, config)
        found = inverse_frequencies(load_config(tmp_path))
        np.testing.assert_allclose(found, reference.frequencies(config), rtol=1e-6)

    def test_llama3_keeps_fast_pairs_stretches_slow_ones_and_mixes_between(self, tmp_path: Path) -> None:
        # Wavelengths 6.28, 19.9, 62.8 … against borders at 32 / 4 and 32 / 1.
        decoders.write(tmp_path, llama(head_dim=16, rope_scaling={"rope_type": "llama3", **LLAMA3}))
        found = inverse_frequencies(load_config(tmp_path))
        plain = 10000.0 ** (-np.arange(8) / 8)
        assert found[0] == pytest.approx(1.0)
        assert found[2:] == pytest.approx(plain[2:] / 8)
        share = (32 / (2 * np.pi / plain[1]) - 1) / (4 - 1)
        assert found[1] == pytest.approx((1 - share) * plain[1] / 8 + share * plain[1])
        assert plain[1] / 8 < found[1] < plain[1]

    def test_llama3_counts_from_the_whole_length_where_the_file_names_no_other(self, tmp_path: Path) -> None:
        scaling = {"rope_type": "llama3", **LLAMA3}
        del scaling["original_max_position_embeddings"]
        decoders.write(tmp_path, llama(head_dim=16, max_position_embeddings=32, rope_scaling=scaling))
        expected = reference.frequencies(llama(head_dim=16, rope_scaling=LLAMA3 | {"rope_type": "llama3"}))
        np.testing.assert_allclose(inverse_frequencies(load_config(tmp_path)), expected, rtol=1e-6)

    def test_dynamic_scaling_goes_by_the_call_alone(self, tmp_path: Path) -> None:
        config = llama(max_position_embeddings=8, rope_scaling={"type": "dynamic", "factor": 2.0})
        weights = decoders.write(tmp_path, config)
        model = load_model(tmp_path)
        plain = llama(max_position_embeddings=8)
        np.testing.assert_allclose(run(model, IDS[:8]), decoders.logits(weights, plain, IDS[:8]), atol=2e-5)
        long = run(model, IDS)
        np.testing.assert_allclose(long, decoders.logits(weights, config, IDS), atol=2e-5)
        assert np.abs(long - decoders.logits(weights, plain, IDS)).max() > 0.05
        # A long call before leaves nothing behind.
        np.testing.assert_allclose(run(model, IDS[:8]), decoders.logits(weights, plain, IDS[:8]), atol=2e-5)


class TestSpelling:
    """`config.json` as transformers 4 and 5 write it."""

    @pytest.mark.parametrize("key", ["type", "rope_type"])
    @pytest.mark.parametrize(
        ("kind", "scaling"),
        [
            ("default", None),
            ("linear", {"factor": 4.0}),
            ("dynamic", {"factor": 2.0}),
            ("llama3", LLAMA3),
        ],
    )
    def test_both_give_the_same_model(
        self, kind: str, scaling: dict[str, Any] | None, key: str, tmp_path: Path
    ) -> None:
        common = llama(head_dim=16, max_position_embeddings=8)
        del common["rope_theta"]
        old = {"rope_theta": 5e5, "rope_scaling": scaling and {key: kind, **scaling}, "torch_dtype": "float16"}
        new = {"rope_parameters": {"rope_type": kind, "rope_theta": 5e5, **(scaling or {})}, "dtype": "float16"}
        weights = decoders.write(tmp_path / "4", common | old)
        decoders.write(tmp_path / "5", common | new, weights)
        first, second = load_config(tmp_path / "4"), load_config(tmp_path / "5")
        assert first == second
        assert (first.rope_theta, first.rope_scaling.kind, first.dtype) == (5e5, kind, "float16")
        if key == "type":  # the other half of the tests computes
            return
        length = 8 if kind in ("default", "llama3") else len(IDS)
        expected = decoders.logits(weights, common | old, IDS[:length])
        np.testing.assert_allclose(run(load_model(tmp_path / "5"), IDS[:length]), expected, atol=2e-5)

    @pytest.mark.parametrize(
        ("family", "old", "new"),
        [
            ("Mistral", {"sliding_window": None}, {"sliding_window": None}),
            (
                "Qwen2",
                {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
                {
                    "use_sliding_window": True,
                    "sliding_window": 4,
                    "max_window_layers": 1,
                    "layer_types": ["full_attention", "sliding_attention"],
                },
            ),
            (
                "Qwen3",
                {"use_sliding_window": False, "sliding_window": 4096, "max_window_layers": 36, "head_dim": 8},
                {
                    "use_sliding_window": False,
                    "sliding_window": None,
                    "layer_types": ["full_attention", "full_attention"],
                    "head_dim": 8,
                },
            ),
        ],
    )
    def test_windows(self, family: str, old: dict[str, Any], new: dict[str, Any], tmp_path: Path) -> None:
        for folder, changes in (("4", old), ("5", new)):
            decoders.write(tmp_path / folder, decoders.config_of(f"{family}ForCausalLM", **changes))
        first, second = load_config(tmp_path / "4"), load_config(tmp_path / "5")
        layers = [[config.window(layer) for layer in range(2)] for config in (first, second)]
        assert layers[0] == layers[1] == ([0, 4] if family == "Qwen2" else [0, 0])


class TestSight:
    """Which tokens a token sees, and from how far."""

    @pytest.mark.parametrize("size", [1, 4, 11])
    def test_a_window_counts_the_token_itself(self, size: int, tmp_path: Path) -> None:
        decoders.write(tmp_path, decoders.config_of("MistralForCausalLM", num_hidden_layers=1, sliding_window=size))
        model = load_model(tmp_path)
        changed = np.abs(run(model, IDS) - run(model, [8, *IDS[1:]])).max(1) > 1e-4
        assert changed.tolist() == [True] * size + [False] * (len(IDS) - size)

    @pytest.mark.parametrize(
        ("heads", "exponents"),
        [
            (1, [8]),
            (4, [2, 4, 6, 8]),
            (5, [2, 4, 6, 8, 1]),
            (6, [2, 4, 6, 8, 1, 3]),
            (8, [1, 2, 3, 4, 5, 6, 7, 8]),
            (12, [1, 2, 3, 4, 5, 6, 7, 8, 0.5, 1.5, 2.5, 3.5]),
            # Baichuan-13B.
            (40, [*(i / 4 for i in range(1, 33)), *(i / 8 for i in range(1, 17, 2))]),
        ],
    )
    def test_alibi_slopes(self, heads: int, exponents: list[float]) -> None:
        expected = [2.0**-exponent for exponent in exponents]
        assert alibi_slopes(heads) == pytest.approx(expected, rel=1e-6)
        assert reference.slopes(heads) == pytest.approx(expected)

    def test_alibi_scores_fall_with_distance_and_know_no_place(self, tmp_path: Path) -> None:
        config = decoders.baichuan_config("13B", num_hidden_layers=1)
        weights = decoders.random_weights(config)
        weights["model.layers.0.self_attn.W_pack.weight"][:64] = 0  # no queries and keys: distance alone speaks
        decoders.write(tmp_path, config, weights)
        model = load_model(tmp_path)
        out = run(model, IDS)
        np.testing.assert_allclose(out, decoders.logits(weights, config, IDS), atol=2e-5)
        far, near = (np.abs(out - run(model, [*IDS[:at], 8, *IDS[at + 1 :]]))[-1].max() for at in (0, 10))
        assert 0 < far < near / 3


LIMITS = [
    pytest.param(llama(max_position_embeddings=16), 16, id="plain"),
    pytest.param(llama(max_position_embeddings=16, rope_scaling={"type": "linear", "factor": 1.5}), 24, id="linear"),
    pytest.param(
        llama(max_position_embeddings=16, rope_scaling={"rope_type": "dynamic", "factor": 2.0}), 32, id="dynamic"
    ),
    # Llama 3 names the stretched length itself.
    pytest.param(llama(max_position_embeddings=16, rope_scaling={"rope_type": "llama3", **LLAMA3}), 16, id="llama3"),
    pytest.param(
        decoders.config_of("MistralForCausalLM", max_position_embeddings=16, sliding_window=4), 16, id="mistral"
    ),
    # The chunks that take over where plain attention ends are left out.
    pytest.param(
        decoders.config_of(dual_chunk_attention_config={"chunk_size": 16, "local_size": 4}), 16, id="qwen2 with chunks"
    ),
    pytest.param(decoders.qwen_config(seq_length=16), 16, id="qwen"),
    pytest.param(decoders.baichuan_config("7B", max_position_embeddings=16), 16, id="baichuan-7b"),
    pytest.param(decoders.baichuan_config("2-13B", model_max_length=16), 16, id="baichuan2-13b"),
]


@pytest.mark.parametrize(("config", "limit"), LIMITS)
class TestLimit:
    """The longest sequence is taken, one more token is a clear error."""

    def test_of_a_call(self, config: dict[str, Any], limit: int, tmp_path: Path) -> None:
        weights = decoders.write(tmp_path, config)
        model = load_model(tmp_path)
        ids = (IDS * 3)[: limit + 1]
        np.testing.assert_allclose(run(model, ids[:-1]), decoders.logits(weights, config, ids[:-1]), atol=2e-5)
        with pytest.raises(UserError, match=f"has {limit + 1} tokens.*holds {limit} positions") as error:
            run(model, ids)
        assert "\n" not in str(error.value)
        # Padding takes no position.
        for side in ("left", "right"):
            padded, mask = decoders.padded([ids[:-1], ids[:3]], side, limit + 4)
            out = model(Tensor(padded), Tensor(mask)).asnumpy()
            expected = decoders.logits(weights, config, ids[:3], [limit] * 3)
            np.testing.assert_allclose(out[1][mask[1] == 1], expected, atol=2e-5)

    def test_of_an_answer(self, config: dict[str, Any], limit: int, tmp_path: Path) -> None:
        decoders.write(tmp_path, config)
        model = load_model(tmp_path)
        prompt = (IDS * 3)[: limit - 2]
        with pytest.raises(UserError, match=f"{limit} positions"):
            generate(model, [prompt], max_new_tokens=3, greedy=True)
        if limit == 32:  # a compilation is slow, and all share the rule
            assert len(generate(model, [prompt], max_new_tokens=2, greedy=True, eos_token_id=[])[0]) == 2
