"""Raw records → verdicts, over all cores, in the order of the input."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ms_medqa.config.errors import RunError
from ms_medqa.config.schema import DataSection
from ms_medqa.data.clean import Cleaner, Kept, Rejected, digest_of
from ms_medqa.data.example import Example, Record
from ms_medqa.data.formats import FileHints
from ms_medqa.data.minhash import signatures
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.raw import RawRecord
from ms_medqa.data.readers import look_ahead, parse_raw
from ms_medqa.data.tokenizer import Tokenizer

# Records that travel to a worker at a time: enough that the way does not count, few enough that the bar moves.
BATCH = 256
# Bytes of input below which one process is done before others have started.
_SMALL = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one raw record.

    Attributes:
        format: its format in words, empty where none was found.
        outcome: the record with its tokens, or the reason against it.
        digest: of a kept record's texts: equal ones are duplicates.
        signatures: uint32 (2, num_perm), of a kept record's first question and of all its questions and answers.
    """

    format: str
    outcome: Kept | Rejected
    digest: bytes = b""
    signatures: np.ndarray | None = None


@dataclass(frozen=True)
class Task:
    """What a worker needs to know."""

    settings: DataSection
    tokenizer: Path
    prompt: str


class Judge:
    """Parses and judges batches of raw records; knows nothing of other batches."""

    def __init__(self, task: Task) -> None:
        self._settings = task.settings
        tokenizer = Tokenizer.load(task.tokenizer)
        self._cleaner = Cleaner(task.settings, tokenizer, Prompt.named(task.prompt, tokenizer))

    def __call__(self, raws: Sequence[RawRecord], stem: str, source: str, hints: FileHints) -> list[Verdict]:
        """The verdicts on some records of a file.

        Args:
            raws: the records.
            stem: what the id of a record without one begins with.
            source: name of the file.
            hints: what the beginning of the file tells of all its records.
        """
        readings = [parse_raw(raw, self._settings, stem, source, hints) for raw in raws]
        judged = iter(self._cleaner.judge([reading.record for reading in readings if reading.record is not None]))
        outcomes = [Rejected(*reading.error) if reading.error is not None else next(judged) for reading in readings]
        kept = [outcome.record for outcome in outcomes if isinstance(outcome, Kept)]
        marks = signatures([text for record in kept for text in _texts(record)])
        pairs = iter(marks.reshape(len(kept), 2, marks.shape[1]))
        return [
            Verdict(reading.format, outcome, digest_of(outcome.record), next(pairs))
            if isinstance(outcome, Kept)
            else Verdict(reading.format, outcome)
            for reading, outcome in zip(readings, outcomes, strict=True)
        ]


def _texts(record: Record) -> tuple[str, str]:
    """The question by which a record is grouped, and everything by which it is alike to another."""
    if not isinstance(record, Example):
        return record.text, record.text
    turns = [text for turn in (*record.history, (record.question, record.answer)) for text in turn]
    return turns[0], "\n".join(turns)


class Judges:
    """One judge, or one in each of several processes."""

    def __init__(self, task: Task, pool: ProcessPoolExecutor | None, workers: int) -> None:
        self._pool = pool
        self._workers = workers
        self._columns = task.settings.columns
        self._judge = Judge(task) if pool is None else None

    def judge(
        self, raws: Iterable[RawRecord], stem: str, source: str
    ) -> Iterator[tuple[list[RawRecord], list[Verdict]]]:
        """Batches of a file's records with their verdicts, in order, however many workers there are."""
        hints, records = look_ahead(raws, self._columns)
        batches = iter(lambda: list(itertools.islice(records, BATCH)), [])
        if self._pool is None:
            assert self._judge is not None
            for batch in batches:
                yield batch, self._judge(batch, stem, source, hints)
            return
        waiting: deque[tuple[list[RawRecord], Future[list[Verdict]]]] = deque()
        try:
            for batch in batches:
                waiting.append((batch, self._pool.submit(_judge_here, batch, stem, source, hints)))
                # Each worker has the next batch at hand; more would only fill the memory.
                if len(waiting) > 2 * self._workers:
                    first, verdicts = waiting.popleft()
                    yield first, verdicts.result()
            while waiting:
                first, verdicts = waiting.popleft()
                yield first, verdicts.result()
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
    # Fresh processes: threads that exist already, and their locks, do not survive a fork.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(count, context, _start, (task,))
    try:
        yield Judges(task, pool, count)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_here: list[Judge] = []


def _start(task: Task) -> None:
    # One core each: the tokenizer's own threads would only get in each other's way.
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    _here[:] = [Judge(task)]


def _judge_here(raws: Sequence[RawRecord], stem: str, source: str, hints: FileHints) -> list[Verdict]:
    return _here[0](raws, stem, source, hints)
