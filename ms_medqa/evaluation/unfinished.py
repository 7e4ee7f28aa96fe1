"""What models have said so far, kept in files of the output folder: a run goes on from them, processes share them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ms_medqa.backend.distributed import World
from ms_medqa.config.errors import RunError
from ms_medqa.config.kept_lines import KeptLines, read_kept
from ms_medqa.evaluation.measure import Line, read_lines
from ms_medqa.evaluation.task import Measured

FOLDER = "unfinished"
_POLL_SECONDS = 0.2


class Results(KeptLines):
    """What one process has found out about one model on one task."""

    def checked(self, value: Any) -> dict[str, Any]:
        read_lines([value])
        return super().checked(value)


class Unfinished:
    """The files of one evaluation: one for each task, model and process.

    Args:
        output: folder of the evaluation.
        world: this process among those that share the work; all see the folder.
    """

    def __init__(self, output: Path, world: World) -> None:
        self.folder, self._world = output / FOLDER, world
        self._used: set[tuple[str, str]] = set()
        self.folder.mkdir(parents=True, exist_ok=True)
        # Of a run that was killed at its end. All processes start before any of them ends, see `run_evaluation`.
        self._mark(world.rank).unlink(missing_ok=True)

    def open(self, task: str, model: str, about: Mapping[str, Any]) -> Results:
        """This process's file; `about` is what results depend on."""
        self._used.add((task, model))
        return Results(self._path(task, model, self._world.rank), about, "results")

    def others(self, task: str, model: str, about: Mapping[str, Any]) -> list[Line]:
        """What other processes, also those of an earlier run, have kept of the same."""
        own = self._path(task, model, self._world.rank)
        found = []
        for path in sorted(self.folder.glob(self._path(task, model, "*").name)):
            if path != own:
                # A process without items removes its file when it ends.
                with suppress(FileNotFoundError):
                    found += read_kept(path, about)
        return found

    def gathered(self, task: str, model: str, about: Mapping[str, Any], count: int) -> dict[int, Measured]:
        """What all processes have found, once all have ended.

        Raises:
            RunError: something is missing.
        """
        own = self._path(task, model, self._world.rank)
        lines = [*(read_kept(own, about) if own.exists() else []), *self.others(task, model, about)]
        found = read_lines(lines)
        missing = [number for number in range(count) if number not in found]
        if missing:
            raise RunError(
                f"{self.folder}: {len(missing)} of {count} results of {model} on {task} are missing; all processes "
                "must see one output folder"
            )
        return found

    def finish(self) -> bool:
        """Wait for the other processes: the first until all are done, the others until the first has ended its work.

        By files, and not by a collective: that gives up where one process has longer to do than the others.

        Returns:
            Whether this is the first process, which goes on.
        """
        if self._world.size == 1:
            return True
        if self._world.is_main:
            others = range(1, self._world.size)
            while not all(self._mark(rank).exists() for rank in others):
                time.sleep(_POLL_SECONDS)
            return True
        mark = self._mark(self._world.rank)
        mark.touch()
        # A process that ends takes the others along.
        while mark.exists():
            time.sleep(_POLL_SECONDS)
        return False

    def remove(self) -> None:
        """Remove this evaluation's files, those of all processes, and the folder if nothing else is in it."""
        for task, model in self._used:
            for path in self.folder.glob(self._path(task, model, "*").name):
                path.unlink(missing_ok=True)

    def release(self) -> None:
        """Let the other processes end."""
        for rank in range(1, self._world.size):
            self._mark(rank).unlink(missing_ok=True)
        with suppress(OSError):
            self.folder.rmdir()

    def _path(self, task: str, model: str, rank: int | str) -> Path:
        # Names of models are not names of files.
        digest = hashlib.sha256(model.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        return self.folder / f"{task}.{digest}.rank-{rank}.jsonl"

    def _mark(self, rank: int) -> Path:
        return self.folder / f"rank-{rank}.done"


def items_left(found: Sequence[Line]) -> int:
    """How many items lines are about."""
    return len({line["item"] for line in found})
