"""One whole training run, from a config to the files that it leaves."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from ms_medqa.config.console import say
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import atomic_write
from ms_medqa.config.loader import dump_config
from ms_medqa.config.schema import Config, LoraSection
from ms_medqa.peft import count_parameters
from ms_medqa.training.build import Run, build_run
from ms_medqa.training.checkpoint import Checkpoints, TrainerState
from ms_medqa.training.result import save_result
from ms_medqa.training.trainer import Trainer

_RUN_FILES = ("checkpoints", "adapter", "model", "metrics.jsonl", "tensorboard", "loss.png", "config.yaml")


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


def train(config: Config, dry_run: bool = False) -> TrainResult:
    """Train as a config says.

    Args:
        config: the run.
        dry_run: load and check everything, print the plan, and stop before the first step.

    Raises:
        UserError: config, data, model or checkpoint do not fit together.
        RunError: the run failed.
    """
    began = time.perf_counter()
    output = Path(config.output_dir)
    run = build_run(config)
    say(describe(run))
    if dry_run:
        return TrainResult(None, None, time.perf_counter() - began)
    resume = find_checkpoint(config, output)
    # Before anything is written: a checkpoint that does not fit must not cost the files of the run it belongs to.
    trainer = Trainer(run, output, resume)
    if resume is not None:
        say(f"resuming from {resume}")
    if run.world.is_main:
        if resume is None or output.resolve() not in resume.resolve().parents:
            _put_earlier_run_aside(output)
        with atomic_write(output / "config.yaml") as file:
            # Whoever repeats the run from this file wants it from the start.
            section = config.train.model_copy(update={"resume": None})
            file.write(dump_config(config.model_copy(update={"train": section})))
    state = trainer.train()
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


def describe(run: Run) -> str:
    """The plan of a run as a few aligned lines."""
    config, rows = run.config, run.data.train
    trainable, total = count_parameters(run.model)
    lora = config.lora if trainable < total else None
    kind = _adapter_line(lora) if lora else "all weights"
    train, val = run.data.records
    share = rows.token_counts.sum() / (len(rows) * rows.max_length)
    plan = run.data.train_plan
    ranks = f" x {run.world.size} ranks" if run.world.size > 1 else ""
    lines = [
        ("model", f"{config.model.path}, {run.model.config.family}, {run.dtype} on {run.device.name}{ranks}"),
        ("parameters", f"{trainable:,} trainable of {total:,} ({100 * trainable / total:.2f} %): {kind}"),
        ("data", f"{train:,} training and {val:,} validation records from {config.data.path}"),
        ("rows", f"{len(rows):,} of {rows.max_length} tokens, {100 * share:.1f} % full"),
        (
            "steps",
            f"{run.total_steps:,} of {plan.global_batch} rows "
            f"({plan.batch_size} a device x {plan.accumulation} accumulated{ranks}), {plan.steps_per_epoch:,} an epoch",
        ),
        ("output", config.output_dir),
    ]
    if run.device.notice:
        lines.append(("note", run.device.notice))
    return "\n".join(f"{name:<12}{text}" for name, text in lines)


def _adapter_line(lora: LoraSection) -> str:
    targets = lora.target_modules if isinstance(lora.target_modules, str) else ", ".join(lora.target_modules)
    whole = f", whole: {', '.join(lora.modules_to_save)}" if lora.modules_to_save else ""
    return f"LoRA r={lora.r} alpha={lora.alpha:g} on {targets}{whole}"


def _put_earlier_run_aside(output: Path) -> None:
    """Move an earlier run's files into `previous-N/`: a new run neither mixes with them nor destroys them."""
    present = [output / name for name in _RUN_FILES if (output / name).exists()]
    if not any(path.name != "config.yaml" for path in present):
        return
    number = 1
    while (output / f"previous-{number}").exists():
        number += 1
    aside = output / f"previous-{number}"
    aside.mkdir()
    for path in present:
        path.rename(aside / path.name)
    say(f"{output} holds an earlier run: it was moved to {aside}")
