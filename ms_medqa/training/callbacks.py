"""What may be done between the steps of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ms_medqa.training.trainer import Trainer


class Callback:
    """Does nothing; override what you need, and give it to `training.train(config, callbacks=[…])`.

    Each rank calls its own, in the same order and at the same steps. What a callback prints or writes it should do
    where `trainer.run.world.is_main`; what changes the run's course, such as `trainer.stop`, it must do on every rank
    alike. `trainer.state` says where the run stands, `trainer.run` what it consists of.

    Example::

        class WhenItIsGoodEnough(Callback):
            def on_evaluate(self, trainer, metrics):
                if metrics["loss"] < 1.5:
                    trainer.stop("the loss is below 1.5")
    """

    def on_train_begin(self, trainer: Trainer) -> None:
        """Before the first step, or the first one after a resume."""

    def on_step_end(self, trainer: Trainer, record: Mapping[str, Any]) -> None:
        """After each optimizer step; `record` is what `metrics.jsonl` gets of it, also where it is not logged."""

    def on_evaluate(self, trainer: Trainer, metrics: Mapping[str, float]) -> None:
        """After each evaluation; `metrics` are those of `training.validation.METRICS`."""

    def on_save(self, trainer: Trainer, folder: Path) -> None:
        """After a checkpoint was written; rank 0 alone writes one."""

    def on_train_end(self, trainer: Trainer) -> None:
        """When the last step was taken, before the result is written; not where the run failed."""
