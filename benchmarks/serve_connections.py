"""A client that costs little, for it shares the cores of the server: HTTP/1.1 on connections that are kept."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

_HOST = "127.0.0.1"
# A server closes what is idle for longer, uvicorn after 5 s.
_KEPT_SECONDS = 3.0


class Response:
    """The beginning of a response, and its body as it comes.

    Attributes:
        status: such as 200.
    """

    def __init__(self, head: bytes, reader: asyncio.StreamReader) -> None:
        first, *lines = head.decode("latin-1").split("\r\n")
        self.status = int(first.partition(" ")[2][:3])
        named = (line.split(":", 1) for line in lines if line)
        self._headers = {name.lower(): value.strip().lower() for name, value in named}
        self._reader = reader

    @property
    def stays(self) -> bool:
        """Whether the connection may be used again."""
        return self._headers.get("connection") != "close"

    async def parts(self) -> AsyncIterator[bytes]:
        """The body; must be read to its end."""
        if self._headers.get("transfer-encoding") != "chunked":
            yield await self._reader.readexactly(int(self._headers.get("content-length", "none is told")))
            return
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            yield (await self._reader.readexactly(size + 2))[:-2]
        await self._reader.readexactly(2)

    async def events(self) -> AsyncIterator[bytes]:
        """The data of server-sent events of one line each."""
        rest = b""
        async for part in self.parts():
            *whole, rest = (rest + part).split(b"\n\n")
            for event in whole:
                yield event.removeprefix(b"data: ")


class Connections:
    """Connections to a server of this machine, each for one request at a time.

    Args:
        port: the server's.
        headers: of each request.
    """

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self._port = port
        lines = {"Host": f"{_HOST}:{port}", "Content-Type": "application/json"} | dict(headers)
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        self._idle: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []

    @asynccontextmanager
    async def ask(self, method: str, path: str, body: Any = None) -> AsyncIterator[Response]:
        """Send a request with a JSON body, or none. OSError, EOFError or ValueError: no such response came."""
        data = b"" if body is None else json.dumps(body).encode()
        reader, writer = self._kept() or await asyncio.open_connection(_HOST, self._port)
        try:
            writer.write(
                f"{method} {path} HTTP/1.1\r\n{self._headers}Content-Length: {len(data)}\r\n\r\n".encode() + data
            )
            response = Response(await reader.readuntil(b"\r\n\r\n"), reader)
            yield response
        except BaseException:
            writer.close()
            raise
        if response.stays:
            self._idle.append((time.monotonic(), reader, writer))
        else:
            writer.close()

    def _kept(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        """One that is idle, and not for so long that the server may be about to close it."""
        while self._idle:
            since, reader, writer = self._idle.pop()
            if time.monotonic() - since < _KEPT_SECONDS and not reader.at_eof():
                return reader, writer
            writer.close()
        return None

    def close(self) -> None:
        """Close those that are idle."""
        for _, _, writer in self._idle:
            writer.close()
        self._idle.clear()
