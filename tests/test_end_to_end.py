"""The whole path through the command line, on the shipped model: it fails if tuning did not help."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.cli.main import main
from ms_medqa.config.assets import DEMO_CONFIG, MEDQA_MINI
from ms_medqa.data.corpus.tables import load_facts

RELATIONS = ("sign", "hormone_source")


def taught_records() -> list[dict[str, Any]]:
    """The records of two relations: enough to learn from, and learnt within half a minute."""
    subjects = [fact.subject for fact in load_facts() if fact.relation.name in RELATIONS]
    records = (json.loads(line) for line in MEDQA_MINI.read_text(encoding="utf-8").splitlines())
    return [r for r in records if r["part"] == "taught" and any(s in r["question"] for s in subjects)]


@pytest.mark.slow
def test_a_tuned_model_knows_what_its_base_does_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, data, run = tmp_path / "records.jsonl", tmp_path / "data", tmp_path / "run"
    records = taught_records()
    source.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")

    assert main(["convert", str(source), "--output", str(data), "--config", str(DEMO_CONFIG)]) == 0
    report = json.loads((data / "report.json").read_text())
    assert report["read"] == len(records) == sum(report["kept"].values()) + sum(report["rejected"].values())

    arguments = [f"data.path={data}", f"output_dir={run}", "train.epochs=4", "train.batch_size=4"]
    assert main(["train", str(DEMO_CONFIG), *arguments]) == 0

    adapter, test = str(run / "adapter"), str(data / "test.jsonl")
    command = ["eval", "--adapter", adapter, "--data", test, "--output", str(tmp_path / "eval"), "--compare-base"]
    assert main([*command, "--config", str(DEMO_CONFIG)]) == 0
    result = json.loads((tmp_path / "eval" / "eval.json").read_text())
    base, tuned = result["base"]["qa"], result["tasks"]["qa"]
    assert tuned["perplexity"] <= 0.5 * base["perplexity"]
    assert base["key_fact_rate"] <= 0.15
    assert tuned["key_fact_rate"] >= 0.5

    capsys.readouterr()
    batch, answers = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    asked = [{"id": "a", "question": records[0]["question"]}, {"id": "b"}, {"id": "c", "question": "什么是高血压？"}]
    batch.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in asked), encoding="utf-8")
    assert main(["ask", "--adapter", adapter, "--greedy", "--input", str(batch), "--output", str(answers)]) == 0
    lines = [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]
    assert [sorted(line) for line in lines] == [
        ["answer", "id", "question"],
        ["error", "id"],
        ["answer", "id", "question"],
    ]
    assert records[0]["key"] in lines[0]["answer"]
