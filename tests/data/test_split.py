"""The split: no question in two parts, the same on every run, 8:1:1."""

from __future__ import annotations

from collections import Counter

import pytest

from ms_medqa.data.example import Example, PlainText
from ms_medqa.data.split import PARTS, question_key, split_records

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
    records = [qa(i, f"{('饮食', '症状', '病因')[i % 3]} {i}？", source="ab"[i % 2]) for i in range(500)]
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
    kinds = ("饮食", "症状", "病因", "检查")
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
