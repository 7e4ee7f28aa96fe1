"""Write the MindRecord files of a conversion over all cores, each file by one process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from pathlib import Path

import numpy as np

from ms_medqa.config.console import progress
from ms_medqa.config.errors import RunError
from ms_medqa.data.mindrecord import plan_shards, write_records
from ms_medqa.data.processes import give_back_memory
from ms_medqa.data.spool import Joined


class Writing:
    """`<part>.mindrecord` of each part that has records; of a large part, several files.

    A pool's processes begin at once, while this one can do something else. Without one, `finish` writes the same files.

    Args:
        folder: gets the files.
        parts: name → records.
        largest: bytes that a file is aimed to have at most.
        pool: the processes.

    Raises:
        RunError: a process has died.
    """

    def __init__(
        self, folder: Path, parts: Mapping[str, Joined], largest: int, pool: ProcessPoolExecutor | None
    ) -> None:
        self._planned = {
            part: plan_shards(folder / f"{part}.mindrecord", rows, largest) if len(rows) else []
            for part, rows in parts.items()
        }
        self._waiting: list[Future[int]] = []
        if pool is not None:
            # The largest first: at the end, small ones keep all processes busy.
            largest_first = sorted(self._files(), key=lambda file: -len(file[1]))
            with _death_told():
                self._waiting = [pool.submit(_write_there, path, _tell(path, rows)) for path, rows in largest_first]

    def finish(self) -> dict[str, list[Path]]:
        """Part → its data files, in the order of the records, when all are written and proven.

        Raises:
            RunError: no space is left, what was written cannot be read back, or a process died.
            UserError: a record is too long for MindRecord.
        """
        if not self._waiting:
            for path, rows in self._files():
                write_records(path, rows)
        else:
            total = sum(len(rows) for _, rows in self._files())
            with _death_told(), progress(total=total, desc="writing MindRecord", unit="record") as bar:
                for done in as_completed(self._waiting):
                    bar.update(done.result())
        return {part: [path for path, _ in files] for part, files in self._planned.items()}

    def _files(self) -> list[tuple[Path, Joined]]:
        return [file for files in self._planned.values() for file in files]


@contextmanager
def _death_told() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise RunError("a process that writes records ended by itself; perhaps memory ran out") from None


def _tell(path: Path, rows: Joined) -> Joined:
    """The rows without their numbers, which are too many for the pool's pipe and are written down beside the file."""
    np.savez(_numbers_of(path), *(part.indices for part in rows.parts))
    return replace(rows, parts=tuple(part.spooled.part(()) for part in rows.parts))


def _numbers_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.npz")


def _write_there(path: Path, rows: Joined) -> int:
    told = _numbers_of(path)
    with np.load(told) as numbers:
        parts = [part.spooled.part(numbers[name]) for part, name in zip(rows.parts, numbers.files, strict=True)]
    told.unlink()
    # The bar on the terminal is that of the first process.
    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere):
        count = write_records(path, replace(rows, parts=tuple(parts)))
    give_back_memory()
    return count
