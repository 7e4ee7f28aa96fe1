"""Which of the machine's cores a process computes on."""

from __future__ import annotations

import contextlib
import os

_allowed: tuple[int, ...] | None = None


def take_cores(count: int | None) -> None:
    """Bind this process, with all threads that it has and will have, to some of the cores that it may use.

    With MindSpore's own `threads_num(1)` a product of matrices still kept both of two cores busy; nothing but the
    system's affinity holds. Processes on the CPU of one host take cores one after the other, so that they do not meet:
    MindSpore's threads wait actively, and would wait on each other's time.

    Args:
        count: so many; None takes all of them, or an even share of them for each process of this host.
    """
    global _allowed
    # macOS has no affinity.
    if not hasattr(os, "sched_setaffinity"):
        return
    if _allowed is None:
        _allowed = tuple(sorted(os.sched_getaffinity(0)))
    place, processes = _processes_here()
    if count is None and processes == 1:
        return
    cores = cores_of(_allowed, count, place, processes)
    for task in os.listdir("/proc/self/task"):
        # A thread may have ended meanwhile.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(int(task), cores)


def cores_of(allowed: tuple[int, ...], count: int | None, place: int, processes: int) -> tuple[int, ...]:
    """The cores for one of several processes; they share where there are not enough.

    Args:
        allowed: cores that all of them may use.
        count: how many each wants; None is an even share.
        place: number of this process.
        processes: how many there are.
    """
    count = min(count or max(1, len(allowed) // processes), len(allowed))
    return tuple(sorted(allowed[(place * count + number) % len(allowed)] for number in range(count)))


def cores_here() -> int:
    """How many cores this process may compute on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processes_here() -> tuple[int, int]:
    """(number of this process on its host, processes of its run there), as its launcher told them."""
    processes = os.environ.get("MS_MEDQA_LOCAL_PROCESSES") or os.environ.get("RANK_SIZE") or "1"
    place = os.environ.get("DEVICE_ID") or "0"
    if not (processes.isdecimal() and place.isdecimal()):
        return 0, 1
    return int(place), max(int(processes), 1)
