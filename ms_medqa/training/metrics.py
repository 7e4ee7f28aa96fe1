"""What a run leaves to look at: metrics.jsonl, TensorBoard files, loss.png."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ms_medqa.config.console import say
from ms_medqa.config.errors import RunError
from ms_medqa.config.files import atomic_write, space_checked
from ms_medqa.training.board import Board

_FILE = "metrics.jsonl"
# Drawing takes a fifth of a second.
_DRAW_SECONDS = 60.0


class MetricsLog:
    """Append-only log of a run; one JSON object a line, `kind` is `train` or `eval`.

    Where no space is left, TensorBoard and the picture are given up with a warning: they can be drawn from the lines.

    Args:
        folder: the run's folder.
        resumed_step: lines after this step are of a course that was given up, and are dropped.
    """

    def __init__(self, folder: Path, resumed_step: int = 0) -> None:
        self.folder = folder
        self.path = folder / _FILE
        self.history = [line for line in read_metrics(folder) if line["step"] <= resumed_step]
        with atomic_write(self.path) as file:
            file.writelines(_line(record) for record in self.history)
        self._file = self.path.open("a", encoding="utf-8")
        self._drawn, self._to_draw = time.monotonic(), True
        self._board: Board | None = None
        with space_wanted(folder / "tensorboard"):
            self._board = Board(folder / "tensorboard", resumed_step + 1 if resumed_step else None)

    def write(self, record: dict[str, Any]) -> None:
        """Add a record; numbers also go to TensorBoard under `kind/name`.

        Raises:
            RunError: no space left. The line is written with a later one, or at the end.
        """
        # JSON has no NaN and no infinity.
        record = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        self.history.append(record)
        self._to_draw = True
        if time.monotonic() - self._drawn > _DRAW_SECONDS:
            self.draw()
        with space_checked(self.path):
            self._file.write(_line(record))
            self._file.flush()
        if self._board is None:
            return
        board, self._board = self._board, None
        scalars = {
            f"{record['kind']}/{name}": value
            for name, value in record.items()
            if isinstance(value, (int, float)) and name != "step"
        }
        with space_wanted(self.folder / "tensorboard"):
            board.add(record["step"], scalars)
            # After a failure the file ends amid an event: what follows could not be read.
            self._board = board

    def close(self) -> None:
        """Write what is left, and the picture."""
        self.draw()
        with space_wanted(self.path):
            self._file.close()
        if self._board is not None:
            with space_wanted(self.folder / "tensorboard"):
                self._board.close()

    def draw(self) -> None:
        """loss.png: training loss, the same smoothed, and validation loss over steps, unless it shows all already."""
        if not self.history or not self._to_draw:
            return
        self._drawn = time.monotonic()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        train, evaluated = (
            [(line["step"], line["loss"]) for line in self.history if line["kind"] == kind and line["loss"] is not None]
            for kind in ("train", "eval")
        )
        for points, style, label, width in (
            (train, "C0-", "training", 0.5),
            (smoothed(train), "C0-", "training, smoothed", 1.6),
            (evaluated, "C1o-", "validation", 1.2),
        ):
            if points:
                axes.plot(*zip(*points, strict=True), style, label=label, linewidth=width, markersize=4)
        axes.set(xlabel="optimizer step", ylabel="loss per token (nats)")
        axes.grid(alpha=0.3)
        if train or evaluated:
            axes.legend()
        path = self.folder / "loss.png"
        with space_wanted(path):
            with atomic_write(path, "wb") as file:
                figure.savefig(file, dpi=120, format="png")
            self._to_draw = False


@contextmanager
def space_wanted(path: Path) -> Iterator[None]:
    """Where no space is left inside the block, say so and go on."""
    try:
        with space_checked(path):
            yield
    except RunError as error:
        say(f"warning: {error}")


def smoothed(points: Sequence[tuple[int, float]], weight: float = 0.9) -> list[tuple[int, float]]:
    """(step, exponential mean of the values so far), without the pull of the start: as Adam corrects its moments."""
    mean, result = 0.0, []
    for count, (step, value) in enumerate(points, start=1):
        mean = weight * mean + (1 - weight) * value
        result.append((step, mean / (1 - weight**count)))
    return result


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The records of a run so far; a line that was cut off by a kill is left out."""
    path = folder / _FILE
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            records.append(record)
    return records


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"
