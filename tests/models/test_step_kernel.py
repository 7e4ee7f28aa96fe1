"""A step through all layers by the compiled kernel, against the same layers as operators of MindSpore."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Parameter, Tensor

from ms_medqa.backend import few_rows
from ms_medqa.backend.few_rows_library import library
from ms_medqa.models.cache import CachedDecoder, Piece
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.prompt_reader import PromptReader
from ms_medqa.peft.inject import inject_lora

pytestmark = [
    pytest.mark.usefixtures("pynative_mode"),
    pytest.mark.skipif(library() is None, reason="the installation found no C++ compiler"),
]

KERNELS = Path(few_rows.__file__).with_name("kernels")
LENGTH = 37
# Nothing is a whole number of vectors, and the feed-forward has several pieces of work.
ODD = ModelConfig(
    family="any",
    vocab_size=11,
    hidden_size=333,
    intermediate_size=1003,
    num_hidden_layers=2,
    num_attention_heads=10,
    num_key_value_heads=2,
    head_dim=38,
    max_position_embeddings=LENGTH,
    attention_bias=True,
    output_bias=True,
    mlp_bias=True,
    qk_norm=True,
    windows=(0, 9),
)
ALIBI = ModelConfig(
    family="any",
    vocab_size=11,
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=6,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=LENGTH,
    positions="alibi",
)


class Step:
    """A model with random weights, and what a step of some rows takes."""

    def __init__(self, config: ModelConfig, rows: int) -> None:
        rng = np.random.default_rng(rows)
        self.config, self.rows = config, rows
        self.model = CausalLM(config)
        for parameter in self.model.get_parameters():
            parameter.set_data(Tensor((rng.standard_normal(parameter.shape) / 8).astype(np.float32)))
        self.x = rng.standard_normal((rows, config.hidden_size)).astype(np.float32)
        self.positions = rng.integers(0, LENGTH, rows).astype(np.int32)
        shape = (config.num_hidden_layers, rows * config.num_key_value_heads * LENGTH, config.head_dim)
        self.keys, self.values = rng.standard_normal((2, *shape)).astype(np.float32)

    def run(self, by_kernel: bool = True) -> list[np.ndarray]:
        """The layers' output, keys and values of all layers."""
        decoder, heads = self.model.model, self.config.num_key_value_heads
        positions = Tensor(self.positions)
        masks = decoder.mask.of_step(positions, Tensor(np.arange(LENGTH, dtype=np.int32)[None]))
        rope = decoder.rope(positions, Tensor(LENGTH, ms.int32)) or ()
        slots = np.arange(self.rows * heads).reshape(-1, heads) * LENGTH + self.positions[:, None]
        slots = Tensor(slots.reshape(-1).astype(np.int32))
        keys, values = (
            [Parameter(Tensor(cache.copy()), name=str(number)) for number, cache in enumerate(caches)]
            for caches in (self.keys, self.values)
        )
        reader = PromptReader(self.model)
        x = Tensor(self.x)
        if by_kernel:
            assert reader.kernel.most_tokens
            x = reader.kernel(x, slots, masks, rope, keys, values, [one for own in reader.weights for one in own])
        else:
            for index, make in enumerate(reader.make_of):
                mask = masks[decoder.mask.of_layer[index]]
                x = reader.makes[make].step(x, slots, mask, keys[index], values[index], rope, reader.weights[index])
        return [x.asnumpy().copy(), *(np.stack([one.asnumpy() for one in caches]) for caches in (keys, values))]


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, 11, 31, few_rows.MOST_ROWS])
@pytest.mark.parametrize(
    "config", [ODD, ALIBI, replace(ODD, num_key_value_heads=10)], ids=["odd sizes", "alibi", "no head is shared"]
)
def test_it_gives_what_the_operators_give(config: ModelConfig, rows: int) -> None:
    step = Step(config, rows)
    wanted, found = step.run(by_kernel=False), step.run()
    assert np.abs(wanted[0]).max() > 1
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    # One slot of each head of each layer is written, and no other is touched.
    for one, before in zip(found[1:], (step.keys, step.values), strict=True):
        assert (one != before).any(2).sum() == config.num_hidden_layers * rows * config.num_key_value_heads


def test_it_gives_the_same_each_time() -> None:
    step = Step(ODD, 2)
    first = step.run()
    for _ in range(10):
        for one, other in zip(step.run(), first, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_row_that_is_not_finite_leaves_the_others_alone() -> None:
    step = Step(ODD, 3)
    wanted = step.run()[0]
    step.x[1, 5] = np.inf
    found = step.run()[0]
    assert not np.isfinite(found[1]).any()
    np.testing.assert_array_equal(found[[0, 2]], wanted[[0, 2]])


def test_what_unseen_slots_hold_counts_for_nothing() -> None:
    step = Step(ODD, 2)
    step.positions[:] = (5, 20)
    wanted = step.run()[0]
    for caches in (step.keys, step.values):
        caches.reshape(ODD.num_hidden_layers, 2, ODD.num_key_value_heads, LENGTH, -1)[:, 0, :, 6:] = np.nan
    np.testing.assert_array_equal(step.run()[0], wanted)


@pytest.mark.parametrize("size", [1e-20, 30.0, 1e4])
def test_numbers_far_from_one(size: float) -> None:
    """Gates and scores that are next to nothing, or leave one share of all."""
    step = Step(ODD, 2)
    for parameter in step.model.get_parameters():
        if "q_norm" in parameter.name or "post_attention" in parameter.name:
            parameter.set_data(parameter * size)
    wanted, found = step.run(by_kernel=False)[0], step.run()[0]
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_other_types_go_another_way(dtype: str) -> None:
    assert PromptReader(CausalLM(ALIBI, dtype)).kernel.most_tokens == 0


@pytest.mark.parametrize(("config", "most"), [(ALIBI, 128), (ODD, few_rows.MOST_ROWS)], ids=["small", "large"])
def test_more_rows_go_another_way(config: ModelConfig, most: int) -> None:
    reader = PromptReader(CausalLM(config))
    assert [CachedDecoder(reader, batch, 8).few for batch in (1, most, most + 1)] == [most, most, 0]


def test_a_slot_of_another_row_is_refused() -> None:
    step = Step(ALIBI, 2)
    step.positions[1] = LENGTH
    with pytest.raises(RuntimeError, match="DecoderStep"):
        step.run()


def test_an_adapter_that_is_not_folded_in_goes_another_way() -> None:
    model = CausalLM(replace(ALIBI, family="llama"))
    inject_lora(model, r=2, alpha=4, target_modules=["q_proj"])
    assert PromptReader(model).kernel.most_tokens == 0


def test_a_graph_with_the_kernel_is_not_taken_for_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CausalLM(ALIBI)
    with_kernel = CachedDecoder(PromptReader(model), 1, 32).graph_key
    monkeypatch.setattr(few_rows, "step_kernel", lambda: None)
    assert CachedDecoder(PromptReader(model), 1, 32).graph_key != with_kernel


SMALL = replace(ODD, hidden_size=60, intermediate_size=90, num_attention_heads=6, head_dim=14)


# Small enough for each thread to take tokens of its own, and too large for that.
@pytest.mark.parametrize("config", [SMALL, ALIBI, ODD], ids=["small", "small, alibi", "large"])
def test_prompts_and_answers_side_by_side(config: ModelConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens of one row see each other, and those that the row holds already; other rows see nothing of them."""
    rng = np.random.default_rng(0)
    model = Step(config, 1).model
    prompts = [rng.integers(0, config.vocab_size, size).tolist() for size in (9, 1, 12, 3, LENGTH - 1, 5)]
    fed = CachedDecoder(PromptReader(model), 8, LENGTH)
    monkeypatch.setattr(few_rows, "step_kernel", lambda: None)
    by_operators = CachedDecoder(PromptReader(model), 8, LENGTH)
    assert fed.few > by_operators.few == 0

    # Wide enough for all pieces that start there; each width has a graph of its own.
    widths = {0: 16, 4: 8, 9: LENGTH - 9}

    def read(piece: Piece) -> np.ndarray:
        width = widths[piece.start]
        return by_operators.read(piece.tokens, piece.row, piece.start, width, piece.length).asnumpy()

    # In an order of their own, each from another row on.
    rows = (3, 0, 7, 4, 2, 5)
    for start, stop in ((0, 4), (4, 9), (9, LENGTH - 1)):
        pieces = [
            Piece(prompt[start:stop], row, start, len(prompt))
            for prompt, row in zip(prompts, rows, strict=True)
            if len(prompt) > start
        ]
        wanted = np.concatenate([read(piece) for piece in pieces])
        np.testing.assert_allclose(fed.feed(pieces).asnumpy()[: len(pieces)], wanted, atol=1e-4)
    # Each answer's next token, beside a new prompt in a row that held another.
    answers = [(row, len(prompt)) for prompt, row in zip(prompts, rows, strict=True)][:-1]
    newest, positions = np.zeros(8, np.int32), np.zeros(8, np.int32)
    for row, place in answers:
        newest[row], positions[row] = row, place
    stepped = by_operators.step(Tensor(newest), Tensor(positions)).asnumpy()
    new = Piece(prompts[0], 5, 0, len(prompts[0]))
    wanted = np.concatenate([stepped[[row for row, _ in answers]], read(new)])
    found = fed.feed([*(Piece([row], row, place, 0) for row, place in answers), new]).asnumpy()
    np.testing.assert_allclose(found[: len(wanted)], wanted, atol=1e-4)


def test_nothing_is_written_for_what_is_no_token() -> None:
    decoder = CachedDecoder(PromptReader(Step(ALIBI, 1).model), 2, LENGTH)
    before = [cache.asnumpy().copy() for cache in (*decoder.keys, *decoder.values)]
    for width in decoder.feed_widths:
        decoder.compile_feed(width)
    for cache, was in zip((*decoder.keys, *decoder.values), before, strict=True):
        np.testing.assert_array_equal(cache.asnumpy(), was)


@pytest.mark.parametrize("most", [4, 8])
def test_processors_with_smaller_registers(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    steps = [Step(ODD, rows) for rows in (1, 2, 3, 4, 5, 8)]
    wanted = [step.run(by_kernel=False) for step in steps]
    smaller = tmp_path / "smaller.so"
    flags = [f"-DMS_MEDQA_MOST_LANES={most}", "-O1", "-fopenmp", "-shared", "-fPIC", "-Wno-psabi", "-o", str(smaller)]
    subprocess.run([compiler, *flags, *map(str, KERNELS.glob("*.cc"))], check=True, timeout=120)
    kernels = (few_rows.kernel, few_rows.step_kernel)
    monkeypatch.setattr(few_rows, "library", lambda: smaller)
    for kernel in kernels:
        kernel.cache_clear()
    try:
        for step, arrays in zip(steps, wanted, strict=True):
            for one, other in zip(step.run(), arrays, strict=True):
                np.testing.assert_allclose(one, other, atol=1e-4)
    finally:
        for kernel in kernels:
            kernel.cache_clear()
