"""Work that is broken off where something else comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

_Result = TypeVar("_Result")


class Overtaken(Exception):
    """Something came before the end of the work.

    Args:
        by: place of the rival that did; None where it was the time.
    """

    def __init__(self, by: int | None) -> None:
        super().__init__()
        self.by = by


async def race(work: Awaitable[_Result], *rivals: Awaitable[object], seconds: float | None = None) -> _Result:
    """The result of `work`, which is cancelled where a rival ends or the time is over before it.

    Args:
        work: what is done.
        rivals: cancelled where they come later.
        seconds: for the work; None: as long as it takes.

    Raises:
        Overtaken: it is not done.
    """
    task = asyncio.ensure_future(work)
    others = [asyncio.ensure_future(rival) for rival in rivals]
    try:
        await asyncio.wait({task, *others}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Overtaken(next((place for place, other in enumerate(others) if other.done()), None))
        return task.result()
    finally:
        for each in (task, *others):
            each.cancel()
        # A task that is cancelled still has to end its own clean-up. That the race itself is cancelled meanwhile is not
        # lost here, as it would be if each were awaited and its cancellation suppressed.
        await asyncio.gather(task, *others, return_exceptions=True)
