"""One whole training run, from a config to the files that it leaves."""

from __future__ import annotations

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ms_medqa.backend.device import peak_memory
from ms_medqa.config.console import say
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import atomic_write, write_json
from ms_medqa.config.loader import dump_config
from ms_medqa.config.native_log import move_to
from ms_medqa.config.schema import Config
from ms_medqa.data.raw import printable
from ms_medqa.training.build import build_run
from ms_medqa.training.callbacks import Callback
from ms_medqa.training.checkpoint import Checkpoints, TrainerState
from ms_medqa.training.plan import describe, plan_of, plan_run
from ms_medqa.training.result import save_result
from ms_medqa.training.trainer import Trainer

# Written before the first step; alone they are no run.
_BEFORE = ("config.yaml", "data.json")
_RUN_FILES = (
    "checkpoints",
    "adapter",
    "model",
    "metrics.jsonl",
    "tensorboard",
    "loss.png",
    "mindspore.log",
    *_BEFORE,
)


@dataclass(frozen=True)
class TrainResult:
    """What a run came to.

    Attributes:
        folder: the adapter or model folder; None after a dry run.
        state: the trainer's last state; None after a dry run.
        seconds: wall-clock time.
    """

    folder: Path | None
    state: TrainerState | None
    seconds: float


def train(config: Config, dry_run: bool = False, callbacks: Sequence[Callback] = ()) -> TrainResult:
    """Train as a config says.

    Args:
        config: the run.
        dry_run: check everything that needs no weights, print the plan, and stop.
        callbacks: are called between the steps.

    Raises:
        UserError: config, data, model or checkpoint do not fit together.
        RunError: the run failed.
        Stopped: SIGTERM came; a checkpoint of the last step is there.
    """
    began = time.perf_counter()
    output = Path(config.output_dir)
    if dry_run:
        say(describe(plan_run(config)))
        return TrainResult(None, None, time.perf_counter() - began)
    run = build_run(config)
    plan = plan_of(run)
    say(describe(plan))
    resume = find_checkpoint(config, output)
    # Before anything is written: a checkpoint that does not fit must not cost the files of the run it belongs to.
    trainer = Trainer(run, output, resume, callbacks)
    if resume is not None:
        say(f"resuming from {resume}")
    if run.world.is_main:
        if resume is None or output.resolve() not in resume.resolve().parents:
            _put_earlier_run_aside(output)
        with atomic_write(output / "config.yaml") as file:
            # Whoever repeats the run from this file wants it from the start.
            section = config.train.model_copy(update={"resume": None})
            file.write(dump_config(config.model_copy(update={"train": section})))
        # The path in config.yaml may be relative to a folder that nobody knows later, and another conversion may take
        # the place of this one.
        write_json(output / "data.json", {"path": printable(run.data.folder), "train_sha256": run.data.texts})
        move_to(output / "mindspore.log")
        command = shlex.join(["ms-medqa", "train", str(output / "config.yaml"), "--resume"])
        again = "the command of this run with --resume" if run.world.size > 1 else command
        say(f"if it ends before its time, this goes on: {again}")
    state = trainer.train()
    peak = peak_memory(run.device.name)
    say(f"memory: {peak / 1e9:.1f} GB measured at the peak, {plan.memory.total / 1e9:.1f} GB estimated")
    folder = save_result(run, output) if run.world.is_main else None
    return TrainResult(folder, state, time.perf_counter() - began)


def find_checkpoint(config: Config, output: Path) -> Path | None:
    """The checkpoint that `train.resume` names; `auto` takes the newest complete one, or none if there is none."""
    wish = config.train.resume
    if wish is None:
        return None
    if wish != "auto":
        if not Path(wish).is_dir():
            raise UserError(f"train.resume = {wish!r}: no such folder", "give a checkpoint folder, or auto")
        return Path(wish)
    found = Checkpoints(output / "checkpoints", config.train.keep_checkpoints).complete()
    if not found:
        say(f"nothing to resume in {output}: starting from the beginning")
    return found[-1] if found else None


def _put_earlier_run_aside(output: Path) -> None:
    """Move an earlier run's files into `previous-N/`: a new run neither mixes with them nor destroys them."""
    present = [output / name for name in _RUN_FILES if (output / name).exists()]
    if not any(path.name not in _BEFORE for path in present):
        return
    number = 1
    while (output / f"previous-{number}").exists():
        number += 1
    aside = output / f"previous-{number}"
    aside.mkdir()
    for path in present:
        path.rename(aside / path.name)
    say(f"{output} holds an earlier run: it was moved to {aside}")
