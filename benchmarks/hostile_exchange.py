"""Sends what `hostile_wire` makes, and judges what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import h11
from hostile_wire import BLOCK, Wire


@dataclass
class Outcome:
    """What came back.

    Attributes:
        statuses: of the responses that came whole.
        fault: what the server did wrong, None for nothing.
    """

    statuses: list[int] = field(default_factory=list)
    fault: str | None = None


class Responses:
    """Reads the responses of a connection, of which h11 is told that each has been asked for."""

    def __init__(self, method: str) -> None:
        self.whole: list[tuple[int, bytes]] = []
        self._method = method
        self._connection = h11.Connection(h11.CLIENT)
        self._ask()

    def _ask(self) -> None:
        # Of CONNECT h11 thinks that what follows is no HTTP.
        method = "GET" if self._method == "CONNECT" else self._method
        self._connection.send(h11.Request(method=method, target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
        self._connection.send(h11.EndOfMessage())
        self._status, self._body = 0, bytearray()

    def feed(self, data: bytes) -> None:
        """Take what came, nothing at the end; raises RemoteProtocolError where it is no HTTP."""
        self._connection.receive_data(data)
        while True:
            event = self._connection.next_event()
            if isinstance(event, h11.Response):
                self._status = event.status_code
            elif isinstance(event, h11.Data):
                self._body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.whole.append((self._status, bytes(self._body)))
                if self._connection.states != {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
                    return
                self._connection.start_next_cycle()
                self._ask()
            elif not isinstance(event, h11.InformationalResponse):
                return


async def exchange(port: int, wire: Wire, seconds: float) -> Outcome:
    """Send what a wire brings to a server on this machine, and judge what comes back.

    Args:
        port: of the server.
        wire: what to send.
        seconds: in which everything has to come.
    """
    outcome, responses = Outcome(), Responses(wire.method)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        await asyncio.wait_for(_converse(reader, writer, wire, responses), seconds)
    except (asyncio.TimeoutError, TimeoutError):
        outcome.fault = f"not done within {seconds:g} s"
    except h11.RemoteProtocolError as error:
        # Who leaves, or is closed on while still sending, may have half a response.
        outcome.fault = None if wire.answers is None else f"the response is no HTTP: {error}"
    finally:
        writer.transport.abort()
    outcome.statuses = [status for status, _ in responses.whole]
    outcome.fault = outcome.fault or _fault(wire, responses.whole)
    return outcome


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire, responses: Responses
) -> None:
    # A server that has heard enough closes, also while the rest is on its way.
    with contextlib.suppress(ConnectionError):
        for part in wire.parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(wire.pause)
    received = 0
    if wire.answers is None and wire.leave is None and not wire.stays:
        # Nothing more will come, so that a server that waits for the rest need not.
        with contextlib.suppress(OSError):
            writer.write_eof()
    with contextlib.suppress(ConnectionError):
        while len(responses.whole) < (wire.answers or 10**6) and (wire.leave is None or received < wire.leave):
            data = await reader.read(BLOCK)
            received += len(data)
            responses.feed(data)
            if not data:
                return


def _fault(wire: Wire, whole: Sequence[tuple[int, bytes]]) -> str | None:
    if wire.answers is not None and len(whole) < wire.answers:
        return f"{len(whole)} of {wire.answers} responses"
    return next((fault for status, body in whole if (fault := _response_fault(wire, status, body))), None)


def _response_fault(wire: Wire, status: int, body: bytes) -> str | None:
    if not (200 <= status < 300 or 400 <= status < 500 or status == 503):
        return f"status {status}: {body[:200]!r}"
    if wire.method == "HEAD":
        return None
    if status >= 400:
        with contextlib.suppress(ValueError):
            if set(json.loads(body)) == {"error"}:
                return None
        return f"status {status} without an error of OpenAI's shape: {body[:200]!r}"
    if body.startswith(b"data: ") and (not body.endswith(b"data: [DONE]\n\n") or b'"error":' in body):
        return f"a stream that ends in {body[-200:]!r}"
    return None


class Unread:
    """Connections whose answers nobody reads, held open until `close`.

    Args:
        port: of a server on this machine.
        requests: what each of them asks.
    """

    def __init__(self, port: int, requests: Sequence[bytes]) -> None:
        self._sockets = [socket.socket() for _ in requests]
        for connection, data in zip(self._sockets, requests, strict=True):
            # The less this side takes, the more the other is left with.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", port))
            connection.sendall(data)

    def left(self, seconds: float) -> int:
        """How many of them the server still holds after so long, or as soon as there are none."""
        poll, end = select.poll(), time.monotonic() + seconds
        for connection in self._sockets:
            # Without reading, which would let it send more: that the other side has gone is told in any case.
            poll.register(connection, 0)
        while (left := len(self._sockets) - len(poll.poll(0))) and time.monotonic() < end:
            time.sleep(0.1)
        return left

    def close(self) -> None:
        """Leave."""
        for connection in self._sockets:
            connection.close()
