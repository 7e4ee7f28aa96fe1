"""One connection of the server: its errors in the shape of all others, and an end to what only holds it open."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from functools import partial

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ms_medqa.serving.errors import ApiError
from ms_medqa.serving.front import DISCLAIMER

# For the head of a request to arrive: else whoever opens connections and says nothing holds them for ever.
SILENCE_SECONDS = 30.0
# What waits here to be sent, beyond what the system holds, becomes so many bytes less in this time, or nothing. That is
# a slow line. Of a stream only an event waits here: the next one is made when it is gone.
STALL_SECONDS = 60.0
STALL_BYTES = 2**20
# When the server ends, which waits for connections: no faster, but looked at sooner.
LAST_STALL_SECONDS = 5.0
# Of requests behind one that is not answered, what is read ahead.
AHEAD_BYTES = 2**16
_NO_LINGERING = struct.pack("ii", 1, 0)


class Protocol(H11Protocol):
    """Tells what is no HTTP in the shape of all other errors, and lets go who asks for nothing or takes nothing."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._silence, self._stall = _Timer(self.loop), _Timer(self.loop)
        self._ending = False
        # So that `pause_writing` tells of every byte that waits: a transport that is closed waits for its last one.
        transport.set_write_buffer_limits(high=0)
        self._time_silence()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._time_silence()

    def handle_events(self) -> None:
        super().handle_events()
        # Reading ends where the next request comes before this one is answered; but that a client has left is read too.
        unanswered = self.cycle is not None and not (self.cycle.response_complete or self.cycle.more_body)
        if unanswered and self.flow.read_paused and len(self.conn.trailing_data[0]) < AHEAD_BYTES:
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._time_silence()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._time_stall()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stall.stop()

    def shutdown(self) -> None:
        super().shutdown()
        self._ending = True
        if self._stall.runs:
            self._stall.stop()
            self._time_stall()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._silence.stop()
        self._stall.stop()

    def _time_silence(self) -> None:
        """While no request is on its way, the client owes a head, or the rest of a body that nobody reads.

        Behind a response uvicorn has a timer of its own, which the first byte that comes ends.
        """
        if self.cycle is not None and not self.cycle.response_complete:
            self._silence.stop()
        else:
            self._silence.start(SILENCE_SECONDS, self.transport.close)

    def _time_stall(self) -> None:
        seconds = LAST_STALL_SECONDS if self._ending else STALL_SECONDS
        most = self.transport.get_write_buffer_size() - STALL_BYTES * seconds / STALL_SECONDS
        self._stall.start(seconds, partial(self._check_stall, most))

    def _check_stall(self, most: float) -> None:
        if self.transport.get_write_buffer_size() <= most:
            self._time_stall()
        else:
            self._let_go()

    def _let_go(self) -> None:
        connection = self.transport.get_extra_info("socket")
        if connection is not None:
            # The system, too, would go on for minutes to offer what it holds.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGERING)
        self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        # Behind the beginning of a response there is nothing left to say.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            # Whose answer has no body. Until a request's head has come, `scope` is that of the one before.
            of_head = self.conn.our_state is h11.SEND_RESPONSE and self.scope["method"] == "HEAD"
            body = ApiError(400, "the request is not valid HTTP").to_json().encode()
            headers = {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                "Connection": "close",
                "X-Medical-Disclaimer": DISCLAIMER,
            }
            for event in (
                h11.Response(status_code=400, headers=list(headers.items())),
                h11.Data(data=b"" if of_head else body),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        if self.cycle is not None:
            # Whoever is about to answer the request of which this was the body has nobody to answer any more.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


class _Timer:
    """Does something after a while, unless it is stopped before; where it runs, starting it changes nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._handle: asyncio.TimerHandle | None = None

    @property
    def runs(self) -> bool:
        return self._handle is not None

    def start(self, seconds: float, act: Callable[[], object]) -> None:
        if self._handle is None:
            self._handle = self._loop.call_later(seconds, self._act, act)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _act(self, act: Callable[[], object]) -> None:
        self._handle = None
        act()
