"""A real server on a port of this machine: streams side by side, clients that leave, connections of all kinds."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import time

import pytest
from serving_client import error_of, events
from serving_fakes import running, wait_for
from serving_wire import ENDLESS_BODY, HEAD, Make, port_of, post, request

from ms_medqa.config.errors import UserError


def test_an_address_that_is_not_here_and_a_port_that_is_taken_are_told_apart() -> None:
    from ms_medqa.serving.run import bind

    # That address is for documentation alone.
    with pytest.raises(UserError, match=r"192\.0\.2\.1 .*--host$"), bind("192.0.2.1", 0, has_key=True):
        pass
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"{port}.*--port$"), bind("127.0.0.1", port, has_key=False):
            pass


def test_64_streams_side_by_side_are_neither_crossed_nor_lost(make: Make) -> None:
    import httpx

    fixture = make(rows=8, seconds=0.001, max_queue=64)
    texts = [f"client {number}: 糖尿病患者可以吃水果吗？{'一二三' * (number % 5)}" for number in range(64)]

    async def ask(client: httpx.AsyncClient, text: str) -> str:
        body = {"model": "base", "prompt": text, "max_tokens": 500, "stream": True}
        response = await client.post("/v1/completions", json=body)
        assert response.status_code == 200
        choices = [chunk["choices"][0] for chunk in events(response.text)]
        assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
        return "".join(choice["text"] for choice in choices)

    async def ask_all(address: str) -> list[str]:
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=address, timeout=30, limits=limits) as client:
            return await asyncio.gather(*(ask(client, text) for text in texts))

    with running(fixture) as address:
        assert asyncio.run(ask_all(address)) == texts
        fixture.wait_idle()
    assert fixture.core.most == 8


def test_a_new_request_joins_while_another_runs(make: Make) -> None:
    import httpx

    fixture = make(rows=2, seconds=0.005)
    with running(fixture) as address, httpx.Client(base_url=address, timeout=20) as client:
        with client.stream("POST", "/v1/completions", json=ENDLESS_BODY | {"stream": True}) as response:
            lines = response.iter_lines()
            next(lines)
            # The long one goes on; the short one is not behind it.
            assert (
                post(address, {"model": "base", "prompt": "短", "max_tokens": 20}).json()["choices"][0]["text"] == "短"
            )
            assert len(fixture.core.rows) == 1
            next(lines)
        fixture.wait_idle()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("queued", [False, True])
def test_a_client_that_leaves_gives_its_row_back(make: Make, stream: bool, queued: bool) -> None:
    fixture = make(rows=1, seconds=0.005)
    body = json.dumps(ENDLESS_BODY | {"stream": stream}).encode()
    with running(fixture) as address:
        clients = [socket.create_connection(("127.0.0.1", port_of(address))) for _ in range(1 + queued)]
        for number, client in enumerate(clients, start=1):
            client.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            wait_for(lambda number=number: fixture.service.worker.reserved == number)
            # A place is taken before the prompt is encoded: the second might be encoded first, and run instead.
            wait_for(lambda: fixture.core.rows)
        first, steps = fixture.core.rows[0], fixture.core.steps
        # The one that waits leaves first, and the one that runs is not touched by it.
        clients[-1].close()
        wait_for(lambda: fixture.service.worker.reserved == queued)
        assert fixture.core.rows == ([first] if queued else [])
        clients[0].close()
        fixture.wait_idle()
        assert fixture.core.steps - steps < 200
        assert post(address, {"model": "base", "prompt": "短"}).status_code == 200


@pytest.mark.parametrize("before", [False, True])
def test_a_client_that_has_sent_more_and_leaves_gives_its_row_back(make: Make, before: bool) -> None:
    fixture = make(rows=1, seconds=0.005)
    short, long = (request(ENDLESS_BODY | each) for each in ({"max_tokens": 3}, {}))
    with running(fixture) as address, socket.create_connection(("127.0.0.1", port_of(address))) as client:
        # What comes behind the long one may be there before its turn, or come when the server watches for its client.
        client.sendall(short + long + HEAD.encode() if before else long)
        wait_for(lambda: any(row.made > 10 for row in list(fixture.core.rows)))
        client.sendall(HEAD.encode())
        time.sleep(0.1)
        assert fixture.core.rows
        client.close()
        fixture.wait_idle()
        assert fixture.core.steps < 500


def test_requests_that_come_together_are_answered_in_turn(make: Make) -> None:
    fixture = make(rows=1, seconds=0.005, max_body_bytes=2**20)
    # Of a body that is longer than what is read ahead of its turn, the rest is read later.
    sizes = {9: 0, 3: 9, 20: 500_000}
    requests = [request(ENDLESS_BODY | {"max_tokens": most}, size) for most, size in sizes.items()]
    with running(fixture) as address, socket.create_connection(("127.0.0.1", port_of(address))) as client:
        client.settimeout(10)
        client.sendall(b"".join(requests))
        client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = b""
        while piece := client.recv(65536):
            received += piece
    assert [int(count) for count in re.findall(rb'"completion_tokens":(\d+)', received)] == list(sizes)
    assert received.endswith(b'"model":"base"}')


def test_a_connection_is_used_again_and_not_after_a_body_that_was_not_read(make: Make) -> None:
    import httpx

    fixture = make(max_body_bytes=1000)
    with running(fixture) as address, httpx.Client(base_url=address) as client:
        for _ in range(3):
            assert client.get("/health").status_code == 200
            response = client.post("/v1/completions", content=b" " * 3000, headers={"content-type": "application/json"})
            error_of(response, 413)
            assert response.headers["connection"] == "close"


def test_a_body_that_does_not_come_ends_in_time(make: Make) -> None:
    fixture = make(request_seconds=0.3)
    with running(fixture) as address, socket.create_connection(("127.0.0.1", port_of(address))) as client:
        client.sendall(f"{HEAD}Content-Length: 100\r\n\r\n{{".encode())
        client.settimeout(10)
        assert client.recv(4096).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01 hello",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /health HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\nnothing\r\n",
        HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffffff\r\nx",
        HEAD.encode() + b"Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n",
    ],
)
def test_what_is_no_http_hurts_nobody(make: Make, data: bytes) -> None:
    fixture = make(request_seconds=2)
    with running(fixture) as address:
        with socket.create_connection(("127.0.0.1", port_of(address))) as client:
            client.settimeout(10)
            received = b""
            with contextlib.suppress(ConnectionError):
                client.sendall(data)
                while chunk := client.recv(65536):
                    received += chunk
            head, _, body = received.partition(b"\r\n\r\n")
            if head:
                assert head.startswith(b"HTTP/1.1 4")
                assert b"X-Medical-Disclaimer" in head.title()
                assert set(json.loads(body)) == {"error"}
        assert post(address, {"model": "base", "prompt": "短"}).status_code == 200


@pytest.mark.parametrize("sent", [[], [b"POST /v1/comp"], [b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"G"]])
def test_a_connection_that_asks_for_nothing_is_closed(
    make: Make, monkeypatch: pytest.MonkeyPatch, sent: list[bytes]
) -> None:
    from ms_medqa.serving import protocol

    monkeypatch.setattr(protocol, "SILENCE_SECONDS", 0.4)
    with running(make(seconds=0.01)) as address:
        with socket.create_connection(("127.0.0.1", port_of(address))) as client:
            # Less than what uvicorn leaves between two requests.
            client.settimeout(4)
            for part in sent[:-1]:
                client.sendall(part)
                received = b""
                while not received.endswith(b"}"):
                    received += client.recv(4096)
            client.sendall(b"".join(sent[-1:]))
            assert client.recv(4096) == b""
        # An answer that takes longer is not touched by it.
        assert post(address, ENDLESS_BODY | {"max_tokens": 80}).json()["usage"]["completion_tokens"] == 80


@pytest.mark.parametrize("body", ["Content-Length: 10", "Content-Length: 99999999999", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("path", ["/health", "/v1/models", "/none"])
def test_a_body_that_no_route_reads_ends_its_connection(make: Make, path: str, body: str) -> None:
    with running(make()) as address, socket.create_connection(("127.0.0.1", port_of(address))) as client:
        # Less than what uvicorn leaves between two requests.
        client.settimeout(4)
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n{body}\r\n\r\n".encode())
        received = b""
        while chunk := client.recv(4096):
            received += chunk
        assert received.startswith(b"HTTP/1.1 404" if path == "/none" else b"HTTP/1.1 200")
        assert b"connection: close" in received.lower()


@pytest.mark.parametrize("method", ["POST", "HEAD"])
@pytest.mark.parametrize("path", ["/none", "/health", "/v1/models", "/v1/completions"])
def test_a_body_that_is_no_http_behind_a_head_that_is_answered_at_once(
    make: Make, caplog: pytest.LogCaptureFixture, path: str, method: str
) -> None:
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with running(make(), key="k") as address, socket.create_connection(("127.0.0.1", port_of(address))) as client:
        client.settimeout(10)
        client.sendall(f"{head}nothing\r\n".encode())
        received = b""
        while chunk := client.recv(4096):
            received += chunk
    assert received.startswith(b"HTTP/1.1 400")
    assert received.count(b"HTTP/1.1") == 1
    assert received.endswith(b"\r\n\r\n" if method == "HEAD" else b"}}")
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
