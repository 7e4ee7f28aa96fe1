"""Threads for what takes long with a text."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

_Result = TypeVar("_Result")
# Bytes from which the others' tokens must not wait for it.
_LONG = 2**16
_POLL_SECONDS = 0.01


class TextThreads:
    """Threads in which a long text is read, encoded or written, so that others' tokens go out meanwhile.

    They are not those of the event loop, which waits at its end for whatever they do.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(min(32, (os.cpu_count() or 1) + 4), thread_name_prefix="text")
        self._lock = threading.Lock()
        self._running = 0

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """The result of `work`, done in a thread; work that has not begun is dropped where nobody waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._counted, work)

    async def run_long(self, size: int, work: Callable[[], _Result]) -> _Result:
        """The same, where it is worth a thread.

        Args:
            size: bytes that it has to do with, roughly.
            work: what is done.
        """
        return work() if size < _LONG else await self.run(work)

    def stop(self, seconds: float) -> bool:
        """Take no more work; False where some goes on after so long."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        end = time.monotonic() + seconds
        while self._running and time.monotonic() < end:
            time.sleep(_POLL_SECONDS)
        return not self._running

    def _counted(self, work: Callable[[], _Result]) -> _Result:
        with self._lock:
            self._running += 1
        try:
            return work()
        finally:
            with self._lock:
                self._running -= 1
