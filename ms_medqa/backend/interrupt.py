"""Ctrl-C while MindSpore computes.

At every run of a graph MindSpore puts its own handler of SIGINT in the place of Python's, and that one sends SIGTERM:
the program would end, at times in the middle of a compilation. So SIGINT waits while there is something to compute, and
is looked at between two steps.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_INTERRUPT = {signal.SIGINT}
_held = False


@contextmanager
def hold_interrupt() -> Iterator[None]:
    """Let Ctrl-C wait inside the block, up to `check_interrupt` or the end of the block.

    Threads that begin inside do not see SIGINT at all; those of MindSpore must begin there (`start_threads`), or one of
    them takes it.
    """
    global _held
    if _held or not _is_main():
        yield
        return
    handler = signal.getsignal(signal.SIGINT)
    signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)
    _held = True
    try:
        yield
    finally:
        _held = False
        if handler is not None:
            signal.signal(signal.SIGINT, handler)
        # One that waits is raised here.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _INTERRUPT)


def start_threads() -> None:
    """Have MindSpore begin its threads, as it does with its first operation. The device must have been set up."""
    # Here, so that a command line is read without MindSpore.
    import mindspore as ms

    (ms.Tensor([1.0], ms.float32) + 1).asnumpy()


def check_interrupt() -> None:
    """Raise KeyboardInterrupt where Ctrl-C waits."""
    if _held and _is_main() and signal.SIGINT in signal.sigpending():
        signal.sigwait(_INTERRUPT)
        raise KeyboardInterrupt


def _is_main() -> bool:
    return threading.current_thread() is threading.main_thread()
