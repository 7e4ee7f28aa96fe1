"""Runs that end before their last step: early stopping, a callback's wish, SIGTERM, a disk without room."""

from __future__ import annotations

import errno
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trainable
from full_disk import no_room

from ms_medqa.config import load_config
from ms_medqa.config.errors import RunError
from ms_medqa.training import Callback, train
from ms_medqa.training.checkpoint import Checkpoints, load_checkpoint
from ms_medqa.training.trainer import Trainer
from ms_medqa.training.validation import is_better

pytestmark = pytest.mark.usefixtures("graph_mode")

# Evaluated at each step; a high rate makes validation worse before long.
SETTINGS: dict[str, Any] = {"epochs": 8, "eval_steps": 1, "learning_rate": 0.3, "seed": 7}


def best_place(values: list[float], greater: bool) -> int:
    """Index of the first of the best."""
    return int(np.argmax(values) if greater else np.argmin(values))


@pytest.mark.parametrize(("metric", "direction"), [("loss", "auto"), ("accuracy", "auto"), ("loss", "max")])
def test_early_stopping_and_the_best_by_any_metric_in_either_direction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], metric: str, direction: str
) -> None:
    output = tmp_path / "out"
    wishes = {"best_metric": metric, "best_direction": direction, "early_stopping_patience": 2}
    config = trainable.write_config(output, train=SETTINGS | wishes)
    assert trainable.train(config) == 0
    said = capsys.readouterr().out
    evals = trainable.metrics(output, "eval")
    values = [line[metric] for line in evals]
    best = best_place(values, metric == "accuracy" or direction == "max")
    assert len(values) == best + 3 < 24
    assert f"stopped early: 2 evaluations in a row without a better {metric}" in said
    assert f"best validation {metric} {values[best]:.4f} at step {best + 1}" in said
    weights, _, state = load_checkpoint(output / "checkpoints" / f"step-{best + 1:06d}")
    assert (state.best, state.best_step) == (values[best], best + 1)
    adapter = trainable.tensors(output / "adapter" / "adapter_model.safetensors")
    for name, value in adapter.items():
        stored = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".lora_a")
        assert np.array_equal(weights[stored.replace(".lora_B.weight", ".lora_b")], value)
    # It has ended: to resume it changes nothing.
    before = (output / "metrics.jsonl").read_bytes()
    assert trainable.train(config, "--resume") == 0
    assert (output / "metrics.jsonl").read_bytes() == before


def test_accuracy_is_the_share_of_tokens_that_are_likeliest(tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert trainable.train(trainable.write_config(output, train={"epochs": 1, "eval_steps": 1, "max_steps": 1})) == 0
    weights = trainable.with_adapter(output / "adapter")
    rows = trainable.rows_of("data", "val")
    right, count = 0, 0
    for number in range(len(rows)):
        tokens, mask = rows.records.record(number)
        likeliest = trainable.decoders.logits(weights, trainable.CONFIG, tokens.tolist()).argmax(-1)[:-1]
        right += int((likeliest == tokens[1:])[mask[1:] == 1].sum())
        count += int(mask[1:].sum())
    assert trainable.metrics(output, "eval")[0]["accuracy"] == pytest.approx(right / count)


def test_what_is_no_number_is_never_the_best() -> None:
    assert not is_better(float("nan"), None, greater=True)
    assert not is_better(float("inf"), 1.0, greater=True)
    assert is_better(2.0, None, greater=False)
    assert [is_better(value, 2.0, greater=False) for value in (1.0, 2.0, 3.0)] == [True, False, False]
    assert [is_better(value, 2.0, greater=True) for value in (1.0, 2.0, 3.0)] == [False, False, True]


class Told(Callback):
    """Writes down what it is called for, and stops the run at a step."""

    def __init__(self, last: int) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.last = last

    def on_train_begin(self, trainer: Trainer) -> None:
        self.calls.append(("begin", trainer.state.step))

    def on_step_end(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        self.calls.append(("step", record["step"], record["loss"]))
        if record["step"] == self.last:
            trainer.stop("it was told to")

    def on_evaluate(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        self.calls.append(("evaluate", trainer.state.step, metrics["loss"]))

    def on_save(self, trainer: Trainer, folder: Path) -> None:
        self.calls.append(("save", folder.name))

    def on_train_end(self, trainer: Trainer) -> None:
        self.calls.append(("end", trainer.state.step))


def test_callbacks_see_the_run_and_may_end_it(tmp_path: Path) -> None:
    output = tmp_path / "out"
    config = load_config(trainable.write_config(output, train={"epochs": 2}))
    told = Told(last=4)
    result = train(config, callbacks=[told])
    lines, evals = trainable.metrics(output, "train"), trainable.metrics(output, "eval")
    assert told.calls == [
        ("begin", 0),
        *(("step", line["step"], line["loss"]) for line in lines[:3]),
        ("evaluate", 3, evals[0]["loss"]),
        ("save", "step-000003"),
        ("step", 4, lines[3]["loss"]),
        # Ended early, it is evaluated and saved as at its last step.
        ("evaluate", 4, evals[1]["loss"]),
        ("save", "step-000004"),
        ("end", 4),
    ]
    assert result.state is not None
    assert result.state.stopped == "it was told to"
    assert result.folder is not None


TERMINATED = """
import os, signal, sys
from ms_medqa.cli.main import main
from ms_medqa.training.trainer import Trainer

real = Trainer._micro_step
def micro_step(self, epoch, step, micro, batch):
    if self.state.step + 1 == int(sys.argv[2]) and micro == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    return real(self, epoch, step, micro, batch)
Trainer._micro_step = micro_step
sys.exit(main(["train", sys.argv[1]]))
"""


@pytest.mark.slow
def test_a_terminated_run_saves_its_step_and_goes_on_to_the_same_end(tmp_path: Path) -> None:
    whole, output = tmp_path / "whole", tmp_path / "terminated"
    assert trainable.train(trainable.write_config(whole)) == 0
    config = trainable.write_config(output)
    command = [sys.executable, "-c", TERMINATED, str(config), "2"]  # in the middle of the first epoch
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 128 + signal.SIGTERM
    resume = f"`ms-medqa train {output / 'config.yaml'} --resume`"
    line = f"ms-medqa train: ended by SIGTERM: step 2 is saved, {resume} goes on"
    assert done.stderr.splitlines()[-1] == line
    assert [path.name for path in Checkpoints(output / "checkpoints", 3).complete()] == ["step-000002"]
    assert not (output / "adapter").exists()
    assert trainable.train(output / "config.yaml", "--resume") == 0
    for kind in ("train", "eval"):
        assert trainable.metrics(output, kind) == trainable.metrics(whole, kind)
    name = "adapter_model.safetensors"
    assert (output / "adapter" / name).read_bytes() == (whole / "adapter" / name).read_bytes()


@pytest.mark.parametrize("wish", ["stop", "continue"])
def test_a_full_disk_stops_the_run_or_not_and_costs_no_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, wish: str
) -> None:
    output = tmp_path / "out"
    config = trainable.write_config(output, train={"save_steps": 2, "on_save_error": wish, "eval_steps": 9})
    real = shutil.rmtree
    saves = []

    def no_room(path: Any, *arguments: Any, **options: Any) -> None:
        # The second checkpoint, before its files are written.
        if ".tmp-step" in str(path):
            saves.append(path)
            if len(saves) == 2:
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, *arguments, **options)

    monkeypatch.setattr("ms_medqa.training.checkpoint.shutil.rmtree", no_room)
    assert trainable.train(config) == (1 if wish == "stop" else 0)
    said = capsys.readouterr()
    names = [path.name for path in Checkpoints(output / "checkpoints", 9).complete()]
    if wish == "stop":
        assert names == ["step-000002"]
        assert said.err.splitlines()[-1].startswith("ms-medqa train: error: no space left writing ")
        assert not (output / "adapter").exists()
    else:
        assert names == ["step-000002", "step-000006"]
        assert "warning: step 4 is not saved: no space left writing " in said.out + said.err
        assert (output / "adapter").is_dir()
    assert [line["step"] for line in trainable.metrics(output, "train")][:4] == [1, 2, 3, 4]


class FullFrom(Callback):
    """The disk of the run's folder is full from the end of one step to the end of another."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self.stack = ExitStack()

    def on_step_end(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        if record["step"] == self.first:
            self.stack.enter_context(no_room(trainer.output))
        if record["step"] == self.last:
            self.stack.close()


def test_a_run_that_is_to_go_on_outlives_a_disk_that_is_full_for_a_while(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Evaluated, drawn and saved at each step, of which the third to the fifth find no room."""
    output, usual = tmp_path / "out", tmp_path / "usual"
    settings = {"eval_steps": 1, "save_steps": 1, "keep_checkpoints": 9, "on_save_error": "continue"}
    assert trainable.train(trainable.write_config(usual, train=settings)) == 0
    capsys.readouterr()
    full = FullFrom(3, 6)
    with full.stack:
        train(load_config(trainable.write_config(output, train=settings)), callbacks=[full])
    said = capsys.readouterr().out
    for step in (3, 4, 5):
        assert f"warning: step {step} is not saved: no space left writing " in said
    for name in ("metrics.jsonl", "loss.png"):
        assert f"warning: no space left writing {output / name}" in said
    assert [path.name[5:] for path in Checkpoints(output / "checkpoints", 9).complete()] == [
        "000001",
        "000002",
        "000006",
    ]
    for kind in ("train", "eval"):
        assert trainable.metrics(output, kind) == trainable.metrics(usual, kind)


def test_what_could_not_be_saved_is_not_the_best(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    config = trainable.write_config(output, train=SETTINGS | {"max_steps": 4, "on_save_error": "continue"})
    real = Checkpoints.save

    def only_the_first(self: Checkpoints, weights: Any, optimizer: Any, state: Any) -> Path:
        if state.step > 1:
            raise RunError("no space left writing it")
        return real(self, weights, optimizer, state)

    monkeypatch.setattr(Checkpoints, "save", only_the_first)
    assert trainable.train(config) == 0
    said = capsys.readouterr().out
    losses = [line["loss"] for line in trainable.metrics(output, "eval")]
    assert min(losses) < losses[0]
    assert f"best validation loss {losses[0]:.4f} at step 1" in said
    assert trainable.validation_loss(trainable.with_adapter(output / "adapter")) == pytest.approx(losses[0], rel=1e-4)
