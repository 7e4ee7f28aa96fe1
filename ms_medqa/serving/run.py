"""The running server: its socket, its signals, its end."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType

import uvicorn

from ms_medqa.config.errors import UserError
from ms_medqa.serving.app import build_app
from ms_medqa.serving.errors import stopping
from ms_medqa.serving.protocol import Protocol
from ms_medqa.serving.service import Service

log = logging.getLogger("ms_medqa.serving")
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Of the time for the end, what is kept for telling those who are broken off.
_LAST_SHARE, _LAST_SECONDS = 0.25, 2.0
_POLL_SECONDS = 0.05
# For connections and the process to go.
_CLOSING_SECONDS = 0.5
_BACKLOG = 2048

OnStart = Callable[[Callable[[], object]], object]


def bind(host: str, port: int, has_key: bool) -> socket.socket:
    """A socket that does not listen yet.

    Args:
        host, port: where; port 0 takes a free one.
        has_key: clients must show a key.

    Raises:
        UserError: an address that is not here or taken, or one that others reach while no key is set.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UserError(f"serve.host = {host}: {getattr(error, 'strerror', None) or 'no such address'}") from None
    family, kind, protocol, _, address = found[0]
    if not has_key and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise UserError(
            f"serve.host = {host}: other machines reach this address, and there is no key",
            "give --api-key-file FILE, or serve this machine alone: --host 127.0.0.1",
        )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise _taken(host, port, error) from None
    return listener


def _taken(host: str, port: int, error: OSError) -> UserError:
    option = "--host" if error.errno == errno.EADDRNOTAVAIL else "--port"
    return UserError(f"cannot listen on {host} port {port}: {error.strerror}", f"choose another: {option}")


def serve(service: Service, key: str | None, listener: socket.socket, on_start: OnStart) -> None:
    """Serve until a signal; returns when what was running is done or `serve.drain_seconds` are over.

    Args:
        service: its worker has been started.
        key: see `build_app`.
        listener: from `bind`.
        on_start: called when requests can come, with a function that does what a signal does, from any thread.
    """
    asyncio.run(_serve(service, key, listener, on_start))


async def _serve(service: Service, key: str | None, listener: socket.socket, on_start: OnStart) -> None:
    server = _Server(
        uvicorn.Config(
            build_app(service, key),
            http=Protocol,
            ws="none",
            loop="asyncio",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=_BACKLOG,
        )
    )
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    try:
        # Two may bind a port, as long as none listens.
        listener.listen(_BACKLOG)
    except OSError as error:
        raise _taken(*listener.getsockname()[:2], error) from None
    with _signals(loop, stop):
        running = asyncio.ensure_future(server.serve(sockets=[listener]))
        stopped = asyncio.ensure_future(stop.wait())
        while not (server.started or running.done()):
            await asyncio.sleep(0.01)
        if running.done():
            await running
        on_start(partial(loop.call_soon_threadsafe, stop.set))
        await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not running.done():
            end = time.monotonic() + max(0.0, service.settings.drain_seconds - _CLOSING_SECONDS)
            await _drain(service, end)
            service.over.set()
            # An int to the type, which goes to asyncio as it is.
            server.config.timeout_graceful_shutdown = max(0.1, end - time.monotonic())  # type: ignore[assignment]
            server.should_exit = True
        await running


async def _drain(service: Service, end: float) -> None:
    """Let what runs come to its end, and break off what is left shortly before `end`."""
    service.stopping.set()
    worker = service.worker
    print(f"stopping: {worker.reserved} answers to finish", file=sys.stderr, flush=True)
    kept = min(_LAST_SECONDS, service.settings.drain_seconds * _LAST_SHARE)
    while worker.reserved and time.monotonic() < end - kept:
        await asyncio.sleep(_POLL_SECONDS)
    if worker.reserved:
        log.warning("%d answers are broken off", worker.reserved)
        service.break_off(stopping())


class _Server(uvicorn.Server):
    """Leaves signals to this module."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@contextlib.contextmanager
def _signals(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> Iterator[None]:
    """The first signal sets `stop`, a second one ends the process; outside the main thread there are none."""
    signals = 0

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal signals
        signals += 1
        if signals == 1:
            loop.call_soon_threadsafe(stop.set)
        # A closing terminal sends SIGHUP twice.
        elif number != signal.SIGHUP:
            os._exit(128 + number)

    before: dict[signal.Signals, object] = {}
    with contextlib.suppress(ValueError):
        for number in _SIGNALS:
            # Under nohup SIGHUP is ignored and stays so.
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
