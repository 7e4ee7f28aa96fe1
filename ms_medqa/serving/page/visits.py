"""The pages that are open or were lately: how many are kept, and how much may wait for each of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from ms_medqa.serving.errors import ApiError

# Pages that are kept; of more, those go first that are closed.
MOST = 1000
# For a page that has asked to fetch what it is told.
_UNREAD_SECONDS = 20.0
# For one whose connections have gone to come back, as a browser does that slept.
_KEPT_SECONDS = 3600.0
# What an answer to a click takes, in bytes.
_CLICK = 2**14
# How many largest bodies the questions of a page, and of all, may be whose answers have not been fetched. What Gradio
# holds for them is a dozen times as much.
_UNREAD_OF_ONE, _UNREAD_OF_ALL = 2, 16
_LARGEST = 2**20


class Held(Protocol):
    """What is held for pages."""

    def leave(self, name: str) -> None:
        """Stop what runs for a page."""

    def drop(self, name: str) -> None:
        """Throw away what waits for it to be fetched."""

    def settle(self, name: str) -> None:
        """It has fetched everything."""

    def forget(self, name: str) -> None:
        """Throw away all that is held for it."""


@dataclass
class _Visit:
    """An open page.

    Attributes:
        connections: of its own that are open.
        readers: those of them through which it fetches what it is told.
        opened: there has been one.
        unread: bytes of its questions whose answers have not all been fetched.
    """

    connections: int = 0
    readers: int = 0
    opened: bool = False
    unread: int = 0
    dropping: asyncio.TimerHandle | None = None
    forgetting: asyncio.TimerHandle | None = None


class Visits:
    """Keeps what is held for pages within bounds, whatever their clients do. Of the event loop alone.

    A page asks first and then fetches, so a question is taken from one that does not fetch yet, but thrown away where
    it does not begin to.

    Args:
        held: what is to be kept within bounds.
        largest: bytes of the largest body of a request.
    """

    def __init__(self, held: Held, largest: int) -> None:
        self._held = held
        largest = max(largest, _LARGEST)
        self._of_one, self._of_all = _UNREAD_OF_ONE * largest, _UNREAD_OF_ALL * largest
        self._unread = 0
        # The longest unused first.
        self._visits: OrderedDict[str, _Visit] = OrderedDict()

    def ask(self, name: str, size: int) -> None:
        """Count what a page asks.

        Args:
            name: of the page.
            size: bytes of the request's body.

        Raises:
            ApiError: 503, too much waits to be fetched, or too many pages are open.
        """
        known, cost = self._visits.get(name), size + _CLICK
        own = 0 if known is None else known.unread
        for waiting, most in ((own, self._of_one), (self._unread, self._of_all)):
            # The first may be as large as it likes.
            if waiting and waiting + cost > most:
                raise busy("too many answers wait to be fetched")
        visit = self._visit(name)
        visit.unread += cost
        self._unread += cost
        # From its last question on.
        visit.dropping = _ended(visit.dropping)
        self._time(name, visit)

    @contextlib.contextmanager
    def connected(self, name: str, reads: bool) -> Iterator[None]:
        """While a connection of a page is open.

        Args:
            name: of the page.
            reads: it is one through which the page fetches what it is told.

        Raises:
            ApiError: 503, too many pages are open.
        """
        visit = self._visit(name)
        visit.connections += 1
        visit.readers += reads
        visit.opened = True
        self._time(name, visit)
        try:
            yield
        finally:
            visit.connections -= 1
            visit.readers -= reads
            self._time(name, visit)

    def all_read(self, name: str) -> None:
        """A page has fetched everything."""
        visit = self._visits.get(name)
        if visit is not None:
            self._count_read(visit)
            self._held.settle(name)
            self._time(name, visit)

    def _visit(self, name: str) -> _Visit:
        if name not in self._visits:
            while len(self._visits) >= MOST:
                closed = next((other for other, visit in self._visits.items() if not visit.connections), None)
                if closed is None:
                    raise busy("too many pages are open")
                self._forget(closed)
            self._visits[name] = _Visit()
        self._visits.move_to_end(name)
        return self._visits[name]

    def _time(self, name: str, visit: _Visit) -> None:
        """Begin or end the times after which something is thrown away."""
        if self._visits.get(name) is not visit:
            return
        loop = asyncio.get_running_loop()
        if visit.readers or not visit.unread:
            visit.dropping = _ended(visit.dropping)
        else:
            visit.dropping = visit.dropping or loop.call_later(_UNREAD_SECONDS, self._drop, name)
        if visit.connections:
            visit.forgetting = _ended(visit.forgetting)
        else:
            visit.forgetting = visit.forgetting or loop.call_later(_KEPT_SECONDS, self._forget, name)

    def _count_read(self, visit: _Visit) -> None:
        self._unread -= visit.unread
        visit.unread = 0

    def _drop(self, name: str) -> None:
        visit = self._visits[name]
        if not visit.opened:
            self._forget(name)
            return
        self._count_read(visit)
        self._held.leave(name)
        self._held.drop(name)
        self._time(name, visit)

    def _forget(self, name: str) -> None:
        visit = self._visits.pop(name)
        self._count_read(visit)
        visit.dropping, visit.forgetting = _ended(visit.dropping), _ended(visit.forgetting)
        self._held.leave(name)
        self._held.forget(name)


def _ended(timer: asyncio.TimerHandle | None) -> asyncio.TimerHandle | None:
    if timer is not None:
        timer.cancel()
    return None


def busy(message: str) -> ApiError:
    """The server has no room for a page just now."""
    # Of all statuses this is the one for which Gradio's own scripts have words for a person.
    return ApiError(503, message, code="page_busy", headers={"Retry-After": "5"})
