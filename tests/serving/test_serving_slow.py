"""Clients that take their answers slowly are waited for, and those that do not take them are let go."""

from __future__ import annotations

import json
import select
import socket
import time
from typing import Any

import pytest
from serving_fakes import running, wait_for
from serving_wire import ENDLESS_BODY, HEAD, Make, port_of, request


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
    client.sendall(request(ENDLESS_BODY | fields))
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
