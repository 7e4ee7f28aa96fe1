"""A platform takes the machine back: SIGTERM ends a run after its step, with a checkpoint to resume from."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

import numpy as np

from ms_medqa.backend.distributed import World, sum_over_ranks


class StopRequest:
    """Inside the block SIGTERM is noted, not obeyed; outside it does what it did before."""

    def __init__(self) -> None:
        self._asked = False

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
        self._asked = True

    def was_made(self, world: World) -> bool:
        """Whether any rank was asked to stop; all ranks must ask at the same step, and get the same answer."""
        return bool(sum_over_ranks(np.array([float(self._asked)]), world)[0])
