"""What a connection may bring a server, good requests and bad ones, byte by byte."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hostile_bodies import CHAT, PLAIN, QUESTION, mutated_body

JSON = "Content-Type: application/json\r\n"
PATHS = (
    "/",
    "/v1",
    "/%ff",
    "/..%2f..%2fetc",
    "/v1//models",
    "/v1/models/%00",
    "/health?x=" + "y" * 900,
    "/v1/models/x",
)
METHODS = ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "MADEUP", "CONNECT")
HEADERS = (
    "Host: evil.example",
    "Authorization: Bearer \xff",
    "Upgrade: websocket",
    "Expect: 100-continue",
    "X:",
    "A: b",
)
NO_HTTP = (
    b"\x16\x03\x01 hello",
    b"\r\n\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost localhost\r\n\r\n",
    b"GET /health HTTP/1.1\r\n folded\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)
CHUNKS = (
    b"nothing\r\n",
    b"-1\r\nx\r\n",
    b"ffffffffffffffffffff\r\nx",
    b"5\r\n{}\r\n0\r\n\r\n",
    b"2\r\n{}0\r\n\r\n",
    b"2;x=" + b"y" * 70_000,
    b"0\r\nTrailer: x\r\n\r\n",
    b"2\r\n{}\r\n0\r\n" + b"T: x\r\n" * 20_000,
)
VALUES = (
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"seed":' + b"9" * 20_000 + b"}",
    b'{"temperature":1e99999}',
    b'{"n":NaN}',
    b'{"\\udc00":1}',
    b"\xff\xfe{}",
    b"\xef\xbb\xbf{}",
    b"null",
    b'"text"',
    b"",
)
BLOCK = 65536


@dataclass(frozen=True)
class Wire:
    """One connection of a client.

    Attributes:
        kind: what it tries.
        parts: bytes that it sends, one part after the other.
        answers: responses that have to come; None where the server may as well close.
        method: of its requests; `HEAD` has no body in its response.
        pause: seconds between two parts.
        leave: bytes of responses at which it leaves; None stays to the end, 0 leaves as soon as all is sent.
    """

    kind: str
    parts: tuple[bytes, ...]
    answers: int | None = 1
    method: str = "POST"
    pause: float = 0.0
    leave: int | None = None


def request(path: str, body: bytes = b"", headers: str = JSON, method: str = "POST", length: object = None) -> bytes:
    """A request, by default a good one; `length` is what it says of its body's."""
    size = len(body) if length is None else length
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {size}\r\n\r\n"
    return head.encode("latin-1") + body


def chat(model: str, **fields: object) -> bytes:
    """A good question."""
    return json.dumps({"model": model, "messages": [QUESTION], "max_tokens": 4} | fields).encode()


def wires(seed: int, models: Sequence[str], max_body: int) -> Iterator[Wire]:
    """Connections without end, a function of the seed.

    Args:
        seed: of all choices.
        models: names that the server knows.
        max_body: largest body that it takes, in bytes.
    """
    rng = random.Random(seed)
    makers = _Makers(rng, models, max_body)
    kinds: list[tuple[Callable[[], Wire], int]] = [
        (makers.body, 50),
        (makers.value, 6),
        (makers.large, 1),
        (makers.path, 8),
        (makers.headers, 5),
        (makers.no_http, 6),
        (makers.length, 5),
        (makers.chunked, 4),
        (makers.slow, 2),
        (makers.pipelined, 3),
        (makers.leaves, 6),
        (makers.leaves_stream, 3),
        (makers.does_not_read, 1),
    ]
    makes, weights = zip(*kinds, strict=True)
    while True:
        yield rng.choices(makes, weights)[0]()


class _Makers:
    """A wire of each kind."""

    def __init__(self, rng: random.Random, models: Sequence[str], max_body: int) -> None:
        self.rng, self.models, self.max_body = rng, models, max_body

    def _cut(self, data: bytes, pieces: int) -> tuple[bytes, ...]:
        places = sorted(self.rng.randrange(len(data)) for _ in range(pieces - 1))
        return tuple(data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True))

    def _mutated(self) -> bytes:
        return request(*mutated_body(self.rng, self.models))

    def _long_stream(self) -> bytes:
        return request(CHAT, chat(self.models[0], stream=True, temperature=2.0, max_tokens=300, n=2))

    def body(self) -> Wire:
        return Wire("changed body", (self._mutated(),))

    def value(self) -> Wire:
        return Wire("odd JSON", (request(self.rng.choice((CHAT, PLAIN)), self.rng.choice(VALUES)[: self.max_body]),))

    def large(self) -> Wire:
        filler = b" " * BLOCK
        blocks = self.max_body // BLOCK + 2
        if self.rng.random() < 0.5:
            return Wire("large body", (request(CHAT, length=self.max_body + 1), filler), None)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n".encode()
        return Wire("large body", (head, *[b"10000\r\n" + filler + b"\r\n"] * blocks), None)

    def path(self) -> Wire:
        method, path = self.rng.choice(METHODS), self.rng.choice((*PATHS, CHAT, "/health", "/metrics"))
        return Wire("path or method", (request(path, method=method),), method=method)

    def headers(self) -> Wire:
        if self.rng.random() < 0.3:
            flood = "".join(f"X-{number}: {'y' * 100}\r\n" for number in range(self.rng.choice((100, 2000))))
            return Wire("headers", (request(PLAIN, headers=flood),), None)
        kinds = (*HEADERS, "Content-Type: text/plain", "Content-Type: application/json; x" + "x" * 5000)
        return Wire("headers", (request(PLAIN, b"{}", "".join(f"{self.rng.choice(kinds)}\r\n" for _ in "ab")),), None)

    def no_http(self) -> Wire:
        data = self.rng.choice((*NO_HTTP, self.rng.randbytes(200), b"GET /" + b"x" * 100_000))
        return Wire("no HTTP", (data,), None, "GET", leave=0 if self.rng.random() < 0.2 else None)

    def length(self) -> Wire:
        body = chat(self.models[0])
        size = self.rng.choice((-1, "x", "1, 2", "+5", len(body) - 9, len(body) + 9, 10**30, 0, ""))
        twice = self.rng.choice(("", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"))
        return Wire("wrong length", (request(CHAT, body, JSON + twice, length=size),), None)

    def chunked(self) -> Wire:
        head = f"POST {PLAIN} HTTP/1.1\r\nHost: localhost\r\n{JSON}Transfer-Encoding: chunked\r\n\r\n".encode()
        return Wire("odd chunks", (head, self.rng.choice(CHUNKS)), None)

    def slow(self) -> Wire:
        return Wire("slow", self._cut(self._mutated(), 8), pause=0.02)

    def pipelined(self) -> Wire:
        count = self.rng.randrange(2, 6)
        whole = b"".join(request(CHAT, chat(self.models[0], temperature=0)) for _ in range(count))
        return Wire("pipelined", self._cut(whole, 2), count)

    def leaves(self) -> Wire:
        data = self._mutated()
        return Wire("leaves", (data[: self.rng.randrange(1, len(data) + 1)],), None, leave=0)

    def leaves_stream(self) -> Wire:
        return Wire("leaves a stream", (self._long_stream(),), None, leave=self.rng.choice((1, 400, 2000)))

    def does_not_read(self) -> Wire:
        return Wire("does not read", (self._long_stream(), b""), None, pause=0.2, leave=0)
