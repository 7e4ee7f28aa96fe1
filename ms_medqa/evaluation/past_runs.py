"""An evaluation of the past by its report: what was measured under which settings, and what came of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

# Of the reports that are written and read.
FORMAT = 1
# With all its examples and lengths of answers; more is no report.
_MOST_BYTES = 2**28
# Settings of the evaluation that its figures do not depend on.
_INDIFFERENT = ("batch_size", "language", "group_by")


class NotReadableError(Exception):
    """A report that is not whole, or of another format; the text says which."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One model on one task.

    Attributes:
        name: of its column in the report, such as `tuned`.
        model: folder or name of the model.
        adapter: its adapter, or None.
        prompt: name of the prompt that it was asked with, or None.
        digest: of the weights with the adapter in them, or None.
        figures: name → `value`, `low`, `high` (95 % interval) and `n`, each a number or None.
    """

    name: str
    model: str
    adapter: str | None
    prompt: str | None
    digest: str | None
    figures: dict[str, dict[str, float | None]]

    def is_same(self, other: Measured) -> bool:
        """Whether both are the same weights, asked in the same way."""
        return self.digest is not None and (self.digest, self.prompt) == (other.digest, other.prompt)


@dataclass(frozen=True, slots=True)
class TaskRun:
    """One task of an evaluation.

    Attributes:
        name: of the task.
        kind: `qa`, `choice`, `classify` or `perplexity`.
        path: the data, `?` where it is not known.
        sha256: of the data, `?` where it is not known.
        n: items that were measured.
        settings: what figures depend on beside model and data; JSON values.
        models: in the order of the report.
    """

    name: str
    kind: str
    path: str
    sha256: str
    n: int
    settings: dict[str, Any]
    models: tuple[Measured, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """One evaluation.

    Attributes:
        folder: where its report is.
        created: when it ended, in UTC.
        tasks: in the order of the report.
    """

    folder: str
    created: datetime
    tasks: tuple[TaskRun, ...]


def read_run(path: Path, folder: str) -> Run | None:
    """The evaluation that a report.json tells of; None for the report of something else, such as a conversion.

    Args:
        path: the file.
        folder: how its folder is to be called.

    Raises:
        NotReadableError: it cannot be read, is not whole, or of a format that this release does not know.
    """
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise NotReadableError("too large for a report" if path.is_file() else "not a regular file")
        report = json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda _: None)
    except OSError as error:
        raise NotReadableError(error.strerror or "not readable") from None
    except (ValueError, RecursionError):
        raise NotReadableError("no JSON, or only a part of it") from None
    if not isinstance(report, dict) or not {"format", "tasks", "models"} <= report.keys():
        return None
    if report["format"] != FORMAT:
        raise NotReadableError(f"format {report['format']!r}, this release reads {FORMAT}")
    try:
        return _run(report, folder)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise NotReadableError("not as an evaluation writes it") from None


def _run(report: dict[str, Any], folder: str) -> Run:
    # Python 3.10 does not know the Z of UTC.
    created = datetime.fromisoformat(report["created"].replace("Z", "+00:00"))
    created = created.replace(tzinfo=created.tzinfo or timezone.utc).astimezone(timezone.utc)
    settings = _settings(report)
    tasks = []
    for task in report["tasks"]:
        models = [
            _measured(model, task["figures"][model["name"]])
            for model in report["models"]
            if model["name"] in task["figures"]
        ]
        names = (str(task[key]) for key in ("name", "kind"))
        data = (str((task.get("data") or {}).get(key) or "?") for key in ("path", "sha256"))
        tasks.append(TaskRun(*names, *data, int(task["n"]), settings, tuple(models)))
    return Run(folder, created, tuple(tasks))


def _measured(model: dict[str, Any], figures: dict[str, dict[str, Any]]) -> Measured:
    adapter, prompt, digest = (
        None if model.get(key) is None else str(model[key]) for key in ("adapter", "prompt", "digest")
    )
    found = {
        name: {key: None if values.get(key) is None else float(values[key]) for key in ("value", "low", "high", "n")}
        for name, values in figures.items()
    }
    return Measured(str(model["name"]), str(model["model"]), adapter, prompt, digest, found)


def _settings(report: dict[str, Any]) -> dict[str, Any]:
    """Those of the evaluation, how raw files are understood, and the type that weights have."""
    config = report.get("config") or {}
    settings = {name: value for name, value in (config.get("eval") or {}).items() if name not in _INDIFFERENT}
    for section, names in (("data", ("columns", "shape", "nfkc")), ("runtime", ("dtype",))):
        own = config.get(section) or {}
        settings |= {f"{section}.{name}": own[name] for name in names if name in own}
    return settings | ({"seed": report["seed"]} if report.get("seed") is not None else {})
