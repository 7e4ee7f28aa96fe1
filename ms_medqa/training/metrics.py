"""What a run leaves to look at: metrics.jsonl, TensorBoard files, loss.png."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ms_medqa.config.files import atomic_write, space_checked

_FILE = "metrics.jsonl"


class MetricsLog:
    """Append-only log of a run; one JSON object a line, `kind` is `train` or `eval`.

    Args:
        folder: the run's folder.
        resumed_step: lines after this step are of a course that was given up, and are dropped.
    """

    def __init__(self, folder: Path, resumed_step: int = 0) -> None:
        from tensorboardX import SummaryWriter

        self.folder = folder
        self.path = folder / _FILE
        self.history = [line for line in read_metrics(folder) if line["step"] <= resumed_step]
        with atomic_write(self.path) as file:
            file.writelines(_line(record) for record in self.history)
        self._file = self.path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=resumed_step + 1 if resumed_step else None)

    def write(self, record: dict[str, Any]) -> None:
        """Add a record; numbers also go to TensorBoard under `kind/name`."""
        # JSON has no NaN and no infinity.
        record = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        self.history.append(record)
        with space_checked(self.path):
            self._file.write(_line(record))
            self._file.flush()
        for name, value in record.items():
            if isinstance(value, (int, float)) and name != "step":
                self._board.add_scalar(f"{record['kind']}/{name}", value, record["step"])

    def close(self) -> None:
        """Write what is left, and the picture."""
        self.draw()
        self._file.close()
        self._board.close()

    def draw(self) -> None:
        """loss.png: training and validation loss over steps."""
        if not self.history:
            return
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        for kind, style, label in (("train", "-", "training"), ("eval", "o-", "validation")):
            points = [(r["step"], r["loss"]) for r in self.history if r["kind"] == kind]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1.2, markersize=4)
        axes.set(xlabel="optimizer step", ylabel="loss per token (nats)")
        axes.grid(alpha=0.3)
        axes.legend()
        with atomic_write(self.folder / "loss.png", "wb") as file:
            figure.savefig(file, dpi=120, format="png")


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
