"""What a user sees on the terminal: plain lines and progress bars, from rank 0 alone."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable
from typing import IO, Any

from tqdm import tqdm

_LOG_INTERVAL_SECONDS = 10.0
# A bar belongs to one process. By default it takes a semaphore of the system, of which Python complains on the terminal
# where a process is ended before it gives that back.
tqdm.set_lock(threading.RLock())


def is_main_rank() -> bool:
    """True in a process that may write to the terminal: the only one, or rank 0 of several (RANK_ID)."""
    return os.environ.get("RANK_ID", "0") in ("", "0")


def say(text: str) -> None:
    """One line on standard output, on rank 0."""
    if is_main_rank():
        print(text, flush=True)


def progress(
    iterable: Iterable[Any] | None = None,
    *,
    total: int | None = None,
    initial: int = 0,
    desc: str,
    unit: str,
) -> tqdm[Any]:
    """A progress bar with ETA on standard error.

    It appears after one second, so that short work stays silent. Where standard error is no terminal (a log file), it
    writes a whole line every ten seconds instead of redrawing one.

    Args:
        iterable: what to walk through; None for a bar that is moved with `.update(n)`.
        total: number of units, where `len(iterable)` does not tell it.
        initial: units that were done before.
        desc: what is being done.
        unit: what is counted.
    """
    terminal = sys.stderr.isatty()
    interval = 0.1 if terminal else _LOG_INTERVAL_SECONDS
    return tqdm(
        iterable,
        total=total,
        initial=initial,
        desc=desc,
        unit=unit,
        delay=1.0,
        mininterval=interval,
        maxinterval=max(interval, 10.0),
        dynamic_ncols=terminal,
        ncols=None if terminal else 100,
        disable=not is_main_rank(),
        file=sys.stderr if terminal else _LogLines(sys.stderr),
    )


class _LogLines:
    """Turns tqdm's carriage returns into lines, so that a log file can be read and grepped."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        # Of two bars at a time, tqdm moves the cursor up for the second; a log has no cursor.
        line = text.replace("\x1b[A", "").strip("\r\n ")
        if line:
            self._stream.write(line + "\n")
        return len(text)

    def flush(self) -> None:
        self._stream.flush()
