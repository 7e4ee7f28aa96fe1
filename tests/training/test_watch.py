"""What is told of each step: in metrics.jsonl, and in a line of the form that people search their logs for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trainable

from ms_medqa.training.metrics import smoothed

pytestmark = pytest.mark.usefixtures("graph_mode")

# As MindSpore Transformers writes it, with more behind.
LINE = re.compile(
    r"\{ Epoch:\[ *(?P<epoch>\d+)/ *(?P<epochs>\d+)\], step:\[ *(?P<step>\d+)/ *(?P<steps>\d+)\], loss: (?P<loss>\S+), "
    r"per_step_time: (?P<time>\d+)ms, lr: (?P<lr>\S+), overflow cond: (?P<overflow>True|False), "
    r"loss_scale: (?P<scale>\S+), global_norm: (?P<norm>\S+), tokens/s: .*, samples/s: .*, padding: .*%, skipped: \d+, "
    r"peak_memory: .*GB, MFU: (?P<mfu>\S+)% of 0.05 TFLOPS, eta: \d+:\d\d:\d\d \}"
)


def test_figures_and_line_of_each_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    config = trainable.write_config(output, runtime={"peak_tflops": 0.05})
    assert trainable.train(config) == 0
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    rows = trainable.rows_of("data", "train")
    assert sum(line["samples"] for line in steps) == 2 * len(rows)
    assert [line["samples"] for line in steps[:3]] == [4, 4, 3]
    # Adapters on q and v, 4 x (32 + 32) and 4 x (32 + 16). The embedding only looks up, the head meets labels alone.
    trained = 4 * (32 + 32) + 4 * (32 + 16)
    head = 400 * 32
    weights = trainable.tensors(trainable.place() / "model" / "model.safetensors")
    assert {"lm_head.weight", "model.embed_tokens.weight"} <= set(weights)
    frozen = sum(value.size for value in weights.values()) - 2 * head
    for line in steps:
        assert line["padding"] == pytest.approx(1 - line["tokens"] / (4 * trainable.LENGTH), abs=1e-4)
        assert line["tokens_per_second"] == pytest.approx(line["tokens"] / line["seconds"], rel=0.02)
        assert line["samples_per_second"] == pytest.approx(line["samples"] / line["seconds"], rel=0.02)
        assert 1e8 < line["peak_memory"] < 1e11
    labels = sum(int(count) for count in rows.label_counts)
    done = 2 * sum(line["tokens"] for line in steps[:3]) * (4 * frozen + 6 * trained) + 2 * labels * 4 * head
    assert sum(line["mfu"] * line["seconds"] for line in steps) * 0.05e12 == pytest.approx(done, rel=0.1)

    found: list[Any] = [match for text in capsys.readouterr().out.splitlines() if (match := LINE.fullmatch(text))]
    assert [int(match["step"]) for match in found] == [1, 2, 3, 4, 5, 6]
    assert [int(match["epoch"]) for match in found] == [1, 1, 1, 2, 2, 2]
    assert {(match["epochs"], match["steps"]) for match in found} == {("2", "6")}
    for match, line in zip(found, steps, strict=True):
        assert float(match["loss"]) == pytest.approx(line["loss"], abs=1e-4)
        assert float(match["norm"]) == pytest.approx(line["grad_norm"], abs=1e-4)
        assert float(match["lr"]) == pytest.approx(line["learning_rate"], rel=1e-3)
        assert (match["overflow"], float(match["scale"])) == ("False", 1.0)


def test_the_smoothed_curve_forgets_its_start() -> None:
    points = [(step, 5.0) for step in range(1, 9)]
    assert smoothed(points) == [(step, pytest.approx(5.0)) for step, _ in points]
    values = np.array([3.0, 1.0, 2.0])
    weights = np.array([0.81, 0.9, 1.0])
    assert smoothed(list(enumerate(values.tolist())))[-1][1] == pytest.approx((weights * values).sum() / weights.sum())
