"""Graphs of a Cell that is not used any more."""

from __future__ import annotations

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from ms_medqa.backend.graph_memory import free_graphs

pytestmark = pytest.mark.usefixtures("pynative_mode")


class Twice(nn.Cell):
    """Two methods that are graphs."""

    @ms.jit
    def double(self, x: Tensor) -> Tensor:
        """x + x."""
        return ops.add(x, x)

    @ms.jit
    def square(self, x: Tensor) -> Tensor:
        """x * x."""
        return ops.mul(x, x)


def test_its_graphs_are_freed_and_those_of_others_stay() -> None:
    one, other = Twice(), Twice()
    for cell in (one, other):
        cell.double(Tensor(np.ones(3, np.float32)))
        cell.double(Tensor(np.ones(4, np.float32)))
        cell.square(Tensor(np.ones(3, np.float32)))
    freed = free_graphs(one)
    if tuple(map(int, ms.__version__.split(".")[:2])) >= (2, 10):
        assert freed == 3
    assert free_graphs(one) == 0
    # They can be had again.
    np.testing.assert_array_equal(one.double(Tensor(np.full(3, 2, np.float32))).asnumpy(), 4)
    np.testing.assert_array_equal(other.square(Tensor(np.full(3, 3, np.float32))).asnumpy(), 9)
    assert free_graphs(other) == freed
