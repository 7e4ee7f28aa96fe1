"""`ms-medqa demo`: which commands it calls, and what it makes of their results. The commands are stubs here."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from ms_medqa.cli import demo
from ms_medqa.cli.main import main
from ms_medqa.config import load_config
from ms_medqa.config.assets import LORA_CONFIG, MEDQA_MINI

BASE = {"n": 4, "perplexity": 300.0, "key_fact_rate": 0.0, "token_accuracy": 0.2, "rouge_l": 0.1}
TUNED = {"n": 4, "perplexity": 1.5, "key_fact_rate": 0.75, "token_accuracy": 0.9, "rouge_l": 0.6}
ANSWERS = [
    {"id": str(n), "question": f"问题{n}", "base_answer": f"原答{n}", "answer": f"新\n答{n}", "key": key}
    for n, key in enumerate(["甲", None, "乙", "丙", "丁"])
]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """The commands that were called; `eval` and the batch leave the files that the real ones would."""
    seen: list[list[str]] = []

    def run(arguments: Sequence[str]) -> int:
        seen.append(list(arguments))
        options = dict(itertools.pairwise(arguments))
        output = Path(options.get("--output", "."))
        if arguments[0] == "eval":
            output.mkdir()
            report = {"tasks": {"qa": TUNED}, "base": {"qa": BASE}}
            (output / "eval.json").write_text(json.dumps(report), encoding="utf-8")
            (output / "answers.jsonl").write_text("\n".join(map(json.dumps, ANSWERS)), encoding="utf-8")
        if "--input" in arguments:
            questions = [json.loads(line) for line in Path(options["--input"]).read_text("utf-8").splitlines()]
            lines = [json.dumps({**question, "answer": "答"}) for question in questions]
            output.write_text("\n".join(lines), encoding="utf-8")
        return 1 if arguments[0] == "train" and "output_dir=fails/run" in arguments else 0

    monkeypatch.setattr(demo, "_main", lambda: run)
    monkeypatch.chdir(tmp_path)
    return seen


def test_the_public_steps_are_called_on_the_shipped_sample(calls: list[list[str]]) -> None:
    assert main(["demo", "--output", "out", "train.epochs=1"]) == 0
    assert [call[0] for call in calls] == ["convert", "train", "eval", "ask", "ask", "ask"]
    convert, train, evaluate, context, _, batch = calls
    assert convert[1] == str(MEDQA_MINI)
    assert load_config(train[1], train[2:]).train.epochs == 1
    assert "--compare-base" in evaluate
    assert "--context" in context
    assert batch[-4:] == ["--input", "out/questions.jsonl", "--output", "out/answers.jsonl"]
    test = {json.loads(line)["question"] for line in MEDQA_MINI.read_text("utf-8").splitlines() if '"test"' in line}
    assert {json.loads(line)["question"] for line in Path("out/questions.jsonl").read_text("utf-8").splitlines()} < test


def test_the_summary_compares_base_and_tuned(calls: list[list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--output", "out"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert ["perplexity", "of", "the", "answers", "300.00", "1.50"] in lines
    assert ["answers", "with", "the", "key", "fact", "0.0%", "75.0%"] in lines
    # Three of the questions with a key fact; an answer of two lines stands on one.
    assert [line[1] for line in lines if line[:1] == ["question"]] == ["问题0", "问题2", "问题3"]
    assert "  tuned   新 答0" in out.splitlines()
    summary = json.loads(Path("out/summary.json").read_text(encoding="utf-8"))
    assert summary["base"] == {"perplexity": 300.0, "key_fact_rate": 0.0}
    assert summary["tuned"] == {"perplexity": 1.5, "key_fact_rate": 0.75}
    assert summary["seconds"] >= 0
    assert [shlex.split(text)[1:] for text in summary["commands"]] == calls


def test_the_printed_commands_work_where_the_user_is(
    calls: list[list[str]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    activate = tmp_path / "my venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    activate.write_text("")
    monkeypatch.setattr(sys, "executable", str(activate.with_name("python")))
    monkeypatch.setenv("PATH", "")
    assert main(["demo", "--output", "out"]) == 0
    own = capsys.readouterr().out.partition("The same on your own records")[2].splitlines()[1:6]
    assert own[0] == "  source 'my venv/bin/activate'"
    named = shlex.split(own[2])[2]
    assert os.path.samefile(named, LORA_CONFIG)
    assert named in shlex.split(own[1])

    monkeypatch.setattr(demo, "LORA_CONFIG", tmp_path / "absent.yaml")
    assert main(["demo", "--output", "installed"]) == 0
    assert "ms-medqa train installed/demo.yaml data.path=DATA" in capsys.readouterr().out


def test_a_failed_step_ends_it_with_its_status(calls: list[list[str]]) -> None:
    assert main(["demo", "--output", "fails"]) == 1
    assert [call[0] for call in calls] == ["convert", "train"]
    assert not Path("fails/summary.json").exists()


@pytest.mark.parametrize("argument", ["train.epoch=3", "train.epochs=many", "stray"])
def test_a_wrong_argument_shows_before_anything_is_done(
    calls: list[list[str]], capsys: pytest.CaptureFixture[str], argument: str, tmp_path: Path
) -> None:
    assert main(["demo", argument]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert argument.split("=")[0] in err
    assert calls == []
    assert list(tmp_path.iterdir()) == []
