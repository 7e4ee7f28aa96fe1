"""Judges of raw records, and what else goes over all cores; results are in the order of the input."""

from __future__ import annotations

import functools
import itertools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from ms_medqa.backend.cores import cores_here
from ms_medqa.config.errors import RunError, UserError
from ms_medqa.data.augment import Augmenter
from ms_medqa.data.clean import Cleaner
from ms_medqa.data.formats import FileHints
from ms_medqa.data.judge import Judge, Judged, Task
from ms_medqa.data.preloaded import start_server
from ms_medqa.data.processes import (
    collect_seldom,
    end_quickly,
    few_collections,
    fresh_processes,
    give_back_memory,
)
from ms_medqa.data.raw import RawRecord
from ms_medqa.data.readers import look_ahead

# Records that travel to a worker at a time: enough that neither the way nor the calls of NumPy count (512 take 2 to 7 %
# longer), few enough that the bar moves.
BATCH = 1024
# The first process takes a sixth of a worker's time for a record: it could not feed more.
_MOST = 16
# Bytes of input below which one process is done before others have started.
_SMALL = 8 * 2**20


T = TypeVar("T")
R = TypeVar("R")


class Worker:
    """What one process works with.

    Attributes:
        settings: of the conversion.
        judge: of raw records.
        augmenter: makes variants.

    Raises:
        UserError: the tokenizer, the prompt or a list is at fault.
    """

    def __init__(self, task: Task) -> None:
        self.settings = settings = task.settings
        self.judge = Judge(task)
        self.augmenter = Augmenter(settings.aug_rate, settings.seed, settings.synonyms)

    @property
    def cleaner(self) -> Cleaner:
        """Judges records."""
        return self.judge.cleaner


class Judges:
    """One worker, or one in each of several processes.

    Attributes:
        worker: the one of this process, by which it judges what it must itself.
        pool: the other processes, None where there are none.
    """

    def __init__(self, worker: Worker, pool: ProcessPoolExecutor | None, workers: int) -> None:
        self.worker = worker
        self.pool = pool
        self._workers = workers

    def judge(
        self, raws: Iterable[RawRecord], stem: str, source: str, number: int
    ) -> Iterator[tuple[list[RawRecord], Judged]]:
        """Batches of a file's records with the verdict on them, in order, however many workers there are.

        Args:
            raws: the file's records.
            stem, source, number: of the file, as `Judge` takes them.
        """
        hints, records = look_ahead(raws, self.worker.settings.columns)
        work = functools.partial(_judge, stem=stem, source=source, number=number, hints=hints)
        return self.in_order(work, records)

    def in_order(
        self, work: Callable[[Worker, list[T]], R], items: Iterable[T], ahead: int | None = None
    ) -> Iterator[tuple[list[T], R]]:
        """Batches of items with what the workers make of them, in order, however many workers there are.

        Processes begin at once, before the first result is asked for.

        Args:
            work: is given a worker and a batch; a function of a module, as it travels by its name.
            items: taken as they are needed.
            ahead: batches that are begun before the first result is taken, and so many results may have to wait in
                memory; by default so few that no worker is idle.

        Raises:
            RunError: a process ended by itself.
        """
        rest = iter(items)
        batches = iter(lambda: list(itertools.islice(rest, BATCH)), [])
        if self.pool is None:
            return ((batch, work(self.worker, batch)) for batch in batches)
        return self._results(map(functools.partial(self._submit, work), batches), ahead or 2 * self._workers)

    def _submit(self, work: Callable[[Worker, list[T]], R], batch: list[T]) -> tuple[list[T], Future[R]]:
        assert self.pool is not None
        try:
            return batch, self.pool.submit(_work_here, work, batch)
        except BrokenProcessPool:
            raise _died() from None

    def _results(self, coming: Iterator[tuple[list[T], Future[R]]], ahead: int) -> Iterator[tuple[list[T], R]]:
        waiting = deque(itertools.islice(coming, ahead))

        def results() -> Iterator[tuple[list[T], R]]:
            while waiting:
                waiting.extend(itertools.islice(coming, 1))
                batch, future = waiting.popleft()
                try:
                    result = future.result()
                except BrokenProcessPool:
                    raise _died() from None
                yield batch, result

        return results()


def _died() -> RunError:
    return RunError("a process that reads records ended by itself; perhaps memory ran out")


@contextmanager
def judges(task: Task, size: int, workers: int | None, meanwhile: Callable[[], object]) -> Iterator[Judges]:
    """Judges for inputs of `size` bytes; their processes end with the block.

    Args:
        task: what they need to know.
        size: of all inputs.
        workers: processes; None for as many as there are cores, or one where the input is small.
        meanwhile: called while several processes get ready.

    Raises:
        UserError: as `Worker`.
        RunError: no process can be started.
    """
    count = workers or (1 if size < _SMALL else min(cores_here(), _MOST))
    if count == 1:
        yield Judges(Worker(task), None, 1)
        return
    with few_collections():
        start_server(task.tokenizer)
        worker = Worker(task)
        meanwhile()
        with fresh_processes(count, _start, task) as pool:
            yield Judges(worker, pool, count)


_here: list[Worker | UserError] = []


def _start(task: Task) -> None:
    # One core each: threads of the tokenizers would only get in each other's way.
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "FASTOKENS_BPE_THREADS": "1"}
    collect_seldom()
    end_quickly()
    try:
        worker = Worker(task)
        worker.judge.tokenizer.expect_many()
    except UserError as error:
        # The first process meets the same fault, and tells it; raised here, it would come with a traceback of each.
        _here[:] = [error]
    else:
        _here[:] = [worker]
    give_back_memory()


def _work_here(work: Callable[[Worker, list[T]], R], batch: list[T]) -> R:
    worker = _here[0]
    if isinstance(worker, UserError):
        raise worker
    return work(worker, batch)


def _judge(worker: Worker, raws: Sequence[RawRecord], stem: str, source: str, number: int, hints: FileHints) -> Judged:
    return worker.judge(raws, stem, source, number, hints)
