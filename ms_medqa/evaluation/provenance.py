"""What a figure depends on beside model and data, and how to come to it again."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ms_medqa import __version__

_PACKAGES = ("mindspore", "numpy", "sacrebleu", "rouge-score", "rouge-chinese", "jieba", "scikit-learn", "tokenizers")


def versions() -> dict[str, str]:
    """Of everything that has a part in the figures; what is not installed is left out."""
    found = {"ms_medqa": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commands_of(adapters: Iterable[Path], command: str) -> list[str]:
    """The trainings of adapters that say how they were made, then the evaluation itself."""
    configs = dict.fromkeys(adapter.parent / "config.yaml" for adapter in adapters)
    trained = [shlex.join(["ms-medqa", "train", str(path)]) for path in configs if path.is_file()]
    return [*trained, *([command] if command else [])]
