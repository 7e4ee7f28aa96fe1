"""What a connection may bring a server, good requests and bad ones, byte by byte."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
PAGE_PATHS = (
    "/",
    "/theme.css",
    "/static/img/logo.svg",
    "/static/../x",
    "/static/none",
    "/static/" + "x" * 300,
    "/assets" + "/x" * 2500,
)
PAGE_HEADERS = (
    "",
    "Origin: http://[\r\n",
    "X-Forwarded-Host: a:b\r\n",
    "X-Gradio-Server: http://a:b\r\n",
    "Range: x\r\n",
)
BLOCK = 65536
PAGE_CALL = "/gradio_api/queue/join"
# Of connections to a server with a key, how many do not show it.
_KEYLESS = 0.1


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
        stays: it does not say that nothing more will come, so that it is for the server to close.
    """

    kind: str
    parts: tuple[bytes, ...]
    answers: int | None = 1
    method: str = "POST"
    pause: float = 0.0
    leave: int | None = None
    stays: bool = False


def request(path: str, body: bytes = b"", headers: str = JSON, method: str = "POST", length: object = None) -> bytes:
    """A request, by default a good one; `length` is what it says of its body's."""
    size = len(body) if length is None else length
    head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {size}\r\n\r\n"
    return head.encode("latin-1") + body


def chat(model: str, **fields: object) -> bytes:
    """A good question."""
    return json.dumps({"model": model, "messages": [QUESTION], "max_tokens": 4} | fields).encode()


def bearer(key: str | None) -> str:
    """The header that shows a key."""
    return "" if key is None else f"Authorization: Bearer {key}\r\n"


def wires(seed: int, models: Sequence[str], max_body: int, key: str | None = None) -> Iterator[Wire]:
    """Connections without end, a function of the seed.

    Args:
        seed: of all choices.
        models: names that the server knows.
        max_body: largest body that it takes, in bytes.
        key: that it wants; most connections show it.
    """
    rng = random.Random(seed)
    makers = _Makers(rng, models, max_body, key)
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
        (makers.body_of_a_get, 2),
        (makers.half_a_body, 1),
        (makers.page, 2),
        (makers.page_call, 4),
        (makers.page_connection, 3),
    ]
    makes, weights = zip(*kinds, strict=True)
    while True:
        yield rng.choices(makes, weights)[0]()


class _Makers:
    """A wire of each kind."""

    def __init__(self, rng: random.Random, models: Sequence[str], max_body: int, key: str | None) -> None:
        self.rng, self.models, self.max_body, self.key = rng, models, max_body, key

    def _shown(self) -> str:
        return "" if self.rng.random() < _KEYLESS else bearer(self.key)

    def _request(self, path: str, body: bytes = b"", headers: str = JSON, **options: Any) -> bytes:
        # Of a larger one the rest may come behind the refusal, and have the connection broken off before that is read.
        shown = self._shown() if len(body) < 4096 else bearer(self.key)
        return request(path, body, shown + headers, **options)

    def _chunked(self, path: str, method: str = "POST") -> bytes:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{self._shown()}{JSON}Transfer-Encoding: chunked\r\n\r\n"
        return head.encode()

    def _cut(self, data: bytes, pieces: int) -> tuple[bytes, ...]:
        places = sorted(self.rng.randrange(len(data)) for _ in range(pieces - 1))
        return tuple(data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True))

    def _mutated(self) -> bytes:
        return self._request(*mutated_body(self.rng, self.models))

    def _long_stream(self) -> bytes:
        return self._request(CHAT, chat(self.models[0], stream=True, temperature=2.0, max_tokens=300, n=2))

    def body(self) -> Wire:
        return Wire("changed body", (self._mutated(),))

    def value(self) -> Wire:
        path, value = self.rng.choice((CHAT, PLAIN)), self.rng.choice(VALUES)[: self.max_body]
        return Wire("odd JSON", (self._request(path, value),))

    def large(self) -> Wire:
        filler = b" " * BLOCK
        blocks = self.max_body // BLOCK + 2
        if self.rng.random() < 0.5:
            return Wire("large body", (self._request(CHAT, length=self.max_body + 1), filler), None)
        return Wire("large body", (self._chunked(CHAT), *[b"10000\r\n" + filler + b"\r\n"] * blocks), None)

    def path(self) -> Wire:
        method, path = self.rng.choice(METHODS), self.rng.choice((*PATHS, CHAT, "/health", "/metrics"))
        return Wire("path or method", (self._request(path, method=method),), method=method)

    def headers(self) -> Wire:
        if self.rng.random() < 0.3:
            flood = "".join(f"X-{number}: {'y' * 100}\r\n" for number in range(self.rng.choice((100, 2000))))
            return Wire("headers", (self._request(PLAIN, headers=flood),), None)
        kinds = (*HEADERS, "Content-Type: text/plain", "Content-Type: application/json; x" + "x" * 5000)
        lines = "".join(f"{self.rng.choice(kinds)}\r\n" for _ in "ab")
        return Wire("headers", (self._request(PLAIN, b"{}", lines),), None)

    def no_http(self) -> Wire:
        data = self.rng.choice((*NO_HTTP, self.rng.randbytes(200), b"GET /" + b"x" * 100_000))
        return Wire("no HTTP", (data,), None, "GET", leave=0 if self.rng.random() < 0.2 else None)

    def length(self) -> Wire:
        body = chat(self.models[0])
        size = self.rng.choice((-1, "x", "1, 2", "+5", len(body) - 9, len(body) + 9, 10**30, 0, ""))
        twice = self.rng.choice(("", "Content-Length: 3\r\n", "Transfer-Encoding: chunked\r\n"))
        return Wire("wrong length", (self._request(CHAT, body, JSON + twice, length=size),), None)

    def chunked(self) -> Wire:
        method, path = self.rng.choice((("POST", PLAIN), ("HEAD", PLAIN), ("HEAD", "/health")))
        # In one part too: then the head is not answered before its body comes.
        parts = (self._chunked(path, method), self.rng.choice(CHUNKS))
        return Wire("odd chunks", self.rng.choice((parts, (b"".join(parts),))), None, method)

    def slow(self) -> Wire:
        path, body = mutated_body(self.rng, self.models)
        return Wire("slow", self._cut(request(path, body, bearer(self.key) + JSON), 8), pause=0.02)

    def pipelined(self) -> Wire:
        count = self.rng.randrange(2, 6)
        # Behind one that is refused unread the rest is not looked at.
        headers = bearer(self.key) + JSON
        whole = b"".join(request(CHAT, chat(self.models[0], temperature=0), headers) for _ in range(count))
        return Wire("pipelined", self._cut(whole, 2), count)

    def leaves(self) -> Wire:
        data = self._mutated()
        return Wire("leaves", (data[: self.rng.randrange(1, len(data) + 1)],), None, leave=0)

    def leaves_stream(self) -> Wire:
        return Wire("leaves a stream", (self._long_stream(),), None, leave=self.rng.choice((1, 400, 2000)))

    def does_not_read(self) -> Wire:
        return Wire("does not read", (self._long_stream(), b""), None, pause=0.2, leave=0)

    def body_of_a_get(self) -> Wire:
        path = self.rng.choice(("/health", "/metrics", "/v1/models", "/none"))
        headers, length = self.rng.choice((("", 10), ("", 10**11), ("Transfer-Encoding: chunked\r\n", 1)))
        head = self._request(path, headers=headers, method="GET", length=length)
        return Wire("body of a GET", (head, b"x"), None, "GET", pause=0.2, stays=True)

    def half_a_body(self) -> Wire:
        data = self._mutated()
        return Wire("half a body", (data[: len(data) - 2],), None)

    def page(self) -> Wire:
        path, headers = self.rng.choice(PAGE_PATHS), self.rng.choice(PAGE_HEADERS)
        return Wire("page", (self._request(path, headers=headers, method="GET"),), method="GET")

    def page_call(self) -> Wire:
        values: list[Any] = ["en", None, self.models[0], "", "糖尿病", "", 0, 0.9, 0, 0, 1.0, 4, ""]
        if self.rng.random() < 0.7:
            values[self.rng.randrange(len(values))] = self.rng.choice((None, True, -1, 1e9, "x", "&" * 20_000))
        if self.rng.random() < 0.3:
            values = values[: self.rng.randrange(len(values))]
        name: Any = f"{self.rng.randrange(10**9):x}"
        if self.rng.random() < 0.2:
            name = self.rng.choice(("", "../x", None, 1))
        function = 0 if self.rng.random() < 0.7 else self.rng.choice((1, 5, 99, -1, "0", None))
        call = {"data": values, "fn_index": function, "session_hash": name, "event_data": "x" * 100, "trigger_id": 1}
        return Wire("page call", (self._request(PAGE_CALL, json.dumps(call).encode()),))

    def page_connection(self) -> Wire:
        name = f"{self.rng.randrange(10**9):x}"
        path = self.rng.choice((f"/gradio_api/heartbeat/{name}", f"/gradio_api/queue/data?session_hash={name}"))
        return Wire("page connection", (self._request(path, headers="", method="GET"),), None, "GET", leave=1)
