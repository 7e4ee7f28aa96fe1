"""Write the MindRecord files of a conversion over all cores, each file by one process."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from ms_medqa.config.console import progress
from ms_medqa.config.errors import RunError
from ms_medqa.data.mindrecord import load_mindspore, plan_shards, write_records
from ms_medqa.data.processes import cores, fresh_processes
from ms_medqa.data.spool import Joined

# Rows whose writing takes as long as the start of processes that each import MindSpore.
_WORTH = 20_000

_Files = list[tuple[Path, Joined]]


class Writers:
    """This process, or several others as soon as there is enough to write; the files are the same."""

    def __init__(self, largest: int, workers: int | None, stack: ExitStack) -> None:
        self._largest = largest
        self._workers = workers
        self._stack = stack
        self._pool: ProcessPoolExecutor | None = None

    def expect(self, parts: Mapping[str, Joined]) -> None:
        """Let processes start, where these parts alone, with whatever is added to them, are worth it.

        Args:
            parts: name → records.
        """
        if self._pool is not None:
            return
        sizes = [len(rows) for files in self._plan(Path(), parts).values() for _, rows in files]
        count = min(self._workers or cores(), len(sizes))
        if count < 2:
            return
        saved = sum(sizes) - max(*sizes, sum(sizes) // count)
        if self._workers or saved > _WORTH:
            self._pool = self._stack.enter_context(fresh_processes(count, _start, at_once=True))

    def write(self, folder: Path, parts: Mapping[str, Joined]) -> dict[str, list[Path]]:
        """Write and prove `<part>.mindrecord` of each part that has records; of a large part, several files.

        Args:
            folder: gets the files.
            parts: name → records.

        Returns:
            Part → its data files, in the order of the records.

        Raises:
            RunError: no space is left, what was written cannot be read back, or a process died.
            UserError: a record is too long for MindRecord.
        """
        self.expect(parts)
        planned = self._plan(folder, parts)
        files = [file for of_part in planned.values() for file in of_part]
        if self._pool is None:
            for path, rows in files:
                write_records(path, rows)
        else:
            _write_there(self._pool, files)
        return {part: [path for path, _ in of_part] for part, of_part in planned.items()}

    def _plan(self, folder: Path, parts: Mapping[str, Joined]) -> dict[str, _Files]:
        return {
            part: plan_shards(folder / f"{part}.mindrecord", rows, self._largest) if len(rows) else []
            for part, rows in parts.items()
        }


@contextmanager
def writers(largest: int, workers: int | None = None) -> Iterator[Writers]:
    """Writers of MindRecord files; no process of theirs outlives the block.

    Args:
        largest: bytes that a file is aimed to have at most.
        workers: processes; by default one for each core, where there is enough to write.
    """
    with ExitStack() as stack:
        yield Writers(largest, workers, stack)


def _write_there(pool: ProcessPoolExecutor, files: _Files) -> None:
    total = sum(len(rows) for _, rows in files)
    try:
        with progress(total=total, desc="writing MindRecord", unit="record") as bar:
            # The largest first: at the end, small ones keep all processes busy.
            largest_first = sorted(files, key=lambda file: -len(file[1]))
            waiting = [pool.submit(_write_here, path, _tell(path, rows)) for path, rows in largest_first]
            for done in as_completed(waiting):
                bar.update(done.result())
    except BrokenProcessPool:
        raise RunError("a process that writes records ended by itself; perhaps memory ran out") from None


def _tell(path: Path, rows: Joined) -> Joined:
    """The rows without their numbers, which are too many for the pool's pipe and are written down beside the file."""
    np.savez(_numbers_of(path), *(part.indices for part in rows.parts))
    return replace(rows, parts=tuple(part.spooled.part(()) for part in rows.parts))


def _numbers_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.npz")


def _write_here(path: Path, rows: Joined) -> int:
    told = _numbers_of(path)
    with np.load(told) as numbers:
        parts = [part.spooled.part(numbers[name]) for part, name in zip(rows.parts, numbers.files, strict=True)]
    told.unlink()
    count = write_records(path, replace(rows, parts=tuple(parts)))
    _give_back()
    return count


def _give_back() -> None:
    """Give the memory of what is gone back to the system: glibc keeps 50 MB and more of each file that was written."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _start() -> None:
    # The bar on the terminal is that of the first process.
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    # An import that fails is an error of the first file.
    with suppress(ImportError):
        load_mindspore()
