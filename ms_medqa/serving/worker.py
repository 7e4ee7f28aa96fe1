"""The thread that owns the core: between two steps it takes in what is new and lets go what has left."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from ms_medqa.config.errors import UserError
from ms_medqa.serving.core import Core
from ms_medqa.serving.errors import ApiError, internal, invalid, log_failure
from ms_medqa.serving.job import Accepted, Event, Job, Ticket
from ms_medqa.serving.metrics import Metrics

log = logging.getLogger("ms_medqa.serving")
_POLL_SECONDS = 0.1


class Worker:
    """Runs tickets on a core.

    Args:
        make_core: called once, on the thread that will own the core.
        max_queue: answers that may wait beyond those that the core has rows for.
        metrics: where tokens are counted.
    """

    def __init__(self, make_core: Callable[[], Core], max_queue: int, metrics: Metrics) -> None:
        self._make_core = make_core
        self._max_queue = max_queue
        self._metrics = metrics
        self._inbox: queue.SimpleQueue[Callable[[Core], object] | None] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._failed: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="core", daemon=True)
        self._lock = threading.Lock()
        self._reserved = 0
        # What follows is the thread's own.
        self._waiting: deque[tuple[Ticket, Job]] = deque()
        self._running: dict[int, tuple[Ticket, Job]] = {}
        self._outbox: list[tuple[Ticket, Event]] = []
        self.capacity = 0
        metrics.gauges |= {
            "medqa_running": ("Answers that are being made.", lambda: self.running),
            "medqa_queued": ("Answers that wait for a row.", lambda: max(0, self.reserved - self.running)),
        }

    @property
    def running(self) -> int:
        """Answers that are being made."""
        return len(self._running)

    @property
    def reserved(self) -> int:
        """Answers that have a place in the queue, or run."""
        return self._reserved

    @property
    def alive(self) -> bool:
        """The thread is there and takes requests."""
        return self.capacity > 0 and self._thread.is_alive()

    def start(self, wait: Callable[[], object] | None = None) -> None:
        """Make the core; returns when it is ready, and raises what its making raised.

        Args:
            wait: called again and again meanwhile; what it raises ends the wait, and not the thread.
        """
        self._thread.start()
        while not self._ready.wait(_POLL_SECONDS):
            if wait is not None:
                wait()
        if self._failed is not None:
            raise self._failed

    def submit(self, ticket: Ticket, places: Places) -> None:
        """Queue a request; its first event is `Accepted` or an error.

        Args:
            ticket: the request.
            places: that it has in the queue, or takes now: as many as it has answers.

        Raises:
            ApiError: 429, the queue is full.
        """
        places.take(len(ticket.jobs))
        places.hand_over()
        self._inbox.put(lambda core: self._enter(core, ticket))

    def check_room(self) -> None:
        """Raise 429 where no more answers may wait."""
        if self._reserved >= self.capacity:
            raise _full()

    def reserve(self, answers: int) -> None:
        """Keep places for so many more answers, or for fewer, below 0; raise 429 where there are not so many."""
        with self._lock:
            if answers > 0 and self._reserved + answers > self.capacity:
                raise _full()
            self._reserved += answers

    def cancel(self, ticket: Ticket) -> None:
        """Drop a request before the next step; does nothing where it is over."""
        self._inbox.put(lambda core: self._drop(core, ticket))

    def stop(self, seconds: float) -> bool:
        """End the thread; False where it still makes the core, or is inside a step, after so long."""
        self._inbox.put(None)
        if self._thread.ident is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _main(self) -> None:
        try:
            core = self._make_core()
            self.capacity = core.free + self._max_queue
        except BaseException as error:  # belongs to whoever called start
            self._failed = error
            return
        finally:
            self._ready.set()
        while True:
            try:
                if not self._take_in(core):
                    return
                self._fill(core)
                if self._running:
                    self._step(core)
                self._deliver()
            except Exception as error:
                # Without this thread every later request would wait in vain.
                log_failure("the core failed", error)
                self._fail_all(core, internal(), waiting=True)
                self._deliver()

    def _take_in(self, core: Core) -> bool:
        """Do what the inbox asks, waiting for it only where there is nothing else to do; False at the end."""
        block = not (self._running or self._waiting)
        while True:
            try:
                action = self._inbox.get(block)
            except queue.Empty:
                return True
            if action is None:
                return False
            action(core)
            # An error should not wait for a step, and a refused request leaves nothing to step for.
            self._deliver()
            block = not (self._running or self._waiting)

    def _enter(self, core: Core, ticket: Ticket) -> None:
        try:
            for job in ticket.jobs:
                core.check(job.request)
        except Exception as error:
            self._fail(core, ticket, _as_api_error(error))
            return
        self._outbox.append((ticket, Accepted()))
        self._waiting.extend((ticket, job) for job in ticket.jobs)

    def _fill(self, core: Core) -> None:
        """Give free rows to those who wait, in the order in which they came."""
        while self._waiting and core.free > 0:
            ticket, job = self._waiting.popleft()
            try:
                job.running = core.add(job.request)
            except Exception as error:
                self._fail(core, ticket, _as_api_error(error))
                continue
            self._running[id(job.running)] = (ticket, job)
            if job.request.stream == 0:
                self._metrics.prompt(len(job.request.prompt))
        if self._waiting and not self._running:
            log.error("the core has no row left, though none is taken")
            self._fail_all(core, internal(), waiting=True)

    def _step(self, core: Core) -> None:
        try:
            outputs = core.step()
        except Exception as error:
            log_failure(f"a step of the core failed; {len(self._running)} answers are lost", error)
            self._metrics.failure()
            self._fail_all(core, internal(), waiting=False)
            return
        now = time.monotonic()
        for output in outputs:
            # A neighbour in the same request may have failed a moment ago and taken this one along.
            ticket, job = self._running.get(id(output.running), (None, None))
            if ticket is None or job is None:
                continue
            if output.error is not None:
                del self._running[id(output.running)]
                log_failure("the model failed at an answer", output.error)
                self._metrics.failure()
                # Of its own answers alone, so that a prompt at which a model fails costs nobody else's.
                self._fail(core, ticket, internal())
                continue
            try:
                piece = job.take(output)
            except Exception as error:
                if output.finish is not None:
                    del self._running[id(output.running)]
                log_failure("an answer's text failed", error)
                self._fail(core, ticket, internal())
                continue
            if output.choice is not None:
                before = ticket.began if job.last_token is None else job.last_token
                self._metrics.token(now - before, first=job.last_token is None)
                job.last_token = now
            if piece.finish is not None:
                del self._running[id(output.running)]
                if output.finish is None:
                    self._remove(core, job)
                self._release(ticket, 1)
            if piece.text or piece.scored or piece.finish is not None:
                self._outbox.append((ticket, piece))

    def _fail_all(self, core: Core, error: ApiError, waiting: bool) -> None:
        pairs = [*self._running.values(), *(self._waiting if waiting else ())]
        for ticket in {id(ticket): ticket for ticket, _ in pairs}.values():
            self._fail(core, ticket, error)

    def _fail(self, core: Core, ticket: Ticket, error: ApiError) -> None:
        if ticket.left:
            self._outbox.append((ticket, error))
        self._drop(core, ticket)

    def _drop(self, core: Core, ticket: Ticket) -> None:
        if not ticket.left:
            return
        self._waiting = deque(pair for pair in self._waiting if pair[0] is not ticket)
        for key, (other, job) in list(self._running.items()):
            if other is ticket:
                del self._running[key]
                self._remove(core, job)
        self._release(ticket, ticket.left)

    def _remove(self, core: Core, job: Job) -> None:
        try:
            core.remove(job.running)
        except Exception as error:
            log_failure("the core could not free a row", error)

    def _release(self, ticket: Ticket, jobs: int) -> None:
        ticket.left -= jobs
        self.reserve(-jobs)

    def _deliver(self) -> None:
        """Hand the events to the loops that wait for them, each woken once."""
        loops: dict[asyncio.AbstractEventLoop, list[tuple[Ticket, Event]]] = {}
        for ticket, event in self._outbox:
            loops.setdefault(ticket.loop, []).append((ticket, event))
        self._outbox = []
        for loop, events in loops.items():
            # A loop that has been closed has nobody left to tell.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(_put, events)


class Places:
    """What a request takes of the queue before its prompts are encoded, so that no more are than may wait.

    As a context, what has not been handed over is given back at its end.

    Args:
        worker: whose queue it is.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._count = 0

    def __enter__(self) -> Places:
        return self

    def __exit__(self, *error: object) -> None:
        self.take(0)

    def take(self, answers: int) -> None:
        """Have places for so many answers.

        Raises:
            ApiError: 429, there are not so many.
        """
        self._worker.reserve(answers - self._count)
        self._count = answers

    def hand_over(self) -> None:
        """From now on they are the ticket's, whose answers give them back one by one."""
        self._count = 0


def _full() -> ApiError:
    return ApiError(429, "too many requests are waiting: come back later", headers={"Retry-After": "5"})


def _put(events: list[tuple[Ticket, Event]]) -> None:
    for ticket, event in events:
        ticket.put(event)


def _as_api_error(error: Exception) -> ApiError:
    if isinstance(error, UserError):
        return invalid(str(error))
    log_failure("a request failed", error)
    return internal()
