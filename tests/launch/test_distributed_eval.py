"""`run/run_distribute_eval.sh`: several processes share the items, and come to what one comes to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from ms_medqa.cli.main import main
from ms_medqa.launch import msrun_eval

ROOT = Path(__file__).resolve().parents[2]
QUICK = ["eval.max_new_tokens=6", "eval.batch_size=2"]


@pytest.mark.slow
def test_two_processes_come_to_what_one_comes_to(tmp_path: Path) -> None:
    data = tmp_path / "set.jsonl"
    records = [{"question": f"第{n}天头痛怎么办？", "answer": "多休息，多喝水。", "key": "休息"} for n in range(5)]
    data.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")
    arguments = ["--model", str(tiny.folder()), "--data", str(data), *QUICK]
    done = subprocess.run(
        ["bash", str(ROOT / "run" / "run_distribute_eval.sh"), "2", "--output", str(tmp_path / "two"), *arguments],
        cwd=tmp_path,
        env=os.environ | {"DEVICE_TARGET": "CPU", "PYTHON": sys.executable},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "qa: 5 items" in done.stdout
    assert main(["eval", "--output", str(tmp_path / "one"), *arguments]) == 0
    one, two = (json.loads((tmp_path / name / "eval.json").read_text(encoding="utf-8")) for name in ("one", "two"))
    assert two["tasks"]["qa"] == pytest.approx(one["tasks"]["qa"], rel=1e-5)
    answers = [(tmp_path / name / "answers.jsonl").read_text(encoding="utf-8") for name in ("one", "two")]
    assert answers[0] == answers[1]
    assert json.loads((tmp_path / "two" / "report.json").read_text(encoding="utf-8"))["ranks"] == 2
    assert not (tmp_path / "two" / "parts").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["2", "--data", "x"], "no --output"), (["0", "--output", "x"], "0"), (["two", "--output", "x"], "two")],
)
def test_wrong_arguments_end_before_anything_starts(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert msrun_eval.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("run_distribute_eval.sh: error: ")
    assert words in error


def test_without_arguments_it_says_how_it_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert msrun_eval.main([]) == 2
    assert msrun_eval.main(["--help"]) == 0
    assert "DEVICE_NUM" in capsys.readouterr().out
