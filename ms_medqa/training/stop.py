"""A platform takes the machine back: SIGTERM ends a run after its step, with a checkpoint to resume from."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType


class StopRequest:
    """Inside the block SIGTERM is noted, not obeyed; outside it does what it did before.

    Attributes:
        made: whether it has come, to this process.
    """

    def __init__(self) -> None:
        self.made = False

    def __enter__(self) -> StopRequest:
        # Only the main thread may set handlers.
        self._takes = threading.current_thread() is threading.main_thread()
        if self._takes:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._takes:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.made = True
