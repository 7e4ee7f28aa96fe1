"""The training loop: steps, evaluation, checkpoints, resume, and what is left at the end."""

from __future__ import annotations

import math
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ms_medqa.backend.distributed import any_rank, check_same_start, check_same_weights
from ms_medqa.config.console import progress, say
from ms_medqa.config.errors import RunError, Stopped, UserError
from ms_medqa.models.loading import assign
from ms_medqa.peft import trainable_parameters
from ms_medqa.training.build import Run, build_step, restore
from ms_medqa.training.callbacks import Callback
from ms_medqa.training.checkpoint import Checkpoints, TrainerState, load_checkpoint, load_weights
from ms_medqa.training.feed import MicroBatch, micro_batches
from ms_medqa.training.graph_key import compile_cache, versions
from ms_medqa.training.metrics import MetricsLog
from ms_medqa.training.stop import StopRequest
from ms_medqa.training.validation import METRICS, Validation, is_better
from ms_medqa.training.watch import Watch

# A scale that is halved this often in a row has nothing left to find: the loss itself is broken.
MAX_SKIPS_IN_A_ROW = 20
# Ids of records that an error names.
_SHOWN_RECORDS = 20


class Trainer:
    """Trains what `build_run` has put together.

    Args:
        run: the parts.
        output: the run's folder.
        resume: a complete checkpoint to go on from, or None.
        callbacks: are called between the steps.

    Attributes:
        run: the parts.
        state: where the run stands.
    """

    def __init__(self, run: Run, output: Path, resume: Path | None = None, callbacks: Sequence[Callback] = ()) -> None:
        self.run = run
        self.output = output
        self.callbacks = callbacks
        self.plan = run.data.train_plan
        self.parameters = trainable_parameters(run.model)
        self.step_cell = build_step(run)
        self.watch = Watch(run)
        self.checkpoints = Checkpoints(output / "checkpoints", run.config.train.keep_checkpoints)
        self.state = TrainerState(steps_per_epoch=self.plan.steps_per_epoch, settings=run_settings(run))
        # One shape for the whole run: another one would compile the step again.
        self.most_labels = self.plan.most_labels(-(-run.total_steps // self.plan.steps_per_epoch))
        self.graphs = compile_cache(run, self.most_labels)
        self.validation = Validation(run, self.graphs)
        self.skips_in_a_row = 0
        self.saved_step: int | None = None
        self.log: MetricsLog | None = None
        if resume is not None:
            self._load(resume)

    def stop(self, reason: str) -> None:
        """End the run after this step, as if it had been its last; all ranks must do so at the same step."""
        self.state.stopped = reason

    def train(self) -> TrainerState:
        """Run to the end, then put the best weights by `train.best_metric` into the main rank's model.

        Raises:
            RunError: the loss stays non-finite, ranks diverge, or no space is left.
            Stopped: SIGTERM came; a checkpoint of the last step is there.
        """
        if self.run.world.is_main:
            self.log = MetricsLog(self.output, self.state.step)
        try:
            if self.run.world.size > 1:
                check_same_start(self._parts(), self.run.world)
            self._check_ranks("at the start")
            self._call("on_train_begin")
            with StopRequest() as request:
                self._loop(request)
            self._call("on_train_end")
        finally:
            if self.log is not None:
                self.log.close()
        best = self.state.best_step
        # The other ranks leave nothing behind, and their host may not see the checkpoints.
        if self.run.world.is_main and best is not None and best != self.state.step:
            restore(self.run, load_weights(self.checkpoints.path(best)))
        return self.state

    def _loop(self, request: StopRequest) -> None:
        plan, total = self.plan, self.run.total_steps
        if self._is_done():
            # A run that had ended is resumed: its last epoch may hold more batches than max_steps takes.
            return
        epoch, start = divmod(self.state.step, plan.steps_per_epoch)
        epochs = -(-total // plan.steps_per_epoch)
        # The bar ends its line before an error is printed.
        with (
            progress(total=total, desc="training", unit="step") as bar,
            closing(self._micro_batches((epoch, start), epochs)) as stream,
        ):
            bar.update(self.state.step)
            self.step_cell.set_train(True)
            began: float | None = None
            for epoch, step, micro, take in stream:
                # Compiling before the first one is not a part of it.
                began = time.perf_counter() if began is None else began
                outputs = self._micro_step(epoch, step, micro, take)
                if micro < plan.accumulation - 1:
                    continue
                self.state.step += 1
                record = self._record(epoch, step, outputs, time.perf_counter() - began)
                bar.set_postfix_str(self.watch.beside_bar(record), refresh=False)
                bar.update()
                if self.log is not None and self.state.step % self.run.config.train.logging_steps == 0:
                    self._write(record)
                    # A terminal has the bar.
                    if not sys.stderr.isatty():
                        say(self.watch.line(record))
                self._call("on_step_end", record)
                self._after_step(end_of_epoch=step == plan.steps_per_epoch - 1)
                if self._is_done():
                    break
                if any_rank(request.made, self.run.world):
                    command = shlex.join(["ms-medqa", "train", str(self.output / "config.yaml"), "--resume"])
                    what = f"step {self.state.step} is {'saved' if self._save() else 'not saved'}"
                    raise Stopped(signal.SIGTERM, f"{what}, `{command}` goes on")
                began = time.perf_counter()

    def _micro_batches(self, start: tuple[int, int], epochs: int) -> Iterator[MicroBatch]:
        return micro_batches(self.run, self.step_cell, self.graphs, self.most_labels, start, epochs)

    def _is_done(self) -> bool:
        return self.state.step >= self.run.total_steps or self.state.stopped is not None

    def _call(self, name: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, name)(self, *arguments)

    def _micro_step(
        self, epoch: int, step: int, micro: int, take: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        number = (epoch * self.plan.steps_per_epoch + step) * self.plan.accumulation + micro
        for keys in self.run.draws:
            keys.renew(self.run.config.train.seed, number, self.run.world.rank)
        return take()

    def _record(self, epoch: int, step: int, outputs: tuple[Tensor, ...], seconds: float) -> dict[str, Any]:
        loss, overflow, scale, lr, norm = (value.asnumpy().item() for value in outputs)
        self.skips_in_a_row = self.skips_in_a_row + 1 if overflow else 0
        self.state.skipped += bool(overflow)
        if self.skips_in_a_row >= MAX_SKIPS_IN_A_ROW:
            good = self.checkpoints.complete()
            raise RunError(
                f"step {self.state.step}: {MAX_SKIPS_IN_A_ROW} steps in a row had non-finite gradients; lower "
                f"train.learning_rate or look at the data, here records {self._records_of(epoch, step)}; "
                f"{f'the last good checkpoint is {good[-1]}' if good else 'there is no checkpoint yet'}"
            )
        return {
            "kind": "train",
            "step": self.state.step,
            "epoch": round(epoch + (step + 1) / self.plan.steps_per_epoch, 4),
            "loss": loss if math.isfinite(loss) else None,
            "learning_rate": lr,
            "grad_norm": norm if math.isfinite(norm) else None,
            "loss_scale": scale,
            "overflow": bool(overflow),
            "skipped": self.state.skipped,
            **self.watch.figures(epoch, step, seconds),
        }

    def _write(self, record: dict[str, Any]) -> None:
        assert self.log is not None
        try:
            self.log.write(record)
        except RunError as error:
            if self.run.config.train.on_save_error == "stop":
                raise
            say(f"warning: {error}")

    def _records_of(self, epoch: int, step: int) -> str:
        """The first ids of a global batch's records."""
        rows = self.plan.rows
        taken = self.plan.rows_of_step(epoch, step).tolist()
        numbers = list(dict.fromkeys(int(number) for row in taken for number in rows.records_of(row)))
        shown = ", ".join(repr(rows.records.ids[number]) for number in numbers[:_SHOWN_RECORDS])
        return shown + (f" and {len(numbers) - _SHOWN_RECORDS} more" if len(numbers) > _SHOWN_RECORDS else "")

    def _after_step(self, end_of_epoch: bool) -> None:
        train = self.run.config.train
        step = self.state.step

        def due(every: int | None) -> bool:
            return self._is_done() or (end_of_epoch if every is None else step % every == 0)

        best = self.state.best, self.state.best_step
        improved = due(train.eval_steps) and self._evaluate()
        if (improved or due(train.save_steps)) and not self._save() and improved:
            # The result is read from the best checkpoint: without one, it is not the best.
            self.state.best, self.state.best_step = best

    def _evaluate(self) -> bool:
        """Measure on the validation part; returns whether it was the best so far."""
        metrics = self.validation.measure()
        self.step_cell.set_train(True)
        if metrics is None:
            return False
        train, state = self.run.config.train, self.state
        greater = METRICS[train.best_metric] if train.best_direction == "auto" else train.best_direction == "max"
        improved = is_better(metrics[train.best_metric], state.best, greater)
        if improved:
            state.best, state.best_step, state.not_better = metrics[train.best_metric], state.step, 0
        else:
            state.not_better += 1
        if self.log is not None:
            self._write({"kind": "eval", "step": state.step, **metrics})
            self.log.draw()
        numbers = f"validation loss {metrics['loss']:.4f}, accuracy {100 * metrics['accuracy']:.1f} %"
        say(f"step {state.step}: {numbers}{' (best so far)' if improved else ''}")
        if state.not_better == train.early_stopping_patience:
            self.stop(f"{state.not_better} evaluations in a row without a better {train.best_metric}")
        self._call("on_evaluate", metrics)
        return improved

    def _save(self) -> bool:
        """Write a checkpoint of this step, unless there is one; False where that failed and training is to go on."""
        if self.saved_step == self.state.step:
            return True
        self._check_ranks(f"at step {self.state.step}")
        failed = False
        # All ranks, for each may hold a part of it.
        optimizer = self._optimizer_state()
        if self.run.world.is_main:
            weights = {parameter.name: parameter.asnumpy() for parameter in self.parameters}
            try:
                folder = self.checkpoints.save(weights, optimizer, self.state)
            except RunError as error:
                if self.run.config.train.on_save_error == "stop":
                    raise
                failed = True
                say(f"warning: step {self.state.step} is not saved: {error}")
            else:
                self._call("on_save", folder)
        # All ranks must know, and none may end before the checkpoint is whole: the first to end takes the others along.
        if any_rank(failed, self.run.world):
            return False
        self.saved_step = self.state.step
        return True

    def _parts(self) -> dict[str, object]:
        """What every rank must have alike; the trained weights, which are compared by themselves, follow from it."""
        settings = run_settings(self.run)
        found = {name: settings.pop(name) for name in ("model", "base weights", "training data")}
        # Of hosts that do not share their folder, only one finds the checkpoint.
        return found | {"checkpoint": self.state.step, "settings": settings, "versions": versions()}

    def _check_ranks(self, when: str) -> None:
        check_same_weights((parameter.asnumpy() for parameter in self.parameters), self.run.world, when)

    def _scale_parameters(self) -> dict[str, ms.Parameter]:
        cell = self.step_cell
        found = {"scale_sense": cell.scale_sense}
        if cell.loss_scaling_manager is not None:
            manager = cell.loss_scaling_manager
            found |= {"scale.cur_iter": manager.cur_iter, "scale.last_overflow_iter": manager.last_overflow_iter}
        return found

    def _optimizer_state(self) -> dict[str, np.ndarray]:
        scale = {name: parameter.asnumpy() for name, parameter in self._scale_parameters().items()}
        return self.step_cell.optimizer.state() | scale

    def _load(self, folder: Path) -> None:
        weights, optimizer, state = load_checkpoint(folder)
        now = self.state.settings
        other = [key for key in now if key in state.settings and state.settings[key] != now[key]]
        if other:
            raise UserError(
                f"{folder} was written under other settings: {', '.join(other)}",
                "set them back, or start anew without --resume",
            )
        restore(self.run, weights)
        self.step_cell.optimizer.load_state(optimizer)
        for name, parameter in self._scale_parameters().items():
            assign(parameter, optimizer[name])
        best = state.best_step
        inside = folder.resolve().parent == self.checkpoints.folder.resolve()
        if best is not None and not (inside and self.checkpoints.path(best) in self.checkpoints.complete()):
            say(f"note: step {best}, the best so far, is not in {self.checkpoints.folder}: the best is sought anew")
            state.best = state.best_step = None
        self.state = state


def run_settings(run: Run) -> dict[str, Any]:
    """What decides a run's course. World size and batch split are left out: the global batch is what counts."""
    config = run.config
    free = {
        *("resume", "save_steps", "keep_checkpoints", "on_save_error", "logging_steps"),
        *("batch_size", "gradient_accumulation_steps", "recompute", "shard_optimizer"),
    }
    settings = {f"train.{key}": value for key, value in config.train.model_dump().items() if key not in free}
    settings["global batch"] = run.data.train_plan.global_batch
    settings["model"] = repr(replace(run.model.config, dtype="", eos_token_ids=()))
    settings["base weights"] = run.base
    settings["model.init"] = config.model.init
    settings["runtime.dtype"] = run.dtype
    settings["lora"] = config.lora.model_dump() if config.lora else None
    settings["data.max_length"] = config.data.max_length
    settings["data.packing"] = config.data.packing
    settings["training data"] = run.data.fingerprint
    return settings
