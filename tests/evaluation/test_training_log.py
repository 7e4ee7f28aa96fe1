"""What a report tells of the training: the course of the loss, whatever state the log is in, and the data."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import trainable
import yaml

from ms_medqa.evaluation import training_log
from ms_medqa.evaluation.training_log import data_report_of, training_log_of
from ms_medqa.training.metrics import MetricsLog


def write(run: Path, lines: Iterable[str]) -> Path:
    run.mkdir(parents=True, exist_ok=True)
    (run / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return run / "adapter"


def line(step: Any, loss: Any, kind: str = "train", **more: Any) -> str:
    return json.dumps({"kind": kind, "step": step, "loss": loss, **more})


def test_it_reads_what_training_writes(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for step in (1, 2, 3):
        log.write({"kind": "train", "step": step, "loss": 4.0 / step, "learning_rate": 0.1 * step, "tokens": 7})
    log.write({"kind": "eval", "step": 3, "loss": float("nan"), "perplexity": float("inf")})
    log.write({"kind": "train", "step": 4, "loss": float("nan"), "learning_rate": 0.4})
    log.write({"kind": "eval", "step": 4, "loss": 1.5, "perplexity": 4.5})
    log.close()
    assert training_log_of(tmp_path / "adapter") == {
        "train": [[1, 4.0, 0.1], [2, 2.0, 0.2], [3, pytest.approx(4 / 3), pytest.approx(0.3)]],
        "validation": [[4, 1.5]],
    }


def test_lines_that_a_kill_or_another_program_left_are_passed_by(tmp_path: Path) -> None:
    lines = [
        *("", "[1, 2]", "null", "no JSON", '{"kind": "train", "step": 1'),
        *(line(True, 1.0), line("2", 1.0), line(3, True), line(4, "5"), line(5, None), line(6, 10**400)),
        '{"kind": "train", "step": 7, "loss": NaN}',
        '{"kind": "train", "step": 8, "loss": 1e999}',
        line(9, 2),
        line(10, 1.5, learning_rate=None),
        line(11, 1.0, kind="other"),
        line(12, 1.0, learning_rate=0.5)[:-3],
    ]
    adapter = write(tmp_path, lines)
    assert training_log_of(adapter) == {"train": [[9, 2.0, None], [10, 1.5, None]]}
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe\x00" + line(1, 1.0).encode() + b"\n" + line(2, 1.0).encode())
    assert training_log_of(adapter) == {"train": [[2, 1.0, None]]}


def test_no_log_is_no_course(tmp_path: Path) -> None:
    assert training_log_of(tmp_path / "nowhere" / "adapter") == {}
    assert training_log_of(write(tmp_path, [])) == {}


def test_of_a_run_that_was_taken_up_again_the_later_course_counts(tmp_path: Path) -> None:
    lines = [line(step, 1.0) for step in (1, 2, 3, 4)] + [line(step, 2.0) for step in (3, 4, 5)]
    points = training_log_of(write(tmp_path, lines))["train"]
    assert [(step, loss) for step, loss, _ in points] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0)]


@pytest.mark.parametrize("count", [9, 10, 11, 19, 20, 21, 39, 40, 41, 1003])
def test_of_a_long_course_every_so_manyth_point_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setattr(training_log, "MOST_POINTS", 10)
    points = training_log_of(write(tmp_path, (line(step, step / 2) for step in range(1, count + 1))))["train"]
    steps = [step for step, _, _ in points]
    assert min(count, 5) <= len(steps) <= 10
    assert (steps[0], steps[-1]) == (1, count)
    # The last point is kept whatever its distance.
    gaps = {later - sooner for sooner, later in pairwise(steps[:-1])}
    assert len(gaps) == 1
    assert [loss for _, loss, _ in points] == [step / 2 for step in steps]


def test_the_report_of_the_conversion(tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(trainable.place() / "data", data)
    adapter = write(tmp_path / "run", [])
    assert data_report_of(adapter) == {}
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump({"data": {"path": str(data)}}), encoding="utf-8")
    assert data_report_of(adapter) == json.loads((data / "report.json").read_text(encoding="utf-8"))
    assert data_report_of(adapter)["read"] == 15
    for content in ('{"read": 15', '{"format": 1}', "[]"):
        (data / "report.json").write_text(content, encoding="utf-8")
        assert data_report_of(adapter) == {}
    (data / "report.json").unlink()
    assert data_report_of(adapter) == {}
