"""Runs of `ms-medqa convert` on small files, and what they leave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.cli.main import main

PARTS = ("train", "val", "test")
FILES = {"rejected.jsonl", "report.json", "report.html", "prompt.json", "manifest.json"} | {
    part + suffix for part in PARTS for suffix in (".jsonl", ".mindrecord", ".mindrecord.db")
}


def qa(number: int, **more: Any) -> dict[str, Any]:
    return {"question": f"第 {number} 种感冒怎么治疗？", "answer": f"休息 {number} 天，多喝水。", **more}


def write(path: Path, records: list[Any]) -> Path:
    lines = (r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Convert:
    """Runs the command with the tiny tokenizer."""

    def __init__(self, folder: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.output = folder / "out"
        self.model = tokenizer
        self._capsys = capsys

    def __call__(self, *arguments: str | Path, status: int = 0) -> str:
        """Run, check the exit status, and give what was printed (the error line where it failed)."""
        base = ["convert", "--output", str(self.output), "--model", str(self.model), "data.aug_rate=0"]
        assert main([*base, *map(str, arguments)]) == status
        printed = self._capsys.readouterr()
        if status:
            assert printed.err.startswith("ms-medqa convert: error: "), printed.err
            assert printed.err.count("\n") == 1, printed.err
            return printed.err
        assert printed.err == ""
        return printed.out


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]
