"""Fresh processes that do a share of the work, none of which outlives it."""

from __future__ import annotations

import atexit
import ctypes
import fcntl
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from typing import Any

from ms_medqa.config.errors import RunError

_FOR_THE_FIRST = (signal.SIGINT, signal.SIGHUP)
# Seconds for what was begun when the block was left: a file of 64 MB takes three.
_PATIENCE = 10
# What Linux lets any user have.
_PIPE = 1 << 20


@contextmanager
def fresh_processes(count: int, start: Callable[..., None], *arguments: Any) -> Iterator[ProcessPoolExecutor]:
    """Processes that begin to start now, end with the block, and do not outlive this one.

    What they have begun at the end of the block they may finish within ten seconds. They are forked from Python's fork
    server, not from this process, whose threads and their locks would not survive that.

    Args:
        count: of processes.
        start: what each does first.
        arguments: of `start`.

    Raises:
        RunError: none can be started.
    """
    context = multiprocessing.get_context("forkserver")
    # Nothing is ever sent: the end of one side tells the other.
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(count, context, _start, (theirs, start, arguments))
    _widen_pipes(pool)
    try:
        try:
            with hold_back_signals():
                # The pool makes a process when there is something to do.
                for _ in range(count):
                    pool.submit(_nothing)
        except (OSError, EOFError):
            raise RunError("no process can be started; perhaps memory ran out") from None
        yield pool
    finally:
        too_long = threading.Timer(_PATIENCE, ours.close)
        too_long.start()
        pool.shutdown(wait=True, cancel_futures=True)
        too_long.cancel()
        too_long.join()
        ours.close()
        theirs.close()


@contextmanager
def hold_back_signals() -> Iterator[None]:
    """For processes that are begun inside the block, as a process keeps the mask it was made with: what a terminal
    sends to all of its processes is for the first one, which ends the others, and alone says so."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_THE_FIRST)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def few_collections() -> Iterator[None]:
    """Look for cycles of objects seldom: records hold none, yet the search takes some percent of a conversion."""
    before = gc.get_threshold()
    collect_seldom()
    try:
        yield
    finally:
        gc.set_threshold(*before)


def collect_seldom() -> None:
    """`few_collections` for as long as this process lives."""
    # Some batches of records, by far: what grows to so many objects is worth a look.
    gc.set_threshold(1_000_000, 20, 100)


def end_quickly() -> None:
    """Leave this process's objects to the system when it ends: to look for cycles among those of the libraries that
    were imported takes a third of a second. Files must be closed by then."""
    atexit.register(gc.freeze)


def give_back_memory() -> None:
    """Give what is free back to the system: glibc keeps tens of megabytes after a large file or table was made."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _widen_pipes(pool: ProcessPoolExecutor) -> None:
    """Give the pool's pipes room for what is sent at a time; where that cannot be done, it only takes longer.

    A batch of records comes back as a megabyte. At the 64 kB of a usual pipe a process stops for each of them until
    the first one, busy itself, has taken it out: 3 % of a conversion.
    """
    for name in ("_call_queue", "_result_queue"):  # no public way leads there
        reader = getattr(getattr(pool, name, None), "_reader", None)
        if reader is not None and hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):
                fcntl.fcntl(reader.fileno(), fcntl.F_SETPIPE_SZ, _PIPE)


def _start(lifeline: Connection, start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    start(*arguments)


def _end_with(lifeline: Connection) -> None:
    with suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)


def _nothing() -> None:
    pass
