"""What decides the graphs of a run, so that compiled ones are reused for the same run only."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from ms_medqa.backend.compile_cache import CompileCache, compiler_variables, versions
from ms_medqa.backend.device import blanks_are_silent
from ms_medqa.peft import count_parameters
from ms_medqa.training.build import Run

# Read by the loop alone, between the steps. Whatever is not named here makes a new entry.
_FREE = {
    "train": {
        *("logging_steps", "eval_steps", "best_metric", "best_direction", "early_stopping_patience"),
        *("save_steps", "keep_checkpoints", "on_save_error", "resume"),
    },
    "runtime": {"device_id", "peak_tflops", "threads", "compile_cache"},
    "eval": True,
    "generate": True,
    "output_dir": True,
}


def compile_cache(run: Run, most_labels: int) -> CompileCache:
    """The cache that `runtime.compile_cache` names; it keeps nothing where none is named or nothing is compiled."""
    runtime = run.config.runtime
    if not runtime.compile_cache or runtime.mode != "graph":
        return CompileCache(None, {}, run.world.rank)
    # A process that trains again, as a notebook may, finds the graphs of both runs.
    patient = run.device.name == "CPU" and blanks_are_silent()
    place = Path(runtime.compile_cache).absolute()
    return CompileCache(place, graph_key(run, most_labels), run.world.rank, patient=patient)


def graph_key(run: Run, most_labels: int) -> dict[str, Any]:
    """Everything that can be a constant in the graphs, or choose their shape."""
    plan = run.data.train_plan
    return {
        "config": run.config.model_dump(mode="json", exclude=_FREE),
        "model": repr(run.model.config),
        "base weights": run.base,
        "parameters": count_parameters(run.model),
        "dtype": run.dtype,
        "label list": most_labels,
        "total steps": run.total_steps,
        "global batch": plan.global_batch,
        "steps per epoch": plan.steps_per_epoch,
        "ranks": run.world.size,
        "device": run.device.name,
        "machine": platform.machine(),
        **versions(),
        "environment": compiler_variables(),
    }
