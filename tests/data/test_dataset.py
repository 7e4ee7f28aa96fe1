"""Rows and batches: packing, labels, the order of samples, and that any split of a global batch is the same batch."""

from __future__ import annotations

import subprocess
import sys
import time
from itertools import islice

import numpy as np
import pytest

from ms_medqa.config.errors import UserError
from ms_medqa.data.dataset import IGNORE_INDEX, BatchPlan, Rows, batches, build_rows, model_inputs
from ms_medqa.data.packing import pack
from ms_medqa.data.records import TokenRecords

SPLITS = [(8, 1, 1), (4, 2, 1), (2, 4, 1), (1, 8, 1), (4, 1, 2), (2, 2, 2), (1, 1, 8)]


def make_records(lengths: list[int], prompt: int = 2) -> TokenRecords:
    """Records of which every token is a different number (from 1), all but the first `prompt` trained."""
    total = sum(lengths)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    place = np.arange(total) - np.repeat(offsets[:-1], lengths)
    return TokenRecords(
        ids=[f"r{i}" for i in range(len(lengths))],
        tokens=np.arange(1, total + 1, dtype=np.int32),
        loss_mask=(place >= prompt).astype(np.uint8),
        offsets=offsets,
    )


def random_lengths(n: int, high: int = 30) -> list[int]:
    return np.random.default_rng(5).integers(3, high, n).tolist()


@pytest.fixture(scope="module")
def rows() -> Rows:
    return build_rows(make_records(random_lengths(60)), 32, packing=True)


@pytest.mark.parametrize("packing", [True, False])
def test_every_record_is_in_exactly_one_row_unbroken(packing: bool) -> None:
    records = make_records(random_lengths(200))
    rows = build_rows(records, 32, packing)
    assert (len(rows) == 200) is not packing
    seen = []
    for i in range(len(rows)):
        row = rows.row(i)
        members = rows.records_of(i)
        segments = row["segment_ids"]
        assert segments.max() == len(members)
        for segment, member in enumerate(members, start=1):
            assert row["input_ids"][segments == segment].tolist() == records.record(member)[0].tolist()
        assert (segments > 0).sum() == rows.token_counts[i]
        assert not row["input_ids"][segments == 0].any()
        seen += members.tolist()
    assert sorted(seen) == list(range(200))
    assert rows.token_counts.sum() == len(records.tokens)


@pytest.mark.parametrize("split_records", [True, False])
def test_positions_restart_and_labels_stay_in_their_record(split_records: bool) -> None:
    records = make_records(random_lengths(100))
    rows = build_rows(records, 32, packing=True, split_records=split_records)
    for i in range(len(rows)):
        row = rows.row(i)
        assert all(values.dtype == np.int32 and values.shape == (32,) for values in row.values())
        ids, positions, segments, labels = (row[k] for k in ("input_ids", "position_ids", "segment_ids", "labels"))
        for t in range(32):  # the definition, token by token
            starts = t == 0 or segments[t] != segments[t - 1]
            assert positions[t] == (0 if starts or segments[t] == 0 else positions[t - 1] + 1)
            target = t + 1 < 32 and segments[t + 1] == segments[t] != 0 and records.loss_mask[ids[t + 1] - 1]
            assert labels[t] == (ids[t + 1] if target else IGNORE_INDEX)
        assert rows.label_counts[i] == (labels != IGNORE_INDEX).sum()


def test_every_trained_token_is_a_label_once() -> None:
    records = make_records(random_lengths(100))
    rows = build_rows(records, 32, packing=True)
    labels = np.concatenate([rows.row(i)["labels"] for i in range(len(rows))])
    assert sorted(labels[labels != IGNORE_INDEX]) == records.tokens[records.loss_mask == 1].tolist()


def test_a_first_token_is_no_label_even_where_it_is_trained() -> None:
    row = build_rows(make_records([3, 3], prompt=0), 8, packing=True).row(0)
    assert row["input_ids"].tolist() == [1, 2, 3, 4, 5, 6, 0, 0]
    assert row["segment_ids"].tolist() == [1, 1, 1, 2, 2, 2, 0, 0]
    assert row["position_ids"].tolist() == [0, 1, 2, 0, 1, 2, 0, 0]
    assert row["labels"].tolist() == [2, 3, -100, 5, 6, -100, -100, -100]


def test_split_records_fill_every_row_in_order() -> None:
    records = make_records([5, 20, 3, 9], prompt=0)
    rows = build_rows(records, 8, packing=False, split_records=True)
    ids = np.concatenate([rows.row(i)["input_ids"] for i in range(len(rows))])
    assert ids[:37].tolist() == records.tokens.tolist()
    assert rows.token_counts.tolist() == [8, 8, 8, 8, 5]
    assert [rows.records_of(i).tolist() for i in range(5)] == [[0, 1], [1], [1], [1, 2, 3], [3]]
    assert rows.row(3)["position_ids"].tolist() == [0, 0, 1, 2, 0, 1, 2, 3]


def test_record_of_exactly_one_row_and_of_one_token_more() -> None:
    rows = build_rows(make_records([8, 7]), 8, packing=True)
    assert rows.token_counts.tolist() == [8, 7]
    with pytest.raises(UserError, match=r"'r1' has 9 tokens, more than max_length = 8: set data\.max_length"):
        build_rows(make_records([8, 9]), 8, packing=True)
    with pytest.raises(UserError, match="no records"):
        build_rows(make_records([]), 8, packing=True)
    with pytest.raises(UserError, match="'r1' has no tokens"):
        build_rows(make_records([3, 0]), 8, packing=False)


def test_empty_rows(rows: Rows) -> None:
    empty = rows.empty_row()
    assert not empty["segment_ids"].any()
    assert set(empty["labels"]) == {IGNORE_INDEX}
    batch = rows.batch([3, -1])
    for name, values in batch.items():
        assert values.dtype == np.int32
        assert np.array_equal(values, [rows.row(3)[name], empty[name]])


def test_packing_a_million_records_is_quick_and_leaves_little_room() -> None:
    draw = np.random.default_rng(0).lognormal(4.2, 0.45, 1_000_000)  # like Chinese questions with answers: about 75
    lengths = np.clip(draw, 8, 512).astype(np.int64)
    start = time.perf_counter()
    row_of = pack(lengths, 512)
    assert time.perf_counter() - start < 20  # takes 0.5 s; far below what a scan over open rows would take
    filled = np.bincount(row_of, weights=lengths)
    assert filled.max() <= 512
    assert filled.mean() >= 0.95 * 512
    assert np.array_equal(row_of, pack(lengths, 512))


def test_packing_is_best_fit_decreasing() -> None:
    lengths = [4, 7, 2, 3, 5, 1, 6, 3, 3, 2]
    rows: list[int] = []  # free space of each row
    expected = 0
    for length in sorted(lengths, reverse=True):
        fitting = [space for space in rows if space >= length]
        if fitting:
            rows.remove(min(fitting))
        else:
            expected += 1
        rows.append((min(fitting) if fitting else 10) - length)
    result = pack(np.array(lengths), 10)
    assert result.max() + 1 == expected == 4
    assert sorted(10 - np.bincount(result, weights=lengths)) == sorted(rows)
    assert list(dict.fromkeys(result.tolist())) == [0, 1, 2, 3]


def test_order_is_a_pure_function_of_seed_and_epoch(rows: Rows) -> None:
    plan = BatchPlan(rows, 2, 1, 1, seed=7)
    first = plan.order(3).copy()
    plan.order(4)
    assert plan.order(3).tolist() == first.tolist() == BatchPlan(rows, 4, 2, 2, seed=7).order(3).tolist()
    assert sorted(first) == list(range(len(rows)))
    others = [BatchPlan(rows, 2, 1, 1, seed=8).order(3), plan.order(0), plan.order(4), np.arange(len(rows))]
    assert all(not np.array_equal(first, other) for other in others)
    assert BatchPlan(rows, 2, 1, 1, seed=7, shuffle=False).order(3).tolist() == list(range(len(rows)))


def test_order_does_not_change_between_versions() -> None:
    rows = build_rows(make_records([8] * 8), 8, packing=True)
    assert BatchPlan(rows, 1, 1, 1, seed=42).order(1).tolist() == [4, 5, 3, 0, 2, 7, 1, 6]


@pytest.mark.parametrize("split", SPLITS)
def test_any_split_of_a_global_batch_covers_the_same_rows(rows: Rows, split: tuple[int, int, int]) -> None:
    batch_size, accumulation, world = split
    plan, reference = BatchPlan(rows, *split, seed=1), BatchPlan(rows, 8, 1, 1, seed=1)
    assert len(rows) % 8 != 0
    assert plan.steps_per_epoch == reference.steps_per_epoch == -(-len(rows) // 8)
    covered: list[int] = []
    for step in range(plan.steps_per_epoch):
        dealt = [plan.rows_of(2, step, m, r) for m in range(accumulation) for r in range(world)]
        assert all(part.shape == (batch_size,) and part.dtype == np.int64 for part in dealt)
        taken = np.concatenate(dealt).tolist()
        assert sorted(taken) == sorted(reference.rows_of(2, step, 0, 0).tolist())
        labels = sum(int((rows.batch(part)["labels"] != IGNORE_INDEX).sum()) for part in dealt)
        tokens = sum(int((rows.batch(part)["segment_ids"] != 0).sum()) for part in dealt)
        assert plan.label_count(2, step) == labels == reference.label_count(2, step)
        assert plan.token_count(2, step) == tokens
        covered += [row for row in taken if row >= 0]
    assert sorted(covered) == list(range(len(rows)))


def test_batches_follow_the_plan_and_end(rows: Rows) -> None:
    plan = BatchPlan(rows, 2, 2, 2, seed=3)
    seen = []
    for epoch, step, micro, batch in batches(rows, plan, 1, 0, 0, 2):
        seen.append((epoch, step, micro))
        expected = rows.batch(plan.rows_of(epoch, step, micro, 1))
        assert all(np.array_equal(batch[name], expected[name]) for name in expected)
        assert all(values.dtype == np.int32 and values.shape == (2, 32) for values in batch.values())
    assert seen == [(e, s, m) for e in range(2) for s in range(plan.steps_per_epoch) for m in range(2)]


@pytest.mark.parametrize("workers", [1, 64])
def test_seeking_equals_iterating(rows: Rows, workers: int) -> None:
    plan = BatchPlan(rows, 2, 2, 1, seed=3)
    whole = [(e, s, m, b["input_ids"].tolist()) for e, s, m, b in batches(rows, plan, 0, 0, 0, 3)]
    for epoch, step in ((0, 1), (1, 0), (1, 2), (2, plan.steps_per_epoch - 1), (1, plan.steps_per_epoch)):
        there = (epoch * plan.steps_per_epoch + step) * 2
        stream = batches(rows, plan, 0, epoch, step, 3, num_workers=workers)
        assert [(e, s, m, b["input_ids"].tolist()) for e, s, m, b in stream] == whole[there:]
    assert list(batches(rows, plan, 0, 3, 0, 3)) == []


def test_seeking_far_and_stopping_early_leave_nothing_behind() -> None:
    """Reading its way to epoch 1,000,000 would take hours; the time limit is only there to say so."""
    code = (
        "from ms_medqa.data.dataset import *\n"
        "from ms_medqa.data.records import from_rows\n"
        "rows = build_rows(from_rows((str(i), [1] * 9, [1] * 9) for i in range(500)), 16, False)\n"
        "plan = BatchPlan(rows, 2, 1, 1, 0)\n"
        "stream = batches(rows, plan, 0, 10**6, 3, 10**6 + 1)\n"
        "print(next(stream)[:3]); stream.close()\n"
        "print(next(batches(rows, plan, 0, 0, 0, 1))[0]); kept = batches(rows, plan, 0, 0, 0, 1); next(kept)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(1000000, 3, 0)\n0\n"
    assert done.stderr == ""


def test_breaking_out_of_a_loop_lets_the_next_one_start(rows: Rows) -> None:
    plan = BatchPlan(rows, 1, 1, 1, seed=0)
    for _ in range(3):
        places = [place[:3] for place in islice(batches(rows, plan, 0, 0, 0, 1), 4)]
        assert places == [(0, 0, 0), (0, 1, 0), (0, 2, 0), (0, 3, 0)]


def test_inputs_name_every_label_and_its_place(rows: Rows) -> None:
    batch = rows.batch([3, -1, 7])
    labels = batch["labels"].reshape(-1)
    wanted = {(place, label) for place, label in enumerate(labels.tolist()) if label != IGNORE_INDEX}
    for length in (None, len(wanted), len(wanted) + 5):
        *ids, places, targets = model_inputs(batch, length)
        assert [values.tolist() for values in ids] == [
            batch[name].tolist() for name in ("input_ids", "position_ids", "segment_ids")
        ]
        assert len(places) == len(targets) == (length or labels.size)
        found = [pair for pair in zip(places.tolist(), targets.tolist(), strict=True) if pair[1] != IGNORE_INDEX]
        assert set(found) == wanted
        assert len(found) == len(wanted)
        assert not places[len(wanted) :].any()


@pytest.mark.parametrize(("batch", "accumulation", "world"), SPLITS)
@pytest.mark.parametrize("shuffle", [True, False])
def test_no_micro_batch_has_more_labels_than_the_plan_says(
    rows: Rows, batch: int, accumulation: int, world: int, shuffle: bool
) -> None:
    plan = BatchPlan(rows, batch, accumulation, world, seed=1, shuffle=shuffle)
    counts = [
        (rows.batch(plan.rows_of(epoch, step, micro, rank))["labels"] != IGNORE_INDEX).sum()
        for epoch in range(3)
        for step in range(plan.steps_per_epoch)
        for micro in range(accumulation)
        for rank in range(world)
    ]
    assert plan.most_labels(3) == max(counts)
