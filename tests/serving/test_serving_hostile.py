"""Broken requests, by the hundred: none of them is the server's fault, and none hurts another."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from itertools import islice

import pytest
from hostile_bodies import mutated_body
from hostile_wire import CHAT, Wire, chat, request, wires
from serving_client import JSON, LocalClient, error_of
from serving_fakes import Fixture, running

Ask = Callable[..., LocalClient]


@pytest.mark.parametrize("seed", range(3))
def test_no_bad_input_is_the_servers_fault(ask: Ask, seed: int) -> None:
    client = ask(adapters=("tuned",))
    rng, good = random.Random(seed), 0
    for _ in range(400):
        path, data = mutated_body(rng, ["base", "tuned"])
        response = client("POST", path, content=data, headers=JSON)
        assert response.status_code < 500, (data, response.text)
        if response.status_code == 200:
            good += 1
            assert "error" not in response.text
        else:
            error_of(response, response.status_code)
    # Else it would be the mutations that are all alike.
    assert 20 < good < 380
    client.fixture.wait_idle()


@pytest.mark.parametrize("key", [None, "secret"])
def test_nothing_that_a_connection_may_bring_hurts_the_server(
    make: Callable[..., Fixture], caplog: pytest.LogCaptureFixture, key: str | None
) -> None:
    from hostile_exchange import exchange

    fixture = make(rows=8, adapters=("tuned",), max_queue=500, max_body_bytes=50_000, page="auto")
    sent = list(islice(wires(1, ["base", "tuned"], 50_000, key), 400))

    async def send_all(port: int) -> list[str | None]:
        return [
            outcome.fault
            for start in range(0, len(sent), 20)
            for outcome in await asyncio.gather(*(exchange(port, wire, 20) for wire in sent[start : start + 20]))
        ]

    with running(fixture, key) as address:
        faults = asyncio.run(send_all(int(address.rpartition(":")[2])))
        assert [(wire.kind, fault) for wire, fault in zip(sent, faults, strict=True) if fault] == []
        fixture.wait_idle()
    assert len(Counter(wire.kind for wire in sent)) > 10
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


def test_what_holds_unread_answers_sees_whether_it_is_let_go(
    make: Callable[..., Fixture], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hostile_exchange import Unread

    from ms_medqa.serving import protocol

    fields = {"logprobs": True, "top_logprobs": 20, "n": 4, "max_tokens": 500, "temperature": 2.0}
    fixture = make(rows=8)
    with running(fixture) as address:
        for seconds, held in ((60, 2), (0.3, 0)):
            monkeypatch.setattr(protocol, "STALL_SECONDS", seconds)
            asked = [4 * request(CHAT, chat("base", stream=stream, **fields)) for stream in (False, True)]
            unread = Unread(int(address.rpartition(":")[2]), asked)
            assert unread.left(20 if held == 0 else 3) == held
            unread.close()
        fixture.wait_idle()


def test_what_judges_the_responses_sees_a_fault(make: Callable[..., Fixture]) -> None:
    from hostile_exchange import exchange

    fixture, faults = make(), []
    with running(fixture) as address:
        for stream in (False, True):
            fixture.core.failures = [ZeroDivisionError("inside")]
            wire = Wire("good", (request(CHAT, chat("base", stream=stream)),))
            faults.append(asyncio.run(exchange(int(address.rpartition(":")[2]), wire, 20)).fault)
    whole, streamed = faults
    assert whole is not None
    assert whole.startswith("status 500")
    assert streamed is not None
    assert "a stream that ends in" in streamed
