"""Fixtures of the data room."""

from __future__ import annotations

from pathlib import Path

import pytest
from conversions import Convert


@pytest.fixture
def convert(tmp_path: Path, tiny_tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]) -> Convert:
    return Convert(tmp_path, tiny_tokenizer_folder, capsys)
