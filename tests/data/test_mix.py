"""Mixing: exact shares, and the same records whatever the order of the source."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ms_medqa.config.errors import UserError
from ms_medqa.data.mix import Amount, digest, numbered_id, pass_numbers, select

LENGTHS = np.random.default_rng(0).integers(5, 200, 500)
DIGESTS = np.array([digest(f"record {i}") for i in range(500)], dtype=np.uint64)
MAIN = Amount(records=2932, tokens=400_000)


def test_a_tenth_by_records_is_one_tenth_as_many() -> None:
    taken = select(MAIN, LENGTHS, weight=0.1, digests=DIGESTS)
    assert taken.dtype == np.int64
    assert len(taken) == len(set(taken.tolist())) == 293
    # Half a record counts as one, also where a float is just below it.
    for records, weight, count in ((10, 0.15, 2), (10, 0.05, 1), (30, 0.1, 3), (7, 0.07, 0), (1, 500.0, 500)):
        assert len(select(Amount(records, 1), LENGTHS, weight=weight, digests=DIGESTS)) == count


@pytest.mark.parametrize("weight", [0.001, 0.01, 0.05, 0.1, 0.3, 1.0])
def test_by_tokens_the_share_is_met_within_half_a_record(weight: float) -> None:
    taken = select(MAIN, LENGTHS, weight=weight, digests=DIGESTS, by="token")
    assert abs(LENGTHS[taken].sum() - weight * MAIN.tokens) <= LENGTHS.max() / 2


def test_long_records_do_not_outweigh_by_tokens() -> None:
    # A source with records four times as long gives a fourth as many of them.
    short, long = np.full(500, 50), np.full(500, 200)
    counts = [len(select(MAIN, each, weight=0.05, digests=DIGESTS, by="token")) for each in (short, long)]
    assert counts == [400, 100]


@pytest.mark.parametrize("by", ["record", "token"])
def test_the_order_of_the_source_does_not_matter_and_the_seed_does(by: str) -> None:
    def chosen(order: np.ndarray, seed: int = 42) -> list[int]:
        taken = select(MAIN, LENGTHS[order], weight=0.05, digests=DIGESTS[order], by=by, seed=seed)
        return order[taken].tolist()

    straight = np.arange(500)
    assert chosen(straight) == chosen(straight[::-1]) == chosen(np.random.default_rng(1).permutation(500))
    assert sorted(chosen(straight, seed=43)) != sorted(chosen(straight))


def test_a_larger_weight_takes_the_same_records_and_more() -> None:
    few, many = (select(MAIN, LENGTHS, weight=weight, digests=DIGESTS) for weight in (0.05, 0.15))
    assert many[: len(few)].tolist() == few.tolist()


def test_every_record_is_as_likely() -> None:
    taken = Counter(
        place for seed in range(200) for place in select(Amount(50, 1), LENGTHS, weight=1, digests=DIGESTS, seed=seed)
    )
    assert len(taken) == 500
    assert max(taken.values()) < 45


@pytest.mark.parametrize("by", ["record", "token"])
def test_a_small_source_is_taken_in_whole_passes_and_a_rest(by: str) -> None:
    lengths, digests = np.full(4, 10), DIGESTS[:4]
    taken = select(Amount(10, 100), lengths, weight=1, digests=digests, by=by)
    assert sorted(Counter(taken.tolist()).values()) == [2, 2, 3, 3]
    assert pass_numbers(taken, 4).tolist() == [0] * 4 + [1] * 4 + [2] * 2
    # Ids stay unique.
    names = [numbered_id(f"g-{i}", n) for i, n in zip(taken, pass_numbers(taken, 4), strict=True)]
    assert len(set(names)) == 10
    assert {f"g-{i}" for i in range(4)} <= set(names)
    assert names[4] == f"{names[0]}~2"


def test_an_input_with_a_weight_of_its_own() -> None:
    own = Amount.of(LENGTHS)
    assert own == Amount(500, int(LENGTHS.sum()))
    half = select(own, LENGTHS, weight=0.5, digests=DIGESTS)
    assert len(set(half.tolist())) == 250
    for by in ("record", "token"):
        assert sorted(select(own, LENGTHS, weight=1, digests=DIGESTS, by=by)) == list(range(500))
        twice = select(own, LENGTHS, weight=2, digests=DIGESTS, by=by)
        assert set(Counter(twice.tolist()).values()) == {2}


def test_nothing_is_mixed_for_nothing() -> None:
    none = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.uint64)
    assert len(select(MAIN, LENGTHS, weight=0, digests=DIGESTS)) == 0
    assert len(select(Amount(0, 0), none[0], weight=0.5, digests=none[1])) == 0


def test_a_wrong_weight_and_an_empty_source_are_said() -> None:
    for weight in (-0.1, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"general\.jsonl: weight"):
            select(MAIN, LENGTHS, weight=weight, digests=DIGESTS, name="general.jsonl")
    with pytest.raises(UserError, match=r"general\.jsonl: no records are left"):
        select(MAIN, LENGTHS[:0], weight=0.1, digests=DIGESTS[:0], name="general.jsonl")


def test_a_million_records_in_a_second() -> None:
    digests = np.arange(1_000_000, dtype=np.uint64)
    taken = select(MAIN, np.full(digests.size, 100), weight=0.5, digests=digests, by="token")
    assert len(taken) == 2000
