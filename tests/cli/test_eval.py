"""`ms-medqa eval`: the table, the files, and what bad input gets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from ms_medqa.cli.main import main

RECORDS = [
    {"id": "a", "question": "头痛怎么办？", "answer": "多休息。", "key": "休息"},
    {"id": "b", "question": "发热怎么办？", "answer": "多喝水。", "context": "发热时要多喝水"},
]
QUICK = ["eval.max_new_tokens=6", "eval.batch_size=2"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "set.jsonl"
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in RECORDS), encoding="utf-8")
    return path


def test_both_columns_are_printed_and_saved(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter, output = tiny.write_adapter(tmp_path / "adapter"), tmp_path / "deep" / "out"
    arguments = ["--model", str(tiny.folder()), "--adapter", str(adapter), "--data", str(data)]
    assert main(["eval", *arguments, "--output", str(output), "--compare-base", *QUICK]) == 0
    out, err = capsys.readouterr()
    report = json.loads((output / "eval.json").read_text(encoding="utf-8"))
    assert report["tasks"]["qa"]["n"] == report["base"]["qa"]["n"] == 2
    assert set(report["tasks"]["qa"]) >= {"perplexity", "token_accuracy", "rouge_l", "key_fact_rate"}
    perplexity = next(line for line in out.splitlines() if line.startswith("perplexity"))
    expected = [f"{report[column]['qa']['perplexity']:.2f}" for column in ("base", "tasks")]
    assert [word for word in perplexity.split() if word in expected] == expected
    assert expected[0] != expected[1]
    assert "Traceback" not in err
    reports = {"report.html", "report.json", "report.md"}
    assert {path.name for path in output.iterdir()} == {"eval.json", "answers.jsonl", "skipped.jsonl"} | reports
    # The command that repeats it is told, as it was typed.
    command = json.loads((output / "report.json").read_text(encoding="utf-8"))["commands"][-1]
    assert command.startswith(f"ms-medqa eval --model {tiny.folder()} --adapter {adapter} --data {data}")


def test_a_model_alone_has_one_column(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--model", str(tiny.folder()), "--data", str(data), "--output", str(tmp_path / "out"), *QUICK]
    assert main(["eval", *arguments, "eval.limit=1"]) == 0
    assert "qa: 1 item" in capsys.readouterr().out
    report = json.loads((tmp_path / "out" / "eval.json").read_text(encoding="utf-8"))
    assert "base" not in report
    assert report["tasks"]["qa"]["n"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--data", "absent.jsonl", "--output", "out"], "absent.jsonl"),
        (["--data", "set.jsonl", "--output", "out", "--compare-base"], "--adapter"),
        (["--data", "set.jsonl", "--output", "out", "eval.batchsize=2"], "eval.batch_size"),
        (["--data", "set.jsonl", "--output", "out", "stray"], "stray"),
        (["--data", "empty.jsonl", "--output", "out"], "empty"),
        (["--data", "text.jsonl", "--output", "out"], "plain text"),
        (["--data", "long.jsonl", "--output", "out"], "256"),
        (["--data", "set.jsonl"], "--output"),
        (["--data", "set.jsonl", "--output", "out", "--adapter", "absent"], "absent"),
        (["--output", "out"], "nothing to measure"),
        (["--task", "quiz=set.jsonl", "--output", "out"], "unknown kind 'quiz'"),
        (["--task", "choice=set.jsonl", "--output", "out"], "none of 2 records"),
        (["--task", "choice=absent.jsonl", "--output", "out"], "absent.jsonl"),
        (["--data", "set.jsonl", "--task", "qa=set.jsonl", "--output", "out"], "two tasks"),
        (["--data", "set.jsonl", "--output", "out", "--model", "absent"], "absent"),
        (["--data", "set.jsonl", "--output", "out", "eval.group_by=topic"], "eval.group_by"),
        (["--history", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str],
    words: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "text.jsonl").write_text('{"text": "x"}\n', encoding="utf-8")
    (tmp_path / "long.jsonl").write_text(json.dumps({"question": "问" * 300, "answer": "x"}), encoding="utf-8")
    assert main(["eval", "--model", str(tiny.folder()), *arguments]) == 2
    captured = capsys.readouterr()
    assert len(captured.err.strip().splitlines()) == 1
    assert captured.err.startswith("ms-medqa eval: error: ")
    assert words in captured.err
    assert not (tmp_path / "out" / "eval.json").exists()


def test_tasks_of_several_kinds_and_what_they_came_to_later(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exam = tmp_path / "exam.jsonl"
    question = {"question": "缺铁性贫血首选？", "options": {"A": "休息", "B": "补铁"}, "answer": "B", "subject": "内科"}
    exam.write_text(json.dumps(question, ensure_ascii=False), encoding="utf-8")
    arguments = ["eval", "--model", str(tiny.folder()), "--task", f"exam:choice={exam}", "--general", f"qa={data}"]
    runs = tmp_path / "runs"
    for name in ("one", "two"):
        assert main([*arguments, "--output", str(runs / name), *QUICK]) == 0
    out = capsys.readouterr().out
    assert "exam: 1 item" in out
    assert "general-qa: 2 items" in out
    assert main(["eval", "--history", str(runs)]) == 0
    out = capsys.readouterr().out
    assert [word in out for word in ("one", "two", "exam", "general-qa", "accuracy", "perplexity")] == [True] * 6
