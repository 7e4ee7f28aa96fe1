"""A real server on a port of this machine: streams side by side, clients that leave, its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving_client import error_of, events
from serving_fakes import ENDLESS, Fixture, running, wait_for

from ms_medqa.config.errors import UserError

Make = Callable[..., Fixture]
ENDLESS_BODY = {"model": "base", "prompt": "水果", "temperature": ENDLESS, "max_tokens": 2000}
HEAD = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def port_of(address: str) -> int:
    """The port of a server's address."""
    return int(address.rpartition(":")[2])


def _request(body: dict[str, Any], spaces: int = 0) -> bytes:
    """A request for a plain text, whose body ends in so many spaces."""
    data = json.dumps(body).encode() + b" " * spaces
    return f"{HEAD}Content-Length: {len(data)}\r\n\r\n".encode() + data


def post(address: str, body: dict[str, Any], **options: Any) -> Any:
    """A plain text to a server."""
    import httpx

    return httpx.post(f"{address}/v1/completions", json=body, timeout=20, **options)


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
    short, long = (_request(ENDLESS_BODY | each) for each in ({"max_tokens": 3}, {}))
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
    requests = [_request(ENDLESS_BODY | {"max_tokens": most}, size) for most, size in sizes.items()]
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


def _is_closed(client: socket.socket) -> bool:
    """The other side has let the connection go; found out without reading, which would let it send more."""
    poll = select.poll()
    poll.register(client, 0)
    return bool(poll.poll(0))


def _asked(address: str, **fields: Any) -> socket.socket:
    """A client that has asked for a long answer, of which its own system takes little by itself."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    client.connect(("127.0.0.1", port_of(address)))
    client.sendall(_request(ENDLESS_BODY | fields))
    return client


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_does_not_read_is_let_go(make: Make, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    from ms_medqa.serving import protocol, responses

    monkeypatch.setattr(responses, "_STALL_SECONDS", 0.2)
    monkeypatch.setattr(protocol, "STALL_SECONDS", 0.5)
    # A stream is longer than its time; a whole answer is made, and more than the system takes by itself.
    fixture = make(request_seconds=1 if stream else 20, max_tokens=4000)
    with running(fixture) as address, _asked(address, stream=stream, max_tokens=4000, n=4, logprobs=20) as client:
        wait_for(lambda: fixture.core.requests)
        wait_for(lambda: not fixture.service.worker.reserved, 30)
        # It is over when it is counted, which is when nothing is left of it.
        wait_for(lambda: 'completions",status="200"} 1' in fixture.service.metrics.text())
        wait_for(lambda: _is_closed(client))


def test_a_client_on_a_slow_line_gets_its_whole_answer(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from ms_medqa.serving import protocol

    monkeypatch.setattr(protocol, "STALL_SECONDS", 0.3)
    fixture = make(max_tokens=4000)
    with running(fixture) as address, _asked(address, max_tokens=4000, n=4, logprobs=20) as client:
        head, _, taken = client.recv(65536).partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        began = time.monotonic()
        while len(taken) < length:
            # 10 MB/s: three of the least rate.
            if len(taken) < 10e6 * (time.monotonic() - began):
                piece = client.recv(65536)
                assert piece
                taken += piece
            else:
                time.sleep(0.005)
        assert time.monotonic() - began > 2 * protocol.STALL_SECONDS
        assert len(json.loads(taken)["choices"]) == 4


def _narrow(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """The system takes no more of an answer by itself than about so many bytes."""
    from ms_medqa.serving import protocol, run

    class Narrow(protocol.Protocol):
        def connection_made(self, transport: Any) -> None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
            super().connection_made(transport)

    monkeypatch.setattr(run, "Protocol", Narrow)


def test_who_leaves_the_last_few_bytes_is_let_go(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from ms_medqa.serving import protocol

    _narrow(monkeypatch, 4096)
    monkeypatch.setattr(protocol, "STALL_SECONDS", 0.5)
    fixture = make()
    with running(fixture) as address, _asked(address, max_tokens=60, logprobs=20) as client:
        wait_for(lambda: _is_closed(client))


def test_at_the_end_who_does_not_read_is_not_waited_for_long(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from ms_medqa.serving import protocol

    monkeypatch.setattr(protocol, "LAST_STALL_SECONDS", 0.3)
    fixture = make(max_tokens=4000, drain_seconds=14)
    with running(fixture) as address, _asked(address, max_tokens=4000, n=4, logprobs=20) as client:
        wait_for(lambda: 'completions",status="200"} 1' in fixture.service.metrics.text(), 30)
        assert not _is_closed(client)
        fixture.stop()
        began = time.monotonic()
        wait_for(lambda: _is_closed(client))
    assert time.monotonic() - began < 5


def test_at_the_end_who_takes_an_answer_is_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from ms_medqa.serving import protocol

    _narrow(monkeypatch, 65536)
    monkeypatch.setattr(protocol, "LAST_STALL_SECONDS", 0.3)
    fixture = make(drain_seconds=14)
    with running(fixture) as address, _asked(address, n=4, logprobs=20) as client:
        received = client.recv(65536)
        fixture.stop()
        began = time.monotonic()
        while piece := client.recv(65536):
            received += piece
            # The most that it takes in a second.
            time.sleep(len(piece) / 2e6)
        assert time.monotonic() - began > 3 * protocol.LAST_STALL_SECONDS
        assert len(json.loads(received.partition(b"\r\n\r\n")[2])["choices"]) == 4


def test_at_the_end_who_ceases_to_take_an_answer_is_not_waited_for_long(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ms_medqa.serving import protocol

    _narrow(monkeypatch, 65536)
    monkeypatch.setattr(protocol, "LAST_STALL_SECONDS", 0.3)
    fixture = make(drain_seconds=14)
    with running(fixture) as address, _asked(address, n=4, logprobs=20, stream=True) as client:
        wait_for(lambda: fixture.core.requests)
        fixture.wait_idle()
        fixture.stop()
        began = time.monotonic()
        while time.monotonic() - began < 1:
            assert client.recv(65536)
            time.sleep(0.01)
        wait_for(lambda: _is_closed(client))
    assert time.monotonic() - began < 5


def test_a_client_that_reads_slowly_gets_its_whole_answer(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from ms_medqa.serving import protocol

    monkeypatch.setattr(protocol, "STALL_SECONDS", 5)
    fixture = make()
    body = json.dumps(ENDLESS_BODY | {"n": 4, "logprobs": 20}).encode()
    head = f"{HEAD}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with running(fixture) as address, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.connect(("127.0.0.1", port_of(address)))
        client.settimeout(20)
        client.sendall(head + body)
        received = b""
        while chunk := client.recv(65536):
            received += chunk
            time.sleep(0.002)
        choices = json.loads(received.partition(b"\r\n\r\n")[2])["choices"]
        assert [len(choice["logprobs"]["tokens"]) for choice in choices] == [2000] * 4


def _drained(fixture: Fixture, body: dict[str, Any]) -> tuple[Any, Any, float]:
    """The answer that ran when the server was told to end, that to a later request, and the seconds to the end."""
    answers: list[Any] = []
    with running(fixture) as address:
        thread = threading.Thread(target=lambda: answers.append(post(address, body)))
        thread.start()
        wait_for(lambda: fixture.core.rows)
        fixture.stop()
        began = time.monotonic()
        wait_for(lambda: fixture.service.draining)
        late = post(address, body)
        thread.join(15)
    return answers[0], late, time.monotonic() - began


def test_at_the_end_what_runs_is_finished_and_what_is_new_refused(make: Make) -> None:
    fixture = make(seconds=0.005, drain_seconds=15)
    answer, late, seconds = _drained(fixture, ENDLESS_BODY | {"max_tokens": 300})
    assert answer.json()["usage"]["completion_tokens"] == 300
    assert "retry-after" in late.headers
    assert error_of(late, 503)["code"] == "stopping"
    assert seconds < 12


def test_at_the_end_what_takes_too_long_is_broken_off(make: Make) -> None:
    fixture = make(seconds=0.01, drain_seconds=2)
    answer, _, seconds = _drained(fixture, ENDLESS_BODY)
    assert error_of(answer, 503)["code"] == "stopping"
    assert seconds < 5
    assert not fixture.core.rows


def test_at_the_end_a_step_that_does_not_end_is_not_waited_for(make: Make) -> None:
    fixture, answers = make(seconds=4, drain_seconds=1), list[Any]()
    with running(fixture) as address:
        thread = threading.Thread(target=lambda: answers.append(post(address, ENDLESS_BODY)))
        thread.start()
        wait_for(lambda: fixture.core.steps)
        fixture.stop()
        began = time.monotonic()
    assert time.monotonic() - began < 3
    thread.join(10)
    assert error_of(answers[0], 503)["code"] == "stopping"


def test_at_the_end_a_prompt_that_is_still_encoded_is_not_waited_for(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture, answers = make(drain_seconds=1), list[Any]()
    began, release = threading.Event(), threading.Event()

    def encode(*arguments: Any) -> list[list[int]]:
        began.set()
        release.wait(20)
        return [[1]]

    monkeypatch.setattr(fixture.service, "encode_texts", encode)
    with running(fixture) as address:
        thread = threading.Thread(target=lambda: answers.append(post(address, ENDLESS_BODY)))
        thread.start()
        assert began.wait(10)
        fixture.stop()
        stopped = time.monotonic()
        # It is refused at once, and its place is free.
        thread.join(10)
    assert time.monotonic() - stopped < 3
    assert error_of(answers[0], 503)["code"] == "stopping"
    assert fixture.service.worker.reserved == 0
    assert not fixture.service.threads.stop(0)
    release.set()
    assert fixture.service.threads.stop(10)


def test_at_the_end_who_has_sent_half_a_body_is_told_at_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    fixture = make(drain_seconds=15)
    with running(fixture) as address, socket.create_connection(("127.0.0.1", port_of(address))) as client:
        client.settimeout(10)
        client.sendall(f"{HEAD}Content-Length: 100\r\n\r\n{{".encode())
        # Of requests that are being read nothing is counted.
        time.sleep(0.3)
        fixture.stop()
        began, received = time.monotonic(), b""
        while chunk := client.recv(4096):
            received += chunk
        assert time.monotonic() - began < 5
    assert time.monotonic() - began < 8
    assert received.startswith(b"HTTP/1.1 503")
    assert json.loads(received.partition(b"\r\n\r\n")[2])["error"]["code"] == "stopping"
    assert b"x-medical-disclaimer" in received.lower()
    assert "Traceback" not in caplog.text


_PROGRAM = """
import sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from serving_fakes import Fixture
from ms_medqa.serving.run import bind, serve

fixture = Fixture(Path(sys.argv[2]), seconds=0.01, drain_seconds=20)
with bind("127.0.0.1", 0, has_key=False) as listener:
    print(listener.getsockname()[1], flush=True)
    serve(fixture.service, None, listener, lambda stop: print("started", flush=True))
fixture.close()
"""


@pytest.mark.parametrize("signals", [1, 2])
def test_the_first_signal_finishes_and_the_second_ends_at_once(tiny_tokenizer_folder: Path, signals: int) -> None:
    import httpx

    command = [sys.executable, "-c", _PROGRAM, str(Path(__file__).parent), str(tiny_tokenizer_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"GLOG_v": "3"}) as process:
        try:
            assert process.stdout is not None
            address = f"http://127.0.0.1:{int(process.stdout.readline())}"
            assert process.stdout.readline() == "started\n"
            answers: list[Any] = []
            tokens = 100 if signals == 1 else 2000

            def ask() -> None:
                try:
                    answers.append(post(address, ENDLESS_BODY | {"max_tokens": tokens}).status_code)
                except httpx.HTTPError as error:
                    answers.append(type(error))

            thread = threading.Thread(target=ask)
            thread.start()
            wait_for(lambda: "medqa_running 1" in httpx.get(f"{address}/metrics").text)
            process.send_signal(signal.SIGTERM)
            if signals == 2:
                wait_for(lambda: httpx.get(f"{address}/health").status_code == 503)
                process.send_signal(signal.SIGTERM)
            status = process.wait(15)
            thread.join(10)
        finally:
            process.kill()
    assert status == (0 if signals == 1 else 128 + signal.SIGTERM)
    assert (answers == [200]) == (signals == 1)
