"""From tokenised records to the batches of a training step: rows, their order, and a loader that starts anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ms_medqa.backend.cores import cores_here
from ms_medqa.config.errors import UserError
from ms_medqa.data.packing import pack
from ms_medqa.data.records import TokenRecords

IGNORE_INDEX = -100  # label of a position without a target
COLUMNS = ("input_ids", "position_ids", "segment_ids", "labels")


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Rows of `max_length` tokens, built when they are asked for.

    A row is a run of pieces; a piece is a record (or, in pre-training, the part of it that falls into the row).

    Attributes:
        records: the tokens.
        max_length: tokens in a row, padding included.
        piece_starts, piece_ends: int64 (pieces,), token ranges in `records.tokens`, ordered by row.
        piece_records: int64 (pieces,), the record of each piece.
        row_offsets: int64 (n + 1,); row i has the pieces `row_offsets[i]` … `row_offsets[i + 1] - 1`.
        label_counts: int64 (n,), positions with a target in each row.
        token_counts: int64 (n,), tokens in each row, padding not counted.
    """

    records: TokenRecords
    max_length: int
    piece_starts: np.ndarray
    piece_ends: np.ndarray
    piece_records: np.ndarray
    row_offsets: np.ndarray
    label_counts: np.ndarray
    token_counts: np.ndarray

    def __len__(self) -> int:
        return len(self.row_offsets) - 1

    def row(self, index: int) -> dict[str, np.ndarray]:
        """One row, int32 (max_length,) each.

        `input_ids` (0 in the padding); `position_ids`, from 0 in each piece; `segment_ids`, 1, 2, … by piece and 0 in
        the padding: a token attends only to its own segment; `labels`: `labels[t]` is `input_ids[t + 1]` where that is
        a trained token of the same piece, else -100.
        """
        assert 0 <= index < len(self), index
        return {name: values[0] for name, values in self.batch([index]).items()}

    def empty_row(self) -> dict[str, np.ndarray]:
        """A row of padding alone: no token, no label."""
        return {name: values[0] for name, values in self.empty_batch(1).items()}

    def batch(self, indices: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        """Rows stacked to int32 (len(indices), max_length); -1 stands for an empty row."""
        result = self.empty_batch(len(indices))
        trained = np.zeros((len(indices), self.max_length), dtype=np.uint8)
        for place, index in enumerate(np.asarray(indices).tolist()):
            if index >= 0:
                self._fill(*(result[name][place] for name in COLUMNS[:3]), trained[place], index)
        # Once for all rows: piece by piece, it takes as long as all the rest.
        ids, labels = result["input_ids"], result["labels"]
        np.copyto(labels[:, :-1], ids[:, 1:], where=trained[:, 1:] > 0)
        return result

    def empty_batch(self, size: int) -> dict[str, np.ndarray]:
        """`size` empty rows."""
        shape = (size, self.max_length)
        result = {name: np.zeros(shape, dtype=np.int32) for name in COLUMNS}
        result["labels"].fill(IGNORE_INDEX)
        return result

    def records_of(self, index: int) -> np.ndarray:
        """Record numbers in a row, int64, in the order of its segments."""
        return self.piece_records[self.row_offsets[index] : self.row_offsets[index + 1]]

    def _fill(
        self, ids: np.ndarray, positions: np.ndarray, segments: np.ndarray, trained: np.ndarray, index: int
    ) -> None:
        """Write a row's pieces; `trained` gets their loss masks, 0 for the first token, which is nobody's label."""
        pieces = slice(self.row_offsets[index], self.row_offsets[index + 1])
        numbers = _numbers(self.max_length)
        at = 0
        for segment, (start, end) in enumerate(
            zip(self.piece_starts[pieces].tolist(), self.piece_ends[pieces].tolist(), strict=True), start=1
        ):
            stop = at + end - start
            ids[at:stop] = self.records.tokens[start:end]
            positions[at:stop] = numbers[: end - start]
            segments[at:stop] = segment
            trained[at + 1 : stop] = self.records.loss_mask[start + 1 : end]
            at = stop


@lru_cache(maxsize=4)
def _numbers(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.int32)


def build_rows(records: TokenRecords, max_length: int, packing: bool, split_records: bool = False) -> Rows:
    """Plan the rows of a data set.

    Args:
        records: the tokens.
        max_length: tokens in a row.
        packing: several records share a row where they fit; otherwise each has its own.
        split_records: for pre-training: all tokens one after the other, cut every `max_length`; a record that is cut
            goes on in the next row as a piece of its own (`packing` plays no part).

    Raises:
        UserError: no records; a record without tokens, or longer than a row (unless `split_records`).
    """
    if len(records) == 0:
        raise UserError("the data set has no records", "look at report.json of the converted folder")
    starts, ends = records.offsets[:-1], records.offsets[1:]
    lengths = ends - starts
    if lengths.min() == 0:
        raise UserError(f"record {records.ids[int(lengths.argmin())]!r} has no tokens", "convert the data anew")
    if split_records:
        cuts = np.arange(0, records.offsets[-1], max_length)
        bounds = np.union1d(records.offsets, cuts)
        starts, ends = bounds[:-1], bounds[1:]
        members = np.searchsorted(records.offsets, starts, side="right") - 1
        row_of = starts // max_length
    else:
        if lengths.max() > max_length:
            worst = int(lengths.argmax())
            raise UserError(
                f"record {records.ids[worst]!r} has {lengths[worst]} tokens, more than max_length = {max_length}",
                "set data.max_length to what the data was converted with, or convert it anew",
            )
        members = np.arange(len(records), dtype=np.int64)
        row_of = pack(lengths, max_length) if packing else members
    # The first token of a piece has nothing before it in its segment and so is nobody's label.
    labels = np.add.reduceat(records.loss_mask, starts, dtype=np.int64) - records.loss_mask[starts]
    order = np.argsort(row_of, kind="stable")  # in a row, records keep their order
    starts, ends, members, labels, row_of = starts[order], ends[order], members[order], labels[order], row_of[order]
    row_offsets = np.searchsorted(row_of, np.arange(int(row_of[-1]) + 2))
    return Rows(
        records=records,
        max_length=max_length,
        piece_starts=starts,
        piece_ends=ends,
        piece_records=members,
        row_offsets=row_offsets,
        label_counts=np.add.reduceat(labels, row_offsets[:-1]),
        token_counts=np.add.reduceat(ends - starts, row_offsets[:-1]),
    )


class BatchPlan:
    """Which rows each optimizer step, micro-batch and rank takes.

    The order is a pure function of (seed, epoch). A step takes the next `batch_size * accumulation * world_size` rows
    of it, so any split of the same global batch covers the same rows; the last step of an epoch is filled with empty
    rows (-1), so that no row is repeated or left out.

    Attributes:
        rows: the rows.
        global_batch: rows in one optimizer step.
        steps_per_epoch: optimizer steps in one pass over all rows.
    """

    def __init__(
        self, rows: Rows, batch_size: int, accumulation: int, world_size: int, seed: int, shuffle: bool = True
    ) -> None:
        assert len(rows) > 0
        assert min(batch_size, accumulation, world_size) >= 1
        self.rows = rows
        self.batch_size = batch_size
        self.accumulation = accumulation
        self.world_size = world_size
        self.seed = seed
        self.shuffle = shuffle
        self.global_batch = batch_size * accumulation * world_size
        self.steps_per_epoch = -(-len(rows) // self.global_batch)
        self._last_order: tuple[int, np.ndarray] | None = None

    def order(self, epoch: int) -> np.ndarray:
        """int64 (n,): the rows in the order of an epoch."""
        last = self._last_order
        if last is not None and last[0] == epoch:
            return last[1]
        n = len(self.rows)
        if self.shuffle:
            # Sorting raw draws of a counter-based generator: NumPy promises these bits for ever, its permutation not.
            key = np.array([self.seed, epoch], dtype=np.uint64)
            order = np.argsort(np.random.Philox(key=key).random_raw(n), kind="stable")
        else:
            order = np.arange(n)
        order = order.astype(np.int64, copy=False)
        order.flags.writeable = False
        self._last_order = (epoch, order)
        return order

    def rows_of(self, epoch: int, step: int, micro: int, rank: int) -> np.ndarray:
        """int64 (batch_size,): the rows that `rank` takes in micro-batch `micro` of a step, -1 for an empty one."""
        assert 0 <= micro < self.accumulation, micro
        assert 0 <= rank < self.world_size, rank
        start = (micro * self.world_size + rank) * self.batch_size
        return self._step_rows(epoch, step, start, start + self.batch_size)

    def most_labels(self, epochs: int) -> int:
        """The most positions with a target in one rank's micro-batch over the first `epochs` epochs, at least 1."""
        counts = np.append(self.rows.label_counts, 0)  # entry -1 is the empty row
        most = 1
        for epoch in range(epochs if self.shuffle else min(epochs, 1)):
            order = np.full(self.steps_per_epoch * self.global_batch, -1, dtype=np.int64)
            order[: len(self.rows)] = self.order(epoch)
            most = max(most, int(counts[order].reshape(-1, self.batch_size).sum(axis=1).max()))
        return most

    def rows_of_step(self, epoch: int, step: int) -> np.ndarray:
        """int64 (n,): the rows of the whole global batch, by micro-batch, then by rank, without the empty ones."""
        rows = self._step_rows(epoch, step, 0, self.global_batch)
        return rows[rows >= 0]

    def label_count(self, epoch: int, step: int) -> int:
        """Positions with a target in the whole global batch: what its summed loss is divided by."""
        return int(self.rows.label_counts[self.rows_of_step(epoch, step)].sum())

    def step_scalars(self, epoch: int, step: int, micro: int) -> tuple[np.ndarray, np.ndarray]:
        """float32 () and bool (): what a micro-batch's loss is divided by, and whether it is its step's last one."""
        count = max(self.label_count(epoch, step), 1)
        return np.array(count, dtype=np.float32), np.array(micro == self.accumulation - 1)

    def token_count(self, epoch: int, step: int) -> int:
        """Tokens in the whole global batch, padding not counted."""
        return int(self.rows.token_counts[self.rows_of_step(epoch, step)].sum())

    def record_count(self, epoch: int, step: int) -> int:
        """Records in the whole global batch; in pre-training the parts of them that its rows hold."""
        rows = self.rows_of_step(epoch, step)
        return int((self.rows.row_offsets[rows + 1] - self.rows.row_offsets[rows]).sum())

    def _step_rows(self, epoch: int, step: int, start: int, stop: int) -> np.ndarray:
        assert 0 <= step < self.steps_per_epoch, step
        first = step * self.global_batch
        taken = self.order(epoch)[first + start : first + stop]
        result = np.full(stop - start, -1, dtype=np.int64)
        result[: len(taken)] = taken
        return result


def model_inputs(batch: dict[str, np.ndarray], labels: int | None = None) -> tuple[np.ndarray, ...]:
    """A batch as the loss takes it: the positions with a label as a list of fixed length.

    Args:
        batch: int32 (n, L) arrays as `Rows.batch` gives them.
        labels: length of the list, at least the number of labels in the batch; n * L by default.

    Returns:
        int32 input_ids, position_ids, segment_ids (n, L), label_places (labels,): positions in the flattened batch, and
        labels (labels,): the targets there; behind the last one the list is filled with place 0 and label -100.
    """
    flat = batch["labels"].reshape(-1)
    places = np.zeros(flat.size if labels is None else labels, dtype=np.int32)
    targets = np.full_like(places, IGNORE_INDEX)
    there = np.flatnonzero(flat != IGNORE_INDEX)
    assert len(there) <= len(places), (len(there), len(places))
    places[: len(there)], targets[: len(there)] = there, flat[there]
    return batch["input_ids"], batch["position_ids"], batch["segment_ids"], places, targets


class _MicroBatches:
    """Random-access source of GeneratorDataset: item i is the i-th micro-batch after the start."""

    def __init__(self, plan: BatchPlan, rank: int, first: int, last: int) -> None:
        self._plan = plan
        self._rank = rank
        self._first = first
        self._count = max(0, last - first)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        position = self._first + int(index)
        batch = self._plan.rows.batch(self._plan.rows_of(*place_of(self._plan, position), self._rank))
        return (np.array(position, dtype=np.int64), *(batch[name] for name in COLUMNS))


class _StepInputs(_MicroBatches):
    """The same with all that a training step takes."""

    def __init__(self, plan: BatchPlan, rank: int, first: int, last: int, labels: int) -> None:
        super().__init__(plan, rank, first, last)
        self._labels = labels

    def __getitem__(self, index: int) -> tuple[np.ndarray, ...]:
        position, *columns = super().__getitem__(index)
        inputs = model_inputs(dict(zip(COLUMNS, columns, strict=True)), self._labels)
        return (*inputs, *self._plan.step_scalars(*place_of(self._plan, int(position))))


def place_of(plan: BatchPlan, position: int) -> tuple[int, int, int]:
    """(epoch, step, micro) of the micro-batch at a position counted from the very start."""
    steps, micro = divmod(position, plan.accumulation)
    epoch, step = divmod(steps, plan.steps_per_epoch)
    return epoch, step, micro


def batches(
    rows: Rows, plan: BatchPlan, rank: int, start_epoch: int, start_step: int, epochs: int, num_workers: int = 1
) -> Iterator[tuple[int, int, int, dict[str, np.ndarray]]]:
    """The micro-batches of one rank from (start_epoch, start_step) to the end of epoch `epochs - 1`, read ahead.

    Starting anywhere costs the same; `start_step == steps_per_epoch` is the start of the next epoch. The order does
    not depend on `num_workers`, which is cut to the cores this process may use. One reader thread is enough: a row
    takes about 0.1 ms, and with more of them MindSpore needs up to 5 s to end an iteration that is broken off.

    Yields:
        (epoch, step, micro, batch), the batch being int32 (batch_size, max_length) arrays as `Rows.row` names them.
    """
    assert plan.rows is rows
    first, last = _range(plan, start_epoch, start_step, epochs)
    source = _MicroBatches(plan, rank, first, last)
    if len(source) == 0:
        return
    dataset = _generator_dataset(source, ["position", *COLUMNS], num_workers)
    iterator = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
    try:
        for count, (position, *columns) in enumerate(iterator):
            assert int(position) == first + count, (int(position), first + count)
            yield (*place_of(plan, int(position)), dict(zip(COLUMNS, columns, strict=True)))
    finally:
        # A consumer that stops early must not leave the reader threads waiting at interpreter exit.
        iterator.stop()


def step_dataset(plan: BatchPlan, rank: int, start_epoch: int, start_step: int, epochs: int, labels: int) -> Any:
    """The same micro-batches as a MindSpore dataset of a training step's inputs, in their order.

    Args:
        plan, rank, start_epoch, start_step, epochs: see `batches`.
        labels: see `model_inputs`.
    """
    source = _StepInputs(plan, rank, *_range(plan, start_epoch, start_step, epochs), labels)
    columns = [*COLUMNS[:3], "label_places", "labels", "label_count", "last"]
    return _generator_dataset(source, columns, 1)


def _range(plan: BatchPlan, start_epoch: int, start_step: int, epochs: int) -> tuple[int, int]:
    """Positions of the first micro-batch, and of the one after the last."""
    first = (start_epoch * plan.steps_per_epoch + start_step) * plan.accumulation
    return first, epochs * plan.steps_per_epoch * plan.accumulation


def _generator_dataset(source: _MicroBatches, columns: list[str], num_workers: int) -> Any:
    import mindspore.dataset as ds

    return ds.GeneratorDataset(
        source,
        column_names=columns,
        shuffle=False,
        num_parallel_workers=max(1, min(num_workers, cores_here())),
        python_multiprocessing=False,
    )
