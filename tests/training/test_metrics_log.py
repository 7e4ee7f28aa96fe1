"""metrics.jsonl and the pictures: what a resumed run keeps, and that every line is JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.training.metrics import MetricsLog, read_metrics


def line(step: int, kind: str = "train", loss: float | None = 1.5) -> dict[str, Any]:
    return {"kind": kind, "step": step, "loss": loss}


def lines(folder: Path) -> list[Any]:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(part, parse_constant=refuse) for part in text.splitlines()]


def test_a_line_is_there_as_soon_as_it_is_written(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(line(1))
    assert lines(tmp_path) == [line(1)]
    log.write(line(2, "eval"))
    log.close()
    assert lines(tmp_path) == [line(1), line(2, "eval")]
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1


def test_a_resumed_run_drops_the_course_that_was_given_up(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    for step in range(1, 7):
        log.write(line(step))
        if step in (3, 6):
            log.write(line(step, "eval"))
    log.close()
    with (tmp_path / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "train", "st')  # cut off by a kill
    log = MetricsLog(tmp_path, resumed_step=4)
    kept = [line(1), line(2), line(3), line(3, "eval"), line(4)]
    assert lines(tmp_path) == log.history == kept
    log.write(line(5, loss=2.0))
    log.close()
    assert lines(tmp_path) == [*kept, line(5, loss=2.0)] == read_metrics(tmp_path)


def test_a_new_run_starts_empty(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps(line(0)) + "\n" + json.dumps(line(5)), encoding="utf-8")
    log = MetricsLog(tmp_path)
    log.close()
    assert all(record["step"] == 0 for record in lines(tmp_path))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_have(tmp_path: Path, number: float) -> None:
    log = MetricsLog(tmp_path)
    log.write(line(1, loss=None))
    log.write(line(1, "eval", loss=number))
    log.write(line(2))
    log.close()
    assert lines(tmp_path) == [line(1, loss=None), line(1, "eval", loss=None), line(2)]
    assert (tmp_path / "loss.png").exists()
