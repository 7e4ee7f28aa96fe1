"""Cores of a CPU: a process keeps to those that it was given, and ranks of one host do not meet on one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ms_medqa.backend.cores import cores_of

EIGHT = (0, 1, 2, 3, 8, 9, 10, 11)


@pytest.mark.parametrize(
    ("count", "processes", "wanted"),
    [
        (2, 2, [(0, 1), (2, 3)]),
        (3, 3, [(0, 1, 2), (3, 8, 9), (0, 10, 11)]),
        (None, 2, [(0, 1, 2, 3), (8, 9, 10, 11)]),
        (None, 3, [(0, 1), (2, 3), (8, 9)]),
        (99, 1, [EIGHT]),
    ],
)
def test_processes_take_cores_one_after_the_other(
    count: int | None, processes: int, wanted: list[tuple[int, ...]]
) -> None:
    assert [cores_of(EIGHT, count, place, processes) for place in range(processes)] == wanted


def test_more_processes_than_cores_have_one_each() -> None:
    assert [cores_of((4, 7), None, place, 3) for place in range(3)] == [(4,), (7,), (4,)]


# All threads, those that were there before too.
SCRIPT = """
import os, threading
from ms_medqa.backend.device import setup
gate = threading.Event()
threading.Thread(target=gate.wait, daemon=True).start()
setup("CPU", threads={threads})
setup("CPU", threads={threads})
import mindspore as ms
ms.ops.matmul(ms.ops.ones((64, 64)), ms.ops.ones((64, 64))).asnumpy()
print(sorted(set().union(*(os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")))))
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="two cores are needed"
)
@pytest.mark.parametrize(
    ("threads", "environment", "place"),
    [
        (None, {}, slice(None)),
        (1, {}, slice(0, 1)),
        (1, {"RANK_SIZE": "2", "DEVICE_ID": "1"}, slice(1, 2)),
        (1, {"RANK_SIZE": "8", "MS_MEDQA_LOCAL_PROCESSES": "2", "DEVICE_ID": "1"}, slice(1, 2)),
    ],
    ids=["all", "one", "the second rank", "the second rank of a host"],
)
def test_all_threads_keep_to_the_cores(threads: int | None, environment: dict[str, str], place: slice) -> None:
    clean = {name: value for name, value in os.environ.items() if name not in ("RANK_SIZE", "DEVICE_ID")}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(threads=threads)],
        env=clean | environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.strip() == str(sorted(os.sched_getaffinity(0))[place])
