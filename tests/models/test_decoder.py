"""What a model computes: the formula, padding, packing, compute types, weights that change later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import decoders
import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from ms_medqa.config import UserError
from ms_medqa.models import load_model
from ms_medqa.models.loading import assign

pytestmark = pytest.mark.usefixtures("graph_mode")

SEQUENCES = [[5, 9, 2, 33, 60, 61, 7], [90, 1, 1, 4], [8, 77, 21, 3, 3, 96, 50, 12, 13, 14, 15]]
WIDTH = 12
SHAPES: dict[str, dict[str, Any]] = {
    "qwen2": {},
    "qwen2 with a tied head": {"tie_word_embeddings": True, "rope_theta": 1e6},
    "llama": {"family": "LlamaForCausalLM", "rms_norm_eps": 1e-5},
    "llama with wide heads, one key head a query head": {
        "family": "LlamaForCausalLM",
        "head_dim": 12,
        "num_key_value_heads": 4,
        "num_hidden_layers": 1,
    },
    "one key head for all": {"num_key_value_heads": 1, "num_hidden_layers": 1},
}


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path, dict[str, Any], decoders.Weights]:
    folder, config = tmp_path_factory.mktemp("qwen"), decoders.config_of()
    weights = decoders.write(folder, config)
    return load_model(folder), folder, config, weights


def padded(side: str, fill: int = 0) -> tuple[Tensor, Tensor]:
    ids, mask = np.full((len(SEQUENCES), WIDTH), fill, np.int32), np.zeros((len(SEQUENCES), WIDTH), np.int32)
    for row, sequence in enumerate(SEQUENCES):
        place = slice(WIDTH - len(sequence), WIDTH) if side == "left" else slice(0, len(sequence))
        ids[row, place], mask[row, place] = sequence, 1
    return Tensor(ids), Tensor(mask)


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_follow_the_formula_whatever_the_padding(shape: str, tmp_path: Path) -> None:
    config = decoders.config_of(**SHAPES[shape])
    weights = decoders.write(tmp_path, config)
    model = load_model(tmp_path)
    for side in ("left", "right"):
        ids, mask = padded(side, fill=31)
        out = model(ids, mask)
        assert out.dtype == ms.float32
        assert out.shape == (len(SEQUENCES), WIDTH, decoders.VOCAB)
        for row, sequence in enumerate(SEQUENCES):
            expected = decoders.logits(weights, config, sequence)
            assert expected.std() > 0.2  # numbers that a wrong position or head would change visibly
            real = out.asnumpy()[row][mask.asnumpy()[row] == 1]
            np.testing.assert_allclose(real, expected, atol=2e-5, rtol=1e-5)


def test_left_padded_equals_unpadded(qwen: tuple[Any, Path, dict[str, Any], decoders.Weights]) -> None:
    model = qwen[0]
    ids, mask = padded("left")
    together = model(ids, mask).asnumpy()
    for row, sequence in enumerate(SEQUENCES):
        alone = model(Tensor(np.array([sequence], np.int32))).asnumpy()[0]
        np.testing.assert_allclose(together[row, -len(sequence) :], alone, atol=1e-5)


@pytest.mark.parametrize("form", [Tensor, np.asarray, lambda x: x], ids=["tensor", "array", "list"])
@pytest.mark.parametrize(
    ("ids", "mask", "words"),
    [
        ([[5, 97, 2]], None, r"input_ids has 97, but the model's vocabulary has 97 tokens"),
        ([[5, -1, 2]], None, r"input_ids has -1, but"),
        ([[]], None, r"input_ids must be \(batch, length\), both at least 1, not \(1, 0\)"),
        ([5, 9], None, r"input_ids must be .* not \(2,\)"),
        ([[5.0, 9.0]], None, r"input_ids must be whole numbers, not float"),
        ([[5, 9]], [[1, 1, 1]], r"attention_mask must have the shape of input_ids, \(1, 2\), not \(1, 3\)"),
        ([[5, 9], [5, 9]], [[1, 1]], r"attention_mask .* not \(1, 2\)"),
        ([[5, 9]], [1, 1], r"attention_mask .* not \(2,\)"),
        ([[5, 9]], [[[1, 1]]], r"attention_mask .* not \(1, 1, 2\)"),
    ],
)
def test_what_a_model_cannot_read(
    ids: list[Any],
    mask: list[Any] | None,
    words: str,
    form: Any,
    qwen: tuple[Any, Path, dict[str, Any], decoders.Weights],
) -> None:
    if ids == [[]] and form is Tensor:
        ids = np.zeros((1, 0), np.int32)
    with pytest.raises(UserError, match=words) as error:
        qwen[0](form(ids), None if mask is None else form(mask))
    assert "\n" not in str(error.value)


def test_lists_that_are_no_rows_and_words_are_refused(
    qwen: tuple[Any, Path, dict[str, Any], decoders.Weights],
) -> None:
    with pytest.raises(UserError, match="input_ids: the rows differ in length"):
        qwen[0]([[5, 9], [5]])
    with pytest.raises(UserError, match="input_ids must be whole numbers"):
        qwen[0]([["five", "nine"]])
    with pytest.raises(UserError, match="attention_mask must be numbers"):
        qwen[0]([[5, 9]], [["yes", "no"]])


@pytest.mark.parametrize(
    "form",
    [
        lambda ids, mask: (ids, mask),
        lambda ids, mask: (ids.astype(np.int64), mask.astype(bool)),
        lambda ids, mask: (ids.tolist(), mask.tolist()),
        lambda ids, mask: (Tensor(ids.astype(np.int64)), Tensor(mask.astype(np.float32))),
        lambda ids, mask: (Tensor(ids), Tensor(mask * np.arange(1, WIDTH + 1, dtype=np.int32))),
        lambda ids, mask: (Tensor(ids), Tensor(-mask)),
    ],
    ids=["arrays", "other types", "lists", "other tensors", "any number", "negative"],
)
def test_ids_and_masks_of_any_kind_mean_the_same(
    form: Any, qwen: tuple[Any, Path, dict[str, Any], decoders.Weights]
) -> None:
    ids, mask = padded("left")
    expected = qwen[0](ids, mask).asnumpy()
    assert np.array_equal(qwen[0](*form(ids.asnumpy(), mask.asnumpy())).asnumpy(), expected)


def test_a_row_of_padding_alone_stays_finite_and_disturbs_nobody(
    qwen: tuple[Any, Path, dict[str, Any], decoders.Weights],
) -> None:
    model = qwen[0]
    ids, mask = (x.asnumpy() for x in padded("left"))
    before = model(Tensor(ids), Tensor(mask)).asnumpy()
    ids[1], mask[1] = 0, 0
    after = model(Tensor(ids), Tensor(mask)).asnumpy()
    assert np.isfinite(after).all()
    assert np.array_equal(after[[0, 2]], before[[0, 2]])


def test_scores_of_any_size_do_not_let_a_token_see_the_future(tmp_path: Path) -> None:
    config = decoders.config_of(num_hidden_layers=1)
    weights = decoders.random_weights(config)
    large = {name: value * 150 for name, value in weights.items() if ".q_proj." in name or ".k_proj." in name}
    decoders.write(tmp_path, config, weights | large)
    model = load_model(tmp_path)
    ids = [5, 9, 2, 33, 60, 61, 7, 1, 90, 4, 8, 77]
    out, other = (model(Tensor(np.array([row], np.int32))).asnumpy()[0] for row in (ids, [*ids[:6], *range(30, 36)]))
    np.testing.assert_allclose(out[:6], other[:6], atol=1e-5)
    assert np.abs(out[6:] - other[6:]).max() > 0.1
    # Scores of 50,000 leave float32 two digits behind the point: the likeliest token is all that can be compared.
    assert np.array_equal(out.argmax(-1), decoders.logits(weights | large, config, ids).argmax(-1))


def test_records_in_one_row_equal_each_record_alone(
    qwen: tuple[Any, Path, dict[str, Any], decoders.Weights],
) -> None:
    class Packed(nn.Cell):
        def __init__(self, model: Any) -> None:
            super().__init__(auto_prefix=False)
            self.lm = model

        def construct(self, input_ids: Tensor, position_ids: Tensor, segment_ids: Tensor) -> Tensor:
            return self.lm.head(self.lm.hidden(input_ids, position_ids, segment_ids))

    model, _, config, weights = qwen
    ids = np.zeros((2, 24), np.int32)
    positions, segments = np.zeros_like(ids), np.zeros_like(ids)
    at = 0
    for number, sequence in enumerate(SEQUENCES, 1):
        place = slice(at, at + len(sequence))
        ids[0, place], positions[0, place], segments[0, place] = sequence, np.arange(len(sequence)), number
        at += len(sequence)
    packed = Packed(model)(Tensor(ids), Tensor(positions), Tensor(segments)).asnumpy()
    assert np.isfinite(packed).all()
    at = 0
    for sequence in SEQUENCES:
        place = slice(at, at + len(sequence))
        np.testing.assert_allclose(packed[place], decoders.logits(weights, config, sequence), atol=1e-5)
        alone = model(Tensor(np.array([sequence], np.int32))).asnumpy()[0]
        np.testing.assert_allclose(packed[place], alone, atol=1e-5)
        at += len(sequence)


def test_float16_stays_near_float32(qwen: tuple[Any, Path, dict[str, Any], decoders.Weights]) -> None:
    model, folder, _, _ = qwen
    half = load_model(folder, dtype="float16")
    assert {p.dtype for p in half.get_parameters()} == {ms.float16}
    ids, mask = padded("left")
    out = half(ids, mask)
    assert out.dtype == ms.float32
    difference = np.abs(out.asnumpy() - model(ids, mask).asnumpy())[mask.asnumpy() == 1]
    assert 0 < difference.max() < 0.02


def test_bfloat16_on_a_cpu_becomes_float32(qwen: tuple[Any, Path, dict[str, Any], decoders.Weights]) -> None:
    assert {p.dtype for p in load_model(qwen[1], dtype="bfloat16").get_parameters()} == {ms.float32}


def test_a_compiled_model_sees_weights_that_change(tmp_path: Path) -> None:
    config = decoders.config_of(num_hidden_layers=1)
    weights = decoders.write(tmp_path, config)
    model = load_model(tmp_path)
    ids = Tensor(np.array([SEQUENCES[0]], np.int32))
    before = model(ids).asnumpy()
    changed = weights | {"model.norm.weight": weights["model.norm.weight"] * 2}
    for parameter in model.get_parameters():
        assign(parameter, changed[parameter.name])
    np.testing.assert_allclose(model(ids).asnumpy(), 2 * before, rtol=1e-6)


def test_random_start_is_a_function_of_the_seed(qwen: tuple[Any, Path, dict[str, Any], decoders.Weights]) -> None:
    folder = qwen[1]

    def start(seed: int) -> dict[str, np.ndarray]:
        model = load_model(folder, init="random", seed=seed)
        return {p.name: p.asnumpy().copy() for p in model.get_parameters()}

    one, again, other = start(1), start(1), start(2)
    for name, value in one.items():
        assert np.array_equal(value, again[name])
        if value.ndim == 2:
            assert not np.array_equal(value, other[name])
            assert value.std() == pytest.approx(0.02, rel=0.1)
            assert abs(value.mean()) < 0.003
        else:
            assert set(value.tolist()) == {1.0 if "norm" in name else 0.0}
    matrices = [value for value in one.values() if value.shape == (32, 32)]
    assert len(matrices) > 2
    assert not any(np.array_equal(matrices[0], other) for other in matrices[1:])
