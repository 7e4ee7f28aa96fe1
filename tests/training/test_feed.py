"""Batches from the host, and through a device's queue: the same ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import trainable

from ms_medqa.backend import sink
from ms_medqa.backend.compile_cache import CompileCache
from ms_medqa.config import load_config
from ms_medqa.training import build, feed, run
from ms_medqa.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("graph_mode")


class Queue:
    """Stands for MindSpore's `data_sink`, which knows no CPU: notes how it was called, and hands batches out."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, int]] = []
        self.shapes: list[list[tuple[tuple[int, ...], Any]]] = []

    def data_sink(self, function: Callable[..., Any], dataset: Any, sink_size: int = 1) -> Callable[[], Any]:
        self.calls.append((dataset.get_col_names(), sink_size))
        iterator = dataset.create_tuple_iterator(num_epochs=1)

        def process() -> Any:
            columns = next(iterator)
            self.shapes.append([(tuple(column.shape), column.dtype) for column in columns])
            return function(*columns)

        return process


def test_a_run_through_the_queue_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With dropout, accumulation, two epochs, and a resumed half."""
    plain, sunk = tmp_path / "plain", tmp_path / "sunk"
    run.train(load_config(trainable.write_config(plain, train={"save_steps": 2}), []))
    queue = Queue()
    monkeypatch.setattr(ms, "data_sink", queue.data_sink)
    monkeypatch.setattr(feed, "SINKING_DEVICES", (*sink.SINKING_DEVICES, "CPU"))
    sinking = {"dataset_sink_mode": True, "device": "CPU"}
    config = trainable.write_config(sunk, train={"save_steps": 2}, runtime=sinking)
    run.train(load_config(config, []))
    assert trainable.metrics(sunk, "train") == trainable.metrics(plain, "train")
    assert trainable.metrics(sunk, "eval") == trainable.metrics(plain, "eval")
    names = ["input_ids", "position_ids", "segment_ids", "label_places", "labels", "label_count", "last"]
    assert queue.calls == [(names, 1)]
    # Another shape, or another type, would compile the step once more.
    assert len({tuple(shapes) for shapes in queue.shapes}) == 1
    types = [ms.int32] * 5 + [ms.float32, ms.bool_]
    assert [dtype for _, dtype in queue.shapes[0]] == types

    first = min((sunk / "checkpoints").glob("step-*"))
    again = trainable.write_config(tmp_path / "again", train={"save_steps": 2, "resume": str(first)}, runtime=sinking)
    run.train(load_config(again, []))
    assert trainable.metrics(tmp_path / "again", "train") == trainable.metrics(plain, "train")[int(first.name[5:]) :]
    ends = [load_checkpoint(max((place / "checkpoints").glob("step-*")))[0] for place in (plain, tmp_path / "again")]
    assert all(np.array_equal(ends[1][name], value) for name, value in ends[0].items())


def test_a_device_without_a_queue_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(trainable.write_config(tmp_path / "out", runtime={"dataset_sink_mode": True}), [])
    parts = build.build_run(config)
    feed.micro_batches(parts, build.build_step(parts), CompileCache(None, {}, 0), 8, (0, 0), 1)
    assert (
        "runtime.dataset_sink_mode: a CPU has no queue of batches, they come from the host" in capsys.readouterr().out
    )


def test_the_two_devices_that_have_one_use_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = load_config(trainable.write_config(tmp_path / "out", runtime={"dataset_sink_mode": True}), [])
    parts = build.build_run(config)
    queue = Queue()
    monkeypatch.setattr(ms, "data_sink", queue.data_sink)
    for name in ("Ascend", "GPU"):
        there = replace(parts, device=replace(parts.device, name=name))
        list(feed.micro_batches(there, build.build_step(parts), CompileCache(None, {}, 0), 64, (0, 0), 1))
    assert [size for _, size in queue.calls] == [1, 1]
