"""`python killed.py MOMENT train CONFIG …`: a worker of the launcher, or a run by itself, that kills itself.

As after a power cut, no clean-up runs. MOMENT is one of

- `micro-batch:STEP:MICRO`: before this micro-batch (from 0) of this optimizer step (from 1);
- `saving:STEP:FILE`: in the checkpoint of this step, when file number FILE is written but has no name yet. The first
  three (weights, optimizer, state) lie in a temporary folder, the fourth is the mark.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from ms_medqa.launch import worker

SCRIPT = Path(__file__)


def arm(moment: str) -> None:
    """Wait for the moment."""
    from ms_medqa.training.checkpoint import Checkpoints
    from ms_medqa.training.trainer import Trainer

    kind, step, number = moment.split(":")
    micro_step, save, replace = Trainer._micro_step, Checkpoints.save, os.replace
    saving: list[int] = []

    def killing_micro_step(self: Trainer, epoch: int, at: int, micro: int, batch: Any) -> Any:
        if kind == "micro-batch" and (self.state.step + 1, micro) == (int(step), int(number)):
            os.kill(os.getpid(), signal.SIGKILL)
        return micro_step(self, epoch, at, micro, batch)

    def killing_save(self: Checkpoints, weights: Any, optimizer: Any, state: Any) -> Path:
        saving[:] = [0] if kind == "saving" and state.step == int(step) else []
        return save(self, weights, optimizer, state)

    def killing_replace(*arguments: Any) -> None:
        if saving:
            if saving[0] == int(number):
                os.kill(os.getpid(), signal.SIGKILL)
            saving[0] += 1
        replace(*arguments)

    Trainer._micro_step, Checkpoints.save, os.replace = killing_micro_step, killing_save, killing_replace  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    moment = sys.argv.pop(1)
    if os.environ.get("MS_ROLE") != "MS_SCHED":
        arm(moment)
    worker.main()
