"""A graph of much work leaves the thread that calls it, which would wait actively otherwise."""

from __future__ import annotations

import math
import os
import sys
import threading
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn, ops

from ms_medqa.backend import ops as backend_ops
from ms_medqa.backend.cores import cores_here

WIDTH = 1024
PRODUCTS = 4
MINDSPORE = tuple(map(int, ms.__version__.split(".")[:2]))


class Powers(nn.Cell):
    """Some large products, and then `OffCaller`."""

    def __init__(self, work: float) -> None:
        super().__init__()
        self.work = work
        self.off_caller = backend_ops.OffCaller()

    @ms.jit
    def run(self, x: Tensor, weight: Tensor) -> Tensor:
        for _ in range(PRODUCTS):
            x = ops.matmul(x, weight)
        return self.off_caller(x, self.work)


@pytest.mark.parametrize("work", [1.0, math.inf])
def test_a_graph_gives_what_it_gave(work: float) -> None:
    x = np.random.default_rng(5).standard_normal((3, 4)).astype(np.float32)
    turn = np.roll(np.eye(4, dtype=np.float32), 1, 0)
    found = Powers(work).run(Tensor(x), Tensor(turn)).asnumpy()
    np.testing.assert_array_equal(found, x @ np.linalg.matrix_power(turn, PRODUCTS))


@pytest.mark.skipif(sys.platform != "linux" or cores_here() != 2, reason="known for two cores of Linux")
@pytest.mark.skipif(MINDSPORE < (2, 8), reason="MindSpore 2.7 has a third thread that is busy at times")
def test_no_thread_but_those_that_compute_is_busy() -> None:
    cell, x = Powers(math.inf), Tensor(np.zeros((WIDTH, WIDTH), np.float32))
    for _ in range(2):
        cell.run(x, x).asnumpy()
    before = ticks()
    for _ in range(20):
        cell.run(x, x).asnumpy()
    after = ticks()
    spent = sorted((after[task] - before.get(task, 0) for task in after), reverse=True)
    assert spent[1] > 20
    assert spent[2] < 0.05 * spent[1], spent[:4]


@pytest.mark.parametrize(("cores", "work"), [(1, 2.5e8), (2, 1e9), (4, 4e9)])
def test_the_work_from_which_it_pays_grows_with_the_square_of_the_cores(
    cores: int, work: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_ops, "cores_here", lambda: cores)
    assert backend_ops.OffCaller().much == work


def ticks() -> dict[str, int]:
    """Hundredths of a second that each thread has computed; Python's own thread, which runs the test, is left out."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        if task.name != str(threading.get_native_id()):
            found[task.name] = (int(fields[11]) + int(fields[12])) * 100 // os.sysconf("SC_CLK_TCK")
    return found
