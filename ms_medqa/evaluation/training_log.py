"""What an evaluation's report tells of the training before it: the course of the loss, and how the data was made."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from ms_medqa.evaluation.overlap_check import run_folder, training_data_of

# A chart has some hundred columns of pixels; a script may want more.
MOST_POINTS = 20_000
# The logs of a run (`training.metrics`), and the counts of a conversion (`data.convert`).
_METRICS, _REPORT = "metrics.jsonl", "report.json"


def training_log_of(adapter: str | Path) -> dict[str, list[list[Any]]]:
    """The course of the run that an adapter is of, by RUN/metrics.jsonl; empty where there is none.

    Lines that are half written or of another kind are left out, and points whose loss is not finite. Where a step was
    logged twice, the run was taken up again before it, and what was logged before that is given up.

    Args:
        adapter: RUN/adapter, or RUN/model, as `train` wrote it.

    Returns:
        `train`: [step, loss, learning rate], the last of these None where it is not known; `validation`: [step, loss].
        Loss is the mean over target tokens in nats. At most `MOST_POINTS` of each, every k-th and the last. A key
        without points is left out.
    """
    train, validation = _Course(), _Course()
    try:
        with (run_folder(adapter) / _METRICS).open(encoding="utf-8", errors="replace") as file:
            for line in file:
                record = _parse(line)
                step, loss = record.get("step"), _number(record.get("loss"))
                if not isinstance(step, int) or isinstance(step, bool) or loss is None:
                    continue
                if record.get("kind") == "train":
                    train.add([step, loss, _number(record.get("learning_rate"))])
                elif record.get("kind") == "eval":
                    validation.add([step, loss])
    except OSError:
        return {}
    return {name: course.points() for name, course in (("train", train), ("validation", validation)) if course.points()}


def data_report_of(adapter: str | Path) -> dict[str, Any]:
    """The report.json of the converted folder that an adapter was trained on; empty where that is not known."""
    folder = training_data_of(adapter)
    if folder is None:
        return {}
    try:
        found = _parse((folder / _REPORT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if {"read", "kept"} <= found.keys() else {}


class _Course:
    """Points by rising step, thinned out as they come: memory holds twice `MOST_POINTS` at most."""

    def __init__(self) -> None:
        self._kept: list[list[Any]] = []
        self._last: list[Any] | None = None
        self._stride = 1
        self._count = 0

    def add(self, point: list[Any]) -> None:
        if self._last is not None and point[0] <= self._last[0]:
            while self._kept and self._kept[-1][0] >= point[0]:
                self._kept.pop()
            # The next one is kept, whatever its place.
            self._count = 0
        if self._count % self._stride == 0:
            self._kept.append(point)
        self._count += 1
        self._last = point
        if len(self._kept) >= 2 * MOST_POINTS:
            self._kept = self._kept[::2]
            self._stride *= 2

    def points(self) -> list[list[Any]]:
        kept = self._kept
        if self._last is not None and (not kept or kept[-1] is not self._last):
            kept = [*kept, self._last]
        return kept[:: -(-len(kept) // MOST_POINTS)][:-1] + kept[-1:] if len(kept) > MOST_POINTS else kept


def _parse(text: str) -> dict[str, Any]:
    """A JSON object, NaN and infinity in it as None; empty where it is none."""
    try:
        found = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None
