"""Fixtures of the tests of whole evaluations."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny
from evaluations import EXAMPLES, evaluate, write


@pytest.fixture(scope="module")
def device() -> None:
    """The device must be set up before the first tensor, whichever test comes first."""
    tiny.model()


@pytest.fixture(scope="module")
def qa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `set.jsonl` and `out`, the evaluation of the small model on it."""
    folder = tmp_path_factory.mktemp("qa")
    data = write(folder / "set.jsonl", [example.to_dict() for example in EXAMPLES])
    evaluate(folder / "out", data=data)
    return folder
