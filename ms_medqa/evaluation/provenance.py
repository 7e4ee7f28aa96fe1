"""What a figure depends on beside model and data, and how to come to it again."""

from __future__ import annotations

import json
import os
import platform
import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from ms_medqa import __version__
from ms_medqa.config.schema import DataSection
from ms_medqa.evaluation.overlap_check import run_folder, training_data_of

_PACKAGES = (
    "mindspore", "numpy", "scipy", "sacrebleu", "rouge-score", "rouge-chinese", "jieba", "tokenizers", "sentencepiece",
)  # fmt: skip
_CONFIG = "config.yaml"
_REPORT = "report.json"
# Settings of a conversion that a command line holds as they are.
_PLAIN = (bool, int, float, str, list, type(None))


def versions() -> dict[str, str]:
    """Of everything that has a part in the figures; what is not installed is left out."""
    found = {"ms_medqa": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def is_of_a_run(folder: Path) -> bool:
    """Whether `train` has made an adapter or a model, or it was merged beside one that it has made."""
    run = run_folder(folder)
    return any((run / name).is_file() for name in ("data.json", _CONFIG))


def config_of(trained: Path) -> dict[str, Any]:
    """The config that an adapter or a model was trained with; empty where that is not known."""
    try:
        found = yaml.safe_load((run_folder(trained) / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def commands_of(trained: Iterable[Path], command: Sequence[str], ranks: int) -> list[str]:
    """The conversions and trainings behind adapters and models, where they are known, then the evaluation itself."""
    found: dict[str, None] = {}
    for folder in trained:
        config = run_folder(folder) / _CONFIG
        if config.is_file():
            if (data := training_data_of(folder)) is not None:
                found[_conversion(data, config_of(folder))] = None
            found[shlex.join(["ms-medqa", "train", str(config)])] = None
    if not command:
        return list(found)
    launcher = ["bash", "run/run_distribute_eval.sh", str(ranks), *command[2:]] if ranks > 1 else list(command)
    return [f"cd {shlex.quote(os.getcwd())}", *found, shlex.join(launcher)]


def _conversion(data: Path, config: Mapping[str, Any]) -> str:
    """The command that made a converted folder, with what its report tells: names of files, and settings."""
    try:
        report = json.loads((data / _REPORT).read_text(encoding="utf-8"))
        files = [str(file["file"]) for file in report["files"]]
        settings = dict(report["settings"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"# {data} was converted by a command that it does not tell"
    usual = DataSection().model_dump(mode="json")
    changed = [
        f"data.{name}={json.dumps(value, ensure_ascii=False)}"
        for name, value in settings.items()
        if isinstance(value, _PLAIN) and value != usual.get(name)
    ]
    model = config.get("model", {})
    path = model.get("path") if isinstance(model, Mapping) else None
    named = ["--model", str(path)] if path else []
    return shlex.join(["ms-medqa", "convert", *files, "--output", str(data), *named, *changed])
