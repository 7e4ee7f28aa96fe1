"""Validation: what the model makes of the records that it is not trained on."""

from __future__ import annotations

import math

import numpy as np
from mindspore import Tensor

from ms_medqa.backend.compile_cache import CompileCache
from ms_medqa.backend.distributed import sum_over_ranks
from ms_medqa.config.console import progress
from ms_medqa.data.dataset import model_inputs
from ms_medqa.training.build import Run
from ms_medqa.training.loss import TokenScores

# Name of each metric, and whether a greater one is better.
METRICS = {"loss": False, "perplexity": False, "accuracy": True}


class Validation:
    """Measures a run's model on its validation part.

    - `loss`: mean over the trained tokens, in nats; `perplexity`: its exponential, at most that of 100.
    - `accuracy`: share of the trained tokens that the model, given all before them, takes for the likeliest.

    Args:
        run: the parts.
        graphs: keeps the compiled graph.
    """

    def __init__(self, run: Run, graphs: CompileCache) -> None:
        self.run = run
        self.graphs = graphs
        self.scores = TokenScores(run.model)

    def measure(self) -> dict[str, float] | None:
        """The metrics over all ranks; None where there is no validation part."""
        rows, plan, world = self.run.data.val, self.run.data.val_plan, self.run.world
        if rows is None or plan is None:
            return None
        self.scores.set_train(False)
        sums, most = np.zeros(2), plan.most_labels(1)
        for step in progress(range(plan.steps_per_epoch), desc="validation", unit="batch"):
            batch = rows.batch(plan.rows_of(0, step, 0, world.rank))
            inputs = tuple(map(Tensor, model_inputs(batch, most)))
            self.graphs.compile("validation", self.scores, inputs)
            sums += [score.asnumpy().item() for score in self.scores(*inputs)]
        loss, right = (sum_over_ranks(sums, world) / rows.label_counts.sum()).tolist()
        return {"loss": loss, "perplexity": math.exp(min(loss, 100.0)), "accuracy": right}


def is_better(value: float, best: float | None, greater: bool) -> bool:
    """Whether a value is the best so far; one that is no number never is."""
    if not math.isfinite(value):
        return False
    return best is None or (value > best if greater else value < best)
