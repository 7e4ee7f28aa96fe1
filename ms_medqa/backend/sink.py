"""Batches through the device's own queue, where it has one: MindSpore's data sinking."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# MindSpore's documentation of `data_sink` names these two.
SINKING_DEVICES = ("Ascend", "GPU")


def sink(function: Callable[..., Any], dataset: Any) -> Callable[[], Any]:
    """A function that takes the next batch from the device's queue and gives it to `function`.

    One batch a call: between two calls the host may renew the keys of dropout, look at the result and save.

    Args:
        function: takes a batch's columns as Tensors, by position.
        dataset: MindSpore dataset of those columns; its reader fills the queue, up to 100 batches ahead.
    """
    import mindspore as ms

    return ms.data_sink(function, dataset, sink_size=1)
