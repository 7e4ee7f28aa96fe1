"""One micro-batch after the other for the training step: from the host, or through the device's queue."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

from mindspore import Tensor

from ms_medqa.backend.sink import SINKING_DEVICES, sink
from ms_medqa.config.console import say
from ms_medqa.data.dataset import batches, model_inputs, place_of, step_dataset
from ms_medqa.training.build import Run
from ms_medqa.training.step import TrainStep

Outputs = tuple[Tensor, ...]
# (epoch, step, micro, what takes it): keys of dropout are renewed before the last one is called.
MicroBatch = tuple[int, int, int, Callable[[], Outputs]]


def micro_batches(run: Run, step: TrainStep, labels: int, start: tuple[int, int], epochs: int) -> Iterator[MicroBatch]:
    """This rank's micro-batches from (epoch, step) `start` to the end of epoch `epochs - 1`.

    Args:
        run: gives rows and plan.
        step: takes them.
        labels: length of the lists of labels, see `model_inputs`.
        start: where to begin.
        epochs: of the whole run.
    """
    if run.config.runtime.dataset_sink_mode:
        if run.device.name in SINKING_DEVICES:
            return _sunk(run, step, labels, start, epochs)
        say(f"note: runtime.dataset_sink_mode: a {run.device.name} has no queue of batches, they come from the host")
    return _from_host(run, step, labels, start, epochs)


def _from_host(run: Run, step: TrainStep, labels: int, start: tuple[int, int], epochs: int) -> Iterator[MicroBatch]:
    plan, compiled = run.data.train_plan, False
    # Closed before anything else compiles, for its reader thread holds the interpreter.
    with closing(batches(run.data.train, plan, run.world.rank, *start, epochs)) as stream:
        for epoch, at, micro, batch in stream:
            count, last = plan.step_scalars(epoch, at, micro)
            inputs = (*map(Tensor, model_inputs(batch, labels)), Tensor(count), Tensor(last))
            if not compiled:
                say(f"compiled the training step in {step.prepare(*inputs):.1f} s")
                compiled = True
            yield epoch, at, micro, lambda inputs=inputs: step(*inputs)  # type: ignore[misc]


def _sunk(run: Run, step: TrainStep, labels: int, start: tuple[int, int], epochs: int) -> Iterator[MicroBatch]:
    plan = run.data.train_plan
    dataset = step_dataset(plan, run.world.rank, *start, epochs, labels)
    take = sink(step, dataset)
    first = (start[0] * plan.steps_per_epoch + start[1]) * plan.accumulation
    for position in range(first, epochs * plan.steps_per_epoch * plan.accumulation):
        yield (*place_of(plan, position), take)
