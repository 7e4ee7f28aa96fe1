"""The training loop: steps, evaluation, checkpoints, resume, and what is left at the end."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor

from ms_medqa.backend.distributed import check_same_weights, sum_over_ranks
from ms_medqa.config.console import progress, say
from ms_medqa.config.errors import RunError, UserError
from ms_medqa.data.dataset import batches, model_inputs
from ms_medqa.models.loading import assign
from ms_medqa.peft import trainable_parameters
from ms_medqa.training.build import Run, build_step, restore
from ms_medqa.training.checkpoint import Checkpoints, TrainerState, load_checkpoint, load_weights
from ms_medqa.training.loss import TokenLoss
from ms_medqa.training.metrics import MetricsLog

# A scale that is halved this often in a row has nothing left to find: the loss itself is broken.
MAX_SKIPS_IN_A_ROW = 20


class Trainer:
    """Trains what `build_run` has put together.

    Args:
        run: the parts.
        output: the run's folder.
        resume: a complete checkpoint to go on from, or None.
    """

    def __init__(self, run: Run, output: Path, resume: Path | None = None) -> None:
        self.run = run
        self.output = output
        self.plan = run.data.train_plan
        self.parameters = trainable_parameters(run.model)
        self.step_cell = build_step(run)
        self.evaluation = TokenLoss(run.model)
        self.checkpoints = Checkpoints(output / "checkpoints", run.config.train.keep_checkpoints)
        self.state = TrainerState(steps_per_epoch=self.plan.steps_per_epoch, settings=run_settings(run))
        # One shape for the whole run: another one would compile the step again.
        self.most_labels = self.plan.most_labels(-(-run.total_steps // self.plan.steps_per_epoch))
        self.skips_in_a_row = 0
        self.log: MetricsLog | None = None
        if resume is not None:
            self._load(resume)

    def train(self) -> TrainerState:
        """Run to the end, then put the best weights by validation loss into the main rank's model.

        Raises:
            RunError: the loss stays non-finite, ranks diverge, or no space is left.
        """
        if self.run.world.is_main:
            self.log = MetricsLog(self.output, self.state.step)
        try:
            self._check_ranks("at the start")
            self._loop()
        finally:
            if self.log is not None:
                self.log.close()
        best = self.state.best_step
        # The other ranks leave nothing behind, and their host may not see the checkpoints.
        if self.run.world.is_main and best is not None and best != self.state.step:
            restore(self.run, load_weights(self.checkpoints.path(best)))
        return self.state

    def _loop(self) -> None:
        plan, total = self.plan, self.run.total_steps
        if self.state.step >= total:
            # A run that had ended is resumed: its last epoch may hold more batches than max_steps takes.
            return
        epoch, start = divmod(self.state.step, plan.steps_per_epoch)
        epochs = -(-total // plan.steps_per_epoch)
        # The bar ends its line before an error is printed; the generator is closed before anything else compiles, for
        # its reader thread holds the interpreter.
        with (
            progress(total=total, desc="training", unit="step") as bar,
            closing(batches(self.run.data.train, plan, self.run.world.rank, epoch, start, epochs)) as stream,
        ):
            bar.update(self.state.step)
            self.step_cell.set_train(True)
            began = time.perf_counter()
            for epoch, step, micro, batch in stream:
                outputs = self._micro_step(epoch, step, micro, batch)
                if micro < plan.accumulation - 1:
                    continue
                self.state.step += 1
                record = self._record(epoch, step, outputs, time.perf_counter() - began)
                loss = "not finite" if record["loss"] is None else f"{record['loss']:.3f}"
                bar.set_postfix_str(f"loss {loss}, {record['tokens_per_second']:,.0f} tokens/s", refresh=False)
                bar.update()
                if self.log is not None and self.state.step % self.run.config.train.logging_steps == 0:
                    self.log.write(record)
                self._after_step(end_of_epoch=step == plan.steps_per_epoch - 1)
                if self.state.step >= total:
                    break
                began = time.perf_counter()

    def _micro_step(self, epoch: int, step: int, micro: int, batch: dict[str, np.ndarray]) -> tuple[Tensor, ...]:
        plan, run = self.plan, self.run
        number = (epoch * plan.steps_per_epoch + step) * plan.accumulation + micro
        for keys in run.draws:
            keys.renew(run.config.train.seed, number, run.world.rank)
        count = Tensor(max(plan.label_count(epoch, step), 1), ms.float32)
        last = Tensor(micro == plan.accumulation - 1)
        return self.step_cell(*map(Tensor, model_inputs(batch, self.most_labels)), count, last)

    def _record(self, epoch: int, step: int, outputs: tuple[Tensor, ...], seconds: float) -> dict[str, Any]:
        loss, overflow, scale, lr, norm = (value.asnumpy().item() for value in outputs)
        self.skips_in_a_row = self.skips_in_a_row + 1 if overflow else 0
        self.state.skipped += bool(overflow)
        if self.skips_in_a_row >= MAX_SKIPS_IN_A_ROW:
            raise RunError(
                f"step {self.state.step}: {MAX_SKIPS_IN_A_ROW} steps in a row had non-finite gradients; "
                "lower train.learning_rate or look at the data; checkpoints are kept"
            )
        tokens = self.plan.token_count(epoch, step)
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
            "tokens": tokens,
            "tokens_per_second": round(tokens / seconds, 1),
        }

    def _after_step(self, end_of_epoch: bool) -> None:
        train = self.run.config.train
        step, done = self.state.step, self.state.step >= self.run.total_steps

        def due(every: int | None) -> bool:
            return done or (end_of_epoch if every is None else step % every == 0)

        improved = due(train.eval_steps) and self._evaluate()
        if improved or due(train.save_steps):
            self._save()

    def _evaluate(self) -> bool:
        """Validation loss; returns whether it is the lowest so far."""
        rows, plan, world = self.run.data.val, self.run.data.val_plan, self.run.world
        if rows is None or plan is None:
            return False
        self.evaluation.set_train(False)
        one = Tensor(1.0, ms.float32)
        total, most = 0.0, plan.most_labels(1)
        for step in progress(range(plan.steps_per_epoch), desc="validation", unit="batch"):
            inputs = model_inputs(rows.batch(plan.rows_of(0, step, 0, world.rank)), most)
            total += self.evaluation(*map(Tensor, inputs), one).asnumpy().item()
        self.step_cell.set_train(True)
        loss = float(sum_over_ranks(np.array([total]), world)[0] / rows.label_counts.sum())
        improved = math.isfinite(loss) and (self.state.best_loss is None or loss < self.state.best_loss)
        if improved:
            self.state.best_loss, self.state.best_step = loss, self.state.step
        if self.log is not None:
            perplexity = math.exp(min(loss, 100.0))
            self.log.write({"kind": "eval", "step": self.state.step, "loss": loss, "perplexity": perplexity})
            self.log.draw()
        say(f"step {self.state.step}: validation loss {loss:.4f}{' (best so far)' if improved else ''}")
        return improved

    def _save(self) -> None:
        self._check_ranks(f"at step {self.state.step}")
        if self.run.world.is_main:
            weights = {parameter.name: parameter.asnumpy() for parameter in self.parameters}
            self.checkpoints.save(weights, self._optimizer_state(), self.state)

    def _check_ranks(self, when: str) -> None:
        check_same_weights((parameter.asnumpy() for parameter in self.parameters), self.run.world, when)

    def _optimizer_parameters(self) -> dict[str, ms.Parameter]:
        cell = self.step_cell
        found = {p.name: p for p in (*cell.optimizer.m, *cell.optimizer.v, cell.optimizer.global_step)}
        found["scale_sense"] = cell.scale_sense
        if cell.loss_scaling_manager is not None:
            manager = cell.loss_scaling_manager
            found |= {"scale.cur_iter": manager.cur_iter, "scale.last_overflow_iter": manager.last_overflow_iter}
        return found

    def _optimizer_state(self) -> dict[str, np.ndarray]:
        return {name: parameter.asnumpy() for name, parameter in self._optimizer_parameters().items()}

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
        for name, parameter in self._optimizer_parameters().items():
            assign(parameter, optimizer[name])
        best = state.best_step
        inside = folder.resolve().parent == self.checkpoints.folder.resolve()
        if best is not None and not (inside and self.checkpoints.path(best) in self.checkpoints.complete()):
            say(f"note: step {best}, the best so far, is not in {self.checkpoints.folder}: the best is sought anew")
            state.best_loss = state.best_step = None
        self.state = state


def run_settings(run: Run) -> dict[str, Any]:
    """What decides a run's course. World size and batch split are left out: the global batch is what counts."""
    config = run.config
    free = {"resume", "save_steps", "keep_checkpoints", "logging_steps", "batch_size", "gradient_accumulation_steps"}
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
