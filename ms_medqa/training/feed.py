"""One micro-batch after the other for the training step: from the host, or through the device's queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing

import numpy as np
from mindspore import Tensor

from ms_medqa.backend.compile_cache import CompileCache
from ms_medqa.backend.sink import SINKING_DEVICES, sink
from ms_medqa.config.console import say
from ms_medqa.data.dataset import batches, model_inputs, place_of, step_dataset
from ms_medqa.training.build import Run
from ms_medqa.training.step import TrainStep

Tensors = tuple[Tensor, ...]
# (epoch, step, micro, what takes it): keys of dropout are renewed before the last one is called.
MicroBatch = tuple[int, int, int, Callable[[], Tensors]]


def micro_batches(
    run: Run, step: TrainStep, graphs: CompileCache, labels: int, start: tuple[int, int], epochs: int
) -> Iterator[MicroBatch]:
    """This rank's micro-batches from (epoch, step) `start` to the end of epoch `epochs - 1`.

    Args:
        run: gives rows and plan.
        step: takes them.
        graphs: compiles the step, or has kept it.
        labels: length of the lists of labels, see `model_inputs`.
        start: where to begin.
        epochs: of the whole run.
    """
    if run.config.runtime.dataset_sink_mode:
        if run.device.name in SINKING_DEVICES:
            return _sunk(run, step, graphs, labels, start, epochs)
        say(f"note: runtime.dataset_sink_mode: a {run.device.name} has no queue of batches, they come from the host")
    return _from_host(run, step, graphs, labels, start, epochs)


def _from_host(
    run: Run, step: TrainStep, graphs: CompileCache, labels: int, start: tuple[int, int], epochs: int
) -> Iterator[MicroBatch]:
    # Closed before anything else compiles, for its reader thread holds the interpreter.
    with closing(batches(run.data.train, run.data.train_plan, run.world.rank, *start, epochs)) as stream:
        for epoch, at, micro, batch in stream:
            inputs = _inputs(run, labels, (epoch, at, micro), batch)
            _compile(step, graphs, inputs)
            yield epoch, at, micro, lambda inputs=inputs: step(*inputs)  # type: ignore[misc]


def _sunk(
    run: Run, step: TrainStep, graphs: CompileCache, labels: int, start: tuple[int, int], epochs: int
) -> Iterator[MicroBatch]:
    plan, rank = run.data.train_plan, run.world.rank
    _compile(step, graphs, _inputs(run, labels, (*start, 0), plan.rows.batch(plan.rows_of(*start, 0, rank))))
    take = sink(step, step_dataset(plan, rank, *start, epochs, labels))
    first = (start[0] * plan.steps_per_epoch + start[1]) * plan.accumulation
    for position in range(first, epochs * plan.steps_per_epoch * plan.accumulation):
        yield (*place_of(plan, position), take)


def _inputs(run: Run, labels: int, place: tuple[int, int, int], batch: dict[str, np.ndarray]) -> Tensors:
    return tuple(map(Tensor, (*model_inputs(batch, labels), *run.data.train_plan.step_scalars(*place))))


def _compile(step: TrainStep, graphs: CompileCache, inputs: Tensors) -> None:
    began = time.perf_counter()
    if graphs.compile("training step", step, inputs):
        say(f"compiled the training step in {time.perf_counter() - began:.1f} s")
