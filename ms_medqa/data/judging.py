"""Judges of raw records over all cores, their verdicts in the order of the input."""

from __future__ import annotations

import gc
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

from ms_medqa.config.errors import RunError
from ms_medqa.data.formats import FileHints
from ms_medqa.data.judge import Judge, Judged, Task
from ms_medqa.data.processes import cores, fresh_processes
from ms_medqa.data.raw import RawRecord
from ms_medqa.data.readers import look_ahead

# Records that travel to a worker at a time: enough that the way does not count, few enough that the bar moves.
BATCH = 256
# Bytes of input below which one process is done before others have started.
_SMALL = 8 * 2**20


class Judges:
    """One judge, or one in each of several processes."""

    def __init__(self, task: Task, pool: ProcessPoolExecutor | None, workers: int) -> None:
        self._pool = pool
        self._workers = workers
        self._columns = task.settings.columns
        self._judge = Judge(task) if pool is None else None

    def judge(
        self, raws: Iterable[RawRecord], stem: str, source: str, number: int
    ) -> Iterator[tuple[list[RawRecord], Judged]]:
        """Batches of a file's records with the verdict on them, in order, however many workers there are.

        Args:
            raws: the file's records.
            stem, source, number: of the file, as `Judge` takes them.
        """
        hints, records = look_ahead(raws, self._columns)
        batches = iter(lambda: list(itertools.islice(records, BATCH)), [])
        if self._pool is None:
            assert self._judge is not None
            for batch in batches:
                yield batch, self._judge(batch, stem, source, number, hints)
            return
        waiting: deque[tuple[list[RawRecord], Future[Judged]]] = deque()
        try:
            for batch in batches:
                waiting.append((batch, self._pool.submit(_judge_here, batch, stem, source, number, hints)))
                # Each worker has the next batch at hand; more would only fill the memory.
                if len(waiting) > 2 * self._workers:
                    first, judged = waiting.popleft()
                    yield first, judged.result()
            while waiting:
                first, judged = waiting.popleft()
                yield first, judged.result()
        except BrokenProcessPool:
            raise RunError("a process that reads records ended by itself; perhaps memory ran out") from None


@contextmanager
def judges(task: Task, size: int, workers: int | None = None) -> Iterator[Judges]:
    """Judges for inputs of `size` bytes.

    Args:
        task: what they need to know.
        size: of all inputs.
        workers: processes; by default as many as there are cores, or one where the input is small.
    """
    count = workers or (1 if size < _SMALL else cores())
    if count == 1:
        yield Judges(task, None, 1)
        return
    with fresh_processes(count, _start, task) as pool:
        yield Judges(task, pool, count)


_here: list[Judge] = []


def _start(task: Task) -> None:
    # One core each: the tokenizer's own threads would only get in each other's way.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    # Records come and go without cycles; looking for those after every 700 objects took 3 % of the time.
    gc.set_threshold(50_000, 20, 100)
    _here[:] = [Judge(task)]


def _judge_here(raws: Sequence[RawRecord], stem: str, source: str, number: int, hints: FileHints) -> Judged:
    return _here[0](raws, stem, source, number, hints)
