"""TensorBoard's event file."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Writing through to the disk at each step would be slow on a network file system.
_FLUSH_SECONDS = 60.0


class Board:
    """Scalars in a new event file of a folder, written in the calling thread, which so learns of a full disk.

    tensorboardX's own `SummaryWriter` writes in a thread; where a full disk ends that, the next scalars wait for it
    for ever, even when there is room again.

    Args:
        folder: made when it is not there.
        purge_step: scalars of this step and later ones in earlier files are of a course that was given up.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        with _without_torch():
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto.event_pb2 import SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._writer = EventsWriter(str(folder / "events"))
        self._flushed = time.monotonic()
        if purge_step is not None:
            self._event(purge_step, session_log=SessionLog(status=SessionLog.START))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write some scalars of a step, by their tags."""
        from tensorboardX.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        self._event(step, summary=Summary(value=scalars))
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self._flushed = time.monotonic()
            self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()

    def _event(self, step: int, **content: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._writer.write_event(Event(wall_time=time.time(), step=step, **content))


@contextlib.contextmanager
def _without_torch() -> Iterator[None]:
    """As if PyTorch were not installed: tensorboardX imports it where it can, a second that no scalar needs."""
    hide = "torch" not in sys.modules
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if hide:
            del sys.modules["torch"]
