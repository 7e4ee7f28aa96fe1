"""metrics.jsonl and the pictures: what a resumed run keeps, and that every line is JSON."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from full_disk import no_room

from ms_medqa.config.errors import RunError
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


def test_the_picture_is_drawn_anew_where_a_record_has_come(tmp_path: Path) -> None:
    picture = tmp_path / "loss.png"
    log = MetricsLog(tmp_path)
    log.write(line(1))
    log.draw()
    first = picture.read_bytes()
    picture.unlink()
    log.draw()
    assert not picture.exists()
    log.write(line(2, "eval"))
    log.close()
    assert picture.read_bytes() != first
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


def events(folder: Path) -> list[Any]:
    """What TensorBoard would read, in the order of the files."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            # Length, checksum of it, content, checksum.
            (size,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_tensorboard_gets_the_numbers_and_is_told_what_was_given_up(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path)
    log.write(line(3) | {"overflow": False, "name": "x"})
    log.write(line(3, "eval", 2.5))
    log.close()
    first = events(tmp_path)
    assert first[0].file_version == "brain.Event:2"
    read = [{value.tag: value.simple_value for value in event.summary.value} for event in first[1:]]
    assert read == [{"train/loss": 1.5, "train/overflow": 0.0}, {"eval/loss": 2.5}]
    assert {event.step for event in first[1:]} == {3}
    time.sleep(1.1)  # a file is named by the second in which it was begun
    log = MetricsLog(tmp_path, resumed_step=2)
    log.write(line(3))
    log.close()
    start, again = events(tmp_path)[len(first) + 1 :]
    assert (start.step, start.session_log.status) == (3, start.session_log.START)
    assert (again.step, again.summary.value[0].simple_value) == (3, 1.5)


def test_nobody_waits_for_pytorch_where_it_is_installed(tmp_path: Path) -> None:
    """tensorboardX would import it; afterwards, who wants it finds it."""
    (tmp_path / "torch.py").write_text("print('imported')\n", encoding="utf-8")
    code = f"""
from pathlib import Path
from ms_medqa.training.board import Board
Board(Path({str(tmp_path / "board")!r})).close()
print("written")
import torch
"""
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{root}"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["written", "imported"]


def test_on_a_full_disk_lines_wait_and_the_picture_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = MetricsLog(tmp_path)
    log.write(line(1))
    with no_room(tmp_path):
        for step in (2, 3):
            with pytest.raises(RunError, match=r"no space left writing .*metrics\.jsonl"):
                log.write(line(step))
        log.draw()
    assert "warning: no space left writing " in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl", "tensorboard"}
    log.write(line(4))
    assert lines(tmp_path) == [line(step) for step in (1, 2, 3, 4)]
    with no_room(tmp_path):
        log.close()
    assert "metrics.jsonl" not in capsys.readouterr().out  # there was nothing left to write


def test_tensorboard_is_given_up_on_a_full_disk_and_nobody_waits_for_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = MetricsLog(tmp_path)
    with no_room(tmp_path / "tensorboard"):
        for step in range(1, 301):
            log.write(line(step))
    for step in range(301, 601):
        log.write(line(step))
    log.close()
    assert capsys.readouterr().out.count(f"warning: no space left writing {tmp_path / 'tensorboard'}") == 1
    assert lines(tmp_path) == [line(step) for step in range(1, 601)]
    # An event that was cut off in the middle would be the last one that TensorBoard reads.
    assert [event.step for event in events(tmp_path)] == sorted(event.step for event in events(tmp_path))
