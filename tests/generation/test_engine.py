"""Decoding with a cache against decoding without one; batches, padding, seeds, ends."""

from __future__ import annotations

import gc
import shutil
import threading
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file
from sampled_rows import SampledRows

from ms_medqa.config import RunError, UserError
from ms_medqa.generation import SamplingParams, engine, generate, load_model, rows
from ms_medqa.generation.engine import Engine
from ms_medqa.generation.generate import apply_adapter
from ms_medqa.generation.many import decode_many
from ms_medqa.generation.reading import bucket
from ms_medqa.generation.request import Request
from ms_medqa.models.loading import assign

PROMPTS = [list(range(5, 45)), [7, 8, 9], [300, 20, 301, 21, 302], list(range(100, 119))]
NEW = 12
GREEDY = SamplingParams(temperature=0, repetition_penalty=1.0)


@pytest.fixture(autouse=True, scope="module")
def _device() -> None:
    """The device must be set up before the first tensor, whichever test comes first."""
    tiny.model()


def without_cache(
    model: Any, prompts: list[list[int]], answers: list[list[int]], params: SamplingParams, seed: int = 0
) -> list[list[int]]:
    """What the model's public call, which has no cache, would say at each step of `answers`."""
    texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
    width = max(map(len, texts))
    ids, mask = np.zeros((len(texts), width), np.int32), np.zeros((len(texts), width), np.int32)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, 1
    logits = model(ms.Tensor(ids), ms.Tensor(mask)).asnumpy()
    said = []
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        sampler = SampledRows(params, [prompt], seed, [row])
        start = len(prompt) - 1
        said.append([int(sampler(logits[row, t][None], [True])[0]) for t in range(start, start + len(answer))])
    return said


@pytest.fixture(scope="module")
def greedy() -> list[list[int]]:
    """The greedy continuation of each prompt in one batch; no token ends it."""
    return generate(tiny.model(), PROMPTS, max_new_tokens=NEW, greedy=True, repetition_penalty=1.0, eos_token_id=[])


def test_with_cache_equals_without(greedy: list[list[int]]) -> None:
    assert [len(answer) for answer in greedy] == [NEW] * len(PROMPTS)
    assert without_cache(tiny.model(), PROMPTS, greedy, GREEDY) == greedy


def test_sampled_with_cache_equals_without() -> None:
    settings = {"temperature": 1.5, "top_p": 0.95, "top_k": 40, "repetition_penalty": 1.2}
    drawn = generate(tiny.model(), PROMPTS, max_new_tokens=NEW, **settings, eos_token_id=[], seed=11)
    assert [len(answer) for answer in drawn] == [NEW] * len(PROMPTS)
    assert without_cache(tiny.model(), PROMPTS, drawn, SamplingParams(**settings), seed=11) == drawn


def test_greedy_penalises_nothing_unless_told_to(greedy: list[list[int]]) -> None:
    options: dict[str, Any] = {"max_new_tokens": NEW, "eos_token_id": []}
    assert generate(tiny.model(), PROMPTS, greedy=True, **options) == greedy
    assert generate(tiny.model(), PROMPTS, temperature=0, **options) == greedy
    penalised = generate(tiny.model(), PROMPTS, greedy=True, repetition_penalty=1.1, **options)
    params = SamplingParams(temperature=0, repetition_penalty=1.1)
    assert penalised != greedy
    assert without_cache(tiny.model(), PROMPTS, penalised, params) == penalised


def test_drawn_answers_are_penalised_by_default() -> None:
    options: dict[str, Any] = {"max_new_tokens": NEW, "eos_token_id": [], "temperature": 1.0, "seed": 3}
    usual = generate(tiny.model(), PROMPTS, **options)
    assert usual == generate(tiny.model(), PROMPTS, repetition_penalty=1.1, **options)
    assert usual != generate(tiny.model(), PROMPTS, repetition_penalty=1.0, **options)


def test_batch_equals_single(greedy: list[list[int]]) -> None:
    for prompt, answer in zip(PROMPTS, greedy, strict=True):
        alone = generate(
            tiny.model(), [prompt], max_new_tokens=NEW, greedy=True, repetition_penalty=1.0, eos_token_id=[]
        )
        assert alone == [answer]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["numpy", "tensor", "list"])
def test_padding_changes_nothing(greedy: list[list[int]], side: str, kind: str) -> None:
    width = max(map(len, PROMPTS)) + 3
    ids, mask = np.full((len(PROMPTS), width), 399, np.int32), np.zeros((len(PROMPTS), width), np.int32)
    for row, prompt in enumerate(PROMPTS):
        place = slice(width - len(prompt), width) if side == "left" else slice(0, len(prompt))
        ids[row, place], mask[row, place] = prompt, 1
    cast = {"numpy": lambda x: x, "tensor": ms.Tensor, "list": lambda x: x.tolist()}[kind]
    answers = generate(
        tiny.model(), cast(ids), cast(mask), max_new_tokens=NEW, greedy=True, repetition_penalty=1.0, eos_token_id=[]
    )
    assert answers == greedy


def test_a_row_ends_at_its_end_token_and_the_others_go_on(greedy: list[list[int]]) -> None:
    end = greedy[1][4]
    answers = generate(tiny.model(), PROMPTS, max_new_tokens=NEW, greedy=True, repetition_penalty=1.0, eos_token_id=end)
    expected = [answer[: answer.index(end)] if end in answer else answer for answer in greedy]
    assert answers == expected
    assert len(answers[1]) <= 4
    assert max(map(len, answers)) == NEW


def test_the_models_own_end_token_is_the_default(greedy: list[list[int]]) -> None:
    config = tiny.model().config
    object.__setattr__(config, "eos_token_ids", (greedy[2][0], 1))
    try:
        answers = generate(tiny.model(), PROMPTS, max_new_tokens=3, greedy=True, repetition_penalty=1.0)
    finally:
        object.__setattr__(config, "eos_token_ids", (0,))
    assert answers[2] == []


def test_seed_repeats_an_answer_whatever_the_batch() -> None:
    engine = Engine.of(tiny.model())
    params = SamplingParams(temperature=3.0, top_p=1.0, top_k=0)

    def draw(batch_size: int, seed: int) -> list[list[int]]:
        made = decode_many(engine, PROMPTS, params, NEW, frozenset(), batch_size=batch_size, seed=seed)
        return [answer.tokens for answer in made]

    assert draw(4, seed=1) == draw(4, seed=1) == draw(1, seed=1)
    assert draw(4, seed=1) != draw(4, seed=2)


def test_finished_tells_an_end_from_a_cut(greedy: list[list[int]]) -> None:
    engine = Engine.of(tiny.model())
    end = greedy[1][4]
    done = []
    made = decode_many(engine, PROMPTS, GREEDY, NEW, frozenset([end]), batch_size=4, on_answer=lambda: done.append(1))
    assert [answer.finished for answer in made] == [end in answer for answer in greedy]
    assert len(done) == len(PROMPTS)


def test_answers_streamed_side_by_side_do_not_mix(greedy: list[list[int]]) -> None:
    engine = Engine.of(tiny.model())
    streams = [engine.stream(Request(PROMPTS[row], GREEDY, 5)) for row in (0, 1)]
    pairs = list(zip(*streams, strict=True))
    assert [first.choice.token for first, _ in pairs] == greedy[0][:5]
    assert [second.choice.token for _, second in pairs] == greedy[1][:5]


def test_an_answer_that_is_collected_while_another_begins_gives_its_scheduler_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody takes the rest of it, and the garbage collector may run at any line."""
    own = Engine(tiny.model())
    with own.scheduler(4):
        pass
    answer: list[Any] = [own.stream(Request(PROMPTS[0], GREEDY, NEW))]
    next(answer[0])
    answer.append(answer)
    real, done = engine.unchanged, list[bool]()

    def collecting(*arguments: Any) -> bool:
        gc.collect()
        return real(*arguments)

    def begin() -> None:
        with own.scheduler(2):
            done.append(True)

    monkeypatch.setattr(engine, "unchanged", collecting)
    del answer
    thread = threading.Thread(target=begin, daemon=True)
    thread.start()
    thread.join(30)
    assert done
    assert sorted(one.rows for one in own._idle) == [1, 2, 4]


def test_nothing_is_compiled_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    class Counted(rows.CachedDecoder):
        def __init__(self, *args: object) -> None:
            made.append(args[1:])
            super().__init__(*args)

    monkeypatch.setattr(rows, "CachedDecoder", Counted)
    generate(tiny.model(), PROMPTS, max_new_tokens=2)
    first = len(made)
    generate(tiny.model(), [prompt[::-1] for prompt in PROMPTS[:3]], max_new_tokens=3)
    generate(tiny.model(), PROMPTS, max_new_tokens=2)
    assert len(made) == first
    # An answer that nobody finishes to read must give its decoder back as well.
    engine = Engine(tiny.model())
    for _ in range(3):
        stream = engine.stream(Request(PROMPTS[0], GREEDY, 4))
        next(stream)
        stream.close()
    assert len(made) == first + 1


def test_large_scores_see_neither_padding_nor_an_earlier_answer(tmp_path: Path) -> None:
    shutil.copytree(tiny.folder(), tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    weights = load_file(path)
    for name in weights:
        if ".q_proj." in name or ".k_proj." in name:
            weights[name] *= 100
    save_file(weights, path)
    model = load_model(tmp_path / "model")
    options = {"max_new_tokens": 8, "greedy": True, "repetition_penalty": 1.0, "eos_token_id": []}
    generate(model, [PROMPTS[0]], **options)  # leaves 40 keys and more in the cache
    answer = generate(model, [PROMPTS[1]], **options)
    assert without_cache(model, [PROMPTS[1]], answer, GREEDY) == answer


def test_a_run_that_failed_leaves_nothing_to_the_next() -> None:
    model = load_model(tiny.folder())
    options = {"max_new_tokens": 6, "greedy": True, "repetition_penalty": 1.0, "eos_token_id": []}
    before = generate(model, [PROMPTS[1]], **options)
    weight = next(p for p in model.get_parameters() if p.name == "model.layers.0.self_attn.v_proj.weight")
    values = weight.asnumpy().copy()
    assign(weight, values * np.nan)
    with pytest.raises(RunError, match="not finite"):
        generate(model, [PROMPTS[0]], **options)
    assign(weight, values)
    assert generate(model, [PROMPTS[1]], **options) == before


@pytest.mark.parametrize("merge", [True, False])
def test_an_adapter_that_comes_later_is_seen(tmp_path: Path, merge: bool) -> None:
    adapter = tiny.write_adapter(tmp_path / "adapter")
    options = {"max_new_tokens": 6, "greedy": True, "repetition_penalty": 1.0, "eos_token_id": []}
    model = load_model(tiny.folder())
    before = generate(model, PROMPTS[:1], **options)
    apply_adapter(model, adapter, merge=merge)
    after = generate(model, PROMPTS[:1], **options)
    assert before != after
    assert without_cache(load_model(tiny.folder(), adapter), PROMPTS[:1], after, GREEDY) == after


def test_a_prompt_that_leaves_no_room_is_refused_with_both_numbers() -> None:
    with pytest.raises(UserError, match=r"250 tokens.*max_new_tokens is 7.*256"):
        generate(tiny.model(), [[5] * 250], max_new_tokens=7)


def test_the_last_position_of_the_model_can_be_used() -> None:
    prompt = (np.arange(253) % 390 + 5).tolist()
    answer = generate(tiny.model(), [prompt], max_new_tokens=3, greedy=True, repetition_penalty=1.0, eos_token_id=[])[0]
    assert without_cache(tiny.model(), [prompt], [answer], GREEDY) == [answer]
    assert len(answer) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"input_ids": [[]]}, "no tokens"),
        ({"input_ids": [[1, 2], []]}, "no tokens"),
        ({"input_ids": [[1, 400]]}, "400"),
        ({"input_ids": [[1.5, 2.0]]}, "whole numbers"),
        ({"input_ids": [1, 2]}, "shape"),
        ({"input_ids": [[1, 2]], "attention_mask": [[1]]}, "attention_mask"),
        ({"input_ids": [[1, 2]], "attention_mask": [[0, 0]]}, "no tokens"),
        ({"input_ids": [[1, 2]], "max_new_tokens": 0}, "max_new_tokens"),
        ({"input_ids": [[1, 2]], "top_p": 2.0}, "top_p"),
    ],
)
def test_input_that_cannot_be_answered_is_a_clear_error(arguments: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        generate(tiny.model(), **arguments)


def test_no_rows_give_no_answers() -> None:
    assert generate(tiny.model(), []) == []


@pytest.mark.parametrize(("size", "expected"), [(1, 32), (32, 32), (33, 64), (200, 256)])
def test_sizes_are_rounded_up_to_powers_of_two(size: int, expected: int) -> None:
    assert bucket(size, 32) == expected
