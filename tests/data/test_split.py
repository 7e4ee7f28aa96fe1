"""The split: no question or near duplicate of one in two parts, the same on every run, 8:1:1."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest

from ms_medqa.data.banding import clusters
from ms_medqa.data.example import Example, PlainText
from ms_medqa.data.minhash import signatures, similarity
from ms_medqa.data.question_types import TYPES
from ms_medqa.data.split import FREE, PARTS, assign_parts, question_digest, question_key, record_type, split_records

SHARES = (0.8, 0.1, 0.1)


def qa(number: int, question: str | None = None, **more: str) -> Example:
    return Example(str(number), question or f"问题 {number} 怎么治疗？", f"a{number}", **more)


def test_shares_are_exact_to_a_record() -> None:
    records = [qa(i) for i in range(1000)]
    assert Counter(split_records(records, SHARES, 42)) == {"train": 800, "val": 100, "test": 100}
    assert Counter(split_records(records, (0.5, 0.5, 0.0), 42)) == {"train": 500, "val": 500}


def test_records_of_one_question_stay_together() -> None:
    forms = ("感冒{}怎么办？", " 感冒{}怎么办?", "感冒{}，怎么办")
    records = [qa(i, forms[i % 3].format(i // 3)) for i in range(600)]
    parts = split_records(records, SHARES, 42)
    for start in range(0, 600, 3):
        assert len(set(parts[start : start + 3])) == 1
    assert Counter(parts)["val"] == pytest.approx(60, abs=3)


def test_large_groups_do_not_fill_a_small_part() -> None:
    records = [qa(i, "感冒怎么办？" if i < 300 else None) for i in range(1000)]
    counts = Counter(split_records(records, SHARES, 42))
    assert counts["train"] >= 700
    assert min(counts["val"], counts["test"]) > 0


def test_the_seed_decides_and_nothing_else() -> None:
    records = [qa(i, f"{('检查', '症状', '预防')[i % 3]} {i}？", source="ab"[i % 2]) for i in range(500)]
    first = split_records(records, SHARES, 42)
    assert split_records(records, SHARES, 42) == first
    assert split_records(records, SHARES, 43) != first
    # The order of the input does not matter.
    assert split_records(records[::-1], SHARES, 42)[::-1] == first


def test_fixed_parts_are_kept_and_their_questions_follow() -> None:
    records = [qa(0, "感冒怎么办？", split="test"), qa(1, "感冒，怎么办"), *(qa(i) for i in range(2, 102))]
    for seed in range(5):
        parts = split_records(records, SHARES, seed)
        assert parts[:2] == ["test", "test"]
        assert Counter(parts[2:]) == {"train": 80, "val": 10, "test": 10}


@pytest.mark.parametrize("count", range(3, 12))
def test_a_small_set_has_something_in_every_part(count: int) -> None:
    for seed in range(20):
        assert set(split_records([qa(i) for i in range(count)], SHARES, seed)) == set(PARTS)


def test_one_or_two_questions_are_trained_on() -> None:
    for count in (1, 2):
        assert set(split_records([qa(i) for i in range(count)], SHARES, 42)) == {"train"}


def test_question_types_and_files_are_spread_evenly() -> None:
    kinds = ("治疗", "症状", "预防", "检查")
    records = [qa(i, f"{kinds[i % 4]} {i}？", source="ab"[i % 3 == 0]) for i in range(1200)]
    parts = split_records(records, SHARES, 7)
    for kind in kinds:
        counts = Counter(part for part, record in zip(parts, records, strict=True) if record.question.startswith(kind))
        assert counts["val"] == pytest.approx(30, abs=2)
        assert counts["test"] == pytest.approx(30, abs=2)


def test_a_dialogue_goes_by_its_first_question() -> None:
    dialogue = Example("1", "那怎么办？", "a", history=(("头痛三天了。", "嗯"),))
    assert question_key(dialogue) == question_key(Example("2", "头痛三天了", "b"))
    assert question_key(PlainText("3", "头痛三天了")) == question_key(dialogue)
    # Punctuation alone is still a question of its own.
    assert question_key(Example("4", "？", "b")) != question_key(Example("5", "！！", "b"))
    assert record_type(dialogue) == "other"
    assert record_type(Example("6", "那怎么办？", "a", history=(("头痛要做什么检查？", "嗯"),))) == "examination"
    assert len({question_digest(dialogue), question_digest(PlainText("3", "头痛，三天了"))}) == 1


ASKS = ("有哪些症状？", "怎么治疗？", "应该吃什么药？", "需要做什么检查？", "怎么预防？", "的病因是什么？")


def near_copies(count: int, seed: int) -> list[Example]:
    """Questions with patients' stories, every third a slightly changed copy of an earlier one; some types are rare."""
    rng = random.Random(seed)
    stories: list[tuple[str, str]] = []
    for number in range(count):
        if number % 3 == 2:
            story, ask = rng.choice(stories)
            place = rng.randrange(len(story))
            stories.append((story[:place] + "很" + story[place:], ask))
        else:
            story = "".join(chr(rng.randrange(0x4E00, 0x5E00)) for _ in range(40))
            stories.append((story, rng.choices(ASKS, (40, 30, 15, 10, 4, 1))[0]))
    return [Example(str(n), story + ask, "a") for n, (story, ask) in enumerate(stories)]


def test_no_near_duplicates_in_two_parts_and_types_even() -> None:
    records = near_copies(1500, seed=0)
    signs = signatures([record.question for record in records])
    groups = clusters(signs, 0.8)
    parts = split_records(records, SHARES, 42, groups)
    pairs = 0
    for index in range(len(records)):
        near = np.flatnonzero(similarity(signs[:index], signs[index]) >= 0.8)
        pairs += near.size
        assert {parts[other] for other in near} <= {parts[index]}
    assert pairs > 400
    # Without the clusters they would stand in two.
    apart = split_records(records, SHARES, 42)
    assert any(
        apart[other] != apart[index]
        for index in range(len(records))
        for other in np.flatnonzero(similarity(signs[:index], signs[index]) >= 0.8)
    )
    counts = Counter(parts)
    assert [counts[part] for part in PARTS] == pytest.approx([1200, 150, 150], abs=1)
    types = Counter(map(record_type, records))
    for kind, total in types.items():
        held = Counter(part for part, record in zip(parts, records, strict=True) if record_type(record) == kind)
        # Types of few records are dealt out as one, and a group cannot be divided.
        largest = max(Counter(groups[[record_type(record) == kind for record in records]]).values())
        for part in ("val", "test"):
            assert held[part] == pytest.approx(total / 10, abs=max(5, total / 50, largest)), kind


def test_a_question_and_a_near_duplicate_together_make_one_group() -> None:
    keys = [bytes([n]) * 16 for n in (0, 1, 1, 2, *range(3, 99))]
    near = np.arange(len(keys))
    near[3] = 2  # 1 and 2 are one question, 2 and 3 near duplicates
    types, free = np.zeros(len(keys), dtype=np.int8), np.full(len(keys), FREE, dtype=np.int8)
    for seed in range(10):
        parts = assign_parts(keys, types, free, near, SHARES, seed)
        assert parts.dtype == np.int8
        assert len(set(parts[1:4].tolist())) == 1
    fixed = free.copy()
    fixed[3] = PARTS.index("val")
    assert assign_parts(keys, types, fixed, near, SHARES, 0)[1:4].tolist() == [1, 1, 1]
    # Fixed to two parts: each stays, and what is free goes to the one farthest from training.
    fixed[1] = PARTS.index("train")
    assert assign_parts(keys, types, fixed, near, SHARES, 0)[1:4].tolist() == [0, 1, 1]


def test_the_order_of_the_input_has_no_say() -> None:
    rng = np.random.default_rng(0)
    count = 3000
    keys = rng.integers(0, 256, (count, 16), dtype=np.uint8)
    keys[100:200] = keys[:100]
    types = rng.integers(0, len(TYPES), count).astype(np.int8)
    near = np.arange(count)
    near[501:900:2] = near[500:899:2]
    fixed = np.where(rng.random(count) < 0.02, rng.integers(0, 3, count), FREE).astype(np.int8)
    parts = assign_parts(keys, types, fixed, near, SHARES, 7)
    order = rng.permutation(count)
    moved_near = np.argsort(order)[near[order]]
    assert np.array_equal(assign_parts(keys[order], types[order], fixed[order], moved_near, SHARES, 7), parts[order])
    assert np.array_equal(assign_parts([key.tobytes() for key in keys], types, fixed, near, SHARES, 7), parts)
    assert assign_parts([], types[:0], fixed[:0], None, SHARES, 7).size == 0


@pytest.mark.parametrize(
    "shares", [(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.9, 0.0, 0.1), (0.5, 0.3, 0.2), (0.98, 0.01, 0.01)]
)
def test_any_shares_are_met_in_records_with_groups_of_any_size(shares: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(1)
    sizes = np.concatenate([np.full(400, 1), rng.integers(2, 40, 60)])
    keys = [n.to_bytes(16, "big") for n, size in enumerate(sizes.tolist()) for _ in range(size)]
    types = np.repeat(rng.integers(0, 7, sizes.size), sizes)
    parts = assign_parts(keys, types, np.full(len(keys), FREE), None, shares, 3)
    counts = np.bincount(parts, minlength=3)
    assert counts == pytest.approx(np.array(shares) * len(keys), abs=1)
    assert (counts[np.array(shares) == 0] == 0).all()
