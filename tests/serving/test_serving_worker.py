"""The thread that owns the core: what happens to the others when something goes wrong with one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
from serving_client import QUESTION, LocalClient, error_of
from serving_fakes import ENDLESS, EchoCore, Fixture, Row, tokenizer_of

from ms_medqa.config.errors import RunError, UserError
from ms_medqa.generation.request import Output, Request
from ms_medqa.generation.stops import AnswerText
from ms_medqa.serving import intake
from ms_medqa.serving.bodies import ChatBody
from ms_medqa.serving.job import Piece
from ms_medqa.serving.metrics import Metrics
from ms_medqa.serving.worker import Places, Worker

Ask = Callable[..., LocalClient]


def test_a_core_that_cannot_be_made_is_the_starters_error() -> None:
    def fail() -> EchoCore:
        raise UserError("no such model")

    worker = Worker(fail, 1, Metrics())
    with pytest.raises(UserError, match="no such model"):
        worker.start()
    assert not worker.alive


@pytest.mark.parametrize(("error", "status"), [(UserError("adapter gone"), 400), (RuntimeError("inside"), 500)])
def test_a_row_that_is_not_given_is_one_requests_loss(ask: Ask, error: Exception, status: int) -> None:
    client = ask()
    core, add = client.fixture.core, client.fixture.core.add

    def add_or_fail(request: Request) -> Row:
        if request.seed == 13:
            raise error
        return add(request)

    core.add = add_or_fail
    body = {"model": "base", "prompt": "水果", "n": 2}
    responses = client.together(*(("POST", "/v1/completions", {"json": body | {"seed": seed}}) for seed in (1, 13, 2)))
    assert [response.status_code for response in responses] == [200, status, 200]
    message = error_of(responses[1], status)["message"]
    assert ("adapter gone" in message) == (status == 400)
    assert "inside" not in message
    client.fixture.wait_idle()


@pytest.mark.parametrize("where", ["check", "add", "step", "remove"])
def test_what_an_error_of_others_says_is_not_written_down(
    ask: Ask, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    client, said = ask(), "Zebra"

    def fail(*arguments: Any) -> Any:
        raise ValueError(said)

    setattr(client.fixture.core, where, fail)
    with caplog.at_level(logging.DEBUG):
        client.complete("水果", stop="果", temperature=ENDLESS)
        client.fixture.core.rows.clear()
    failures = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(failures) == 1
    assert "ValueError" in failures[0]
    # But where it came up.
    assert "in fail" in failures[0]
    assert said not in caplog.text


def test_an_answer_at_which_the_model_fails_is_one_requests_loss(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    client = ask()
    core, step = client.fixture.core, client.fixture.core.step

    def step_and_fail_at_one() -> list[Output]:
        outputs = step()
        for place, output in enumerate(outputs):
            row = output.running
            if (row.request.seed, row.request.stream) == (13, 0) and row in core.rows:
                core.rows.remove(row)
                outputs[place] = Output(row, None, None, RunError("logits that are not finite"))
        return outputs

    core.step = step_and_fail_at_one
    body = {"model": "base", "prompt": "水果", "n": 2}
    with caplog.at_level(logging.ERROR):
        responses = client.together(
            *(("POST", "/v1/completions", {"json": body | {"seed": seed}}) for seed in (1, 13, 2))
        )
    assert [response.status_code for response in responses] == [200, 500, 200]
    assert error_of(responses[1], 500)["code"] == "internal_error"
    assert "not finite" in caplog.text
    assert "medqa_step_failures_total 1" in client("GET", "/metrics").text
    # Its other answer was broken off with it.
    client.fixture.wait_idle()


def test_a_row_that_is_not_freed_is_written_down(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    client = ask(rows=1)
    core, remove = client.fixture.core, client.fixture.core.remove

    def fail(running: Row) -> None:
        raise RuntimeError("stuck")

    core.remove = fail
    with caplog.at_level(logging.ERROR):
        assert client.complete("水果", stop="果", temperature=ENDLESS).status_code == 200
        # The row is lost, and with it the last one: who waits is told instead of waiting for ever.
        assert error_of(client.complete("x"), 500)["code"] == "internal_error"
    assert "could not free a row" in caplog.text
    core.remove = remove
    core.rows.clear()
    assert client.complete("x").status_code == 200


def test_an_answer_that_cannot_be_read_is_one_requests_loss(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = ask()
    push = AnswerText.push

    def push_or_fail(self: AnswerText, token: int) -> str:
        text = push(self, token)
        if "坏" in text:
            raise ZeroDivisionError(text)
        return text

    monkeypatch.setattr(AnswerText, "push", push_or_fail)
    prompts = ["好" * 20, "坏" * 20, "好" * 20]
    responses = client.together(
        *(("POST", "/v1/completions", {"json": {"model": "base", "prompt": prompt}}) for prompt in prompts)
    )
    assert [response.status_code for response in responses] == [200, 500, 200]
    assert "ZeroDivisionError" in caplog.text
    assert "坏" not in caplog.text
    client.fixture.wait_idle()


def test_requests_are_served_in_the_order_in_which_they_came(make: Callable[..., Fixture]) -> None:
    fixture = make(rows=1, seconds=0.001)

    async def ask_all() -> None:
        tickets = []
        for seed in range(12):
            body: Any = fixture.body(seed=seed)
            model = fixture.service.models["base"]
            prompts = fixture.service.encode_texts(model, body)
            tickets.append(fixture.service.ticket(model, body, prompts, 5, None, time.monotonic()))
            fixture.service.worker.submit(tickets[-1], Places(fixture.service.worker))
        for ticket in tickets:
            while getattr(await ticket.next(), "finish", None) is None:
                pass

    asyncio.run(ask_all())
    assert [request.seed for request in fixture.core.requests] == list(range(12))


def test_a_stop_string_over_several_tokens_and_one_that_was_none(tiny_tokenizer_folder: Any) -> None:
    tokenizer = tokenizer_of(tiny_tokenizer_folder)

    def said(text: str, *stops: str) -> tuple[str, bool]:
        answer = AnswerText(tokenizer, stops)
        pieces = [answer.push(token) for token in tokenizer.encode(text)]
        return "".join([*pieces, answer.flush()]), answer.stopped

    assert said("一二三四五", "三四") == ("一二", True)
    assert said("一二三四五", "三五") == ("一二三四五", False)
    assert said("一二三", "三四") == ("一二三", False)
    assert said("aaab", "aab") == ("a", True)
    assert said("一二三四五", "四五", "二三四五六", "三") == ("一二", True)


def test_a_client_that_leaves_as_a_token_comes_is_not_followed_on(make: Callable[..., Fixture]) -> None:
    fixture = make(seconds=0.005)
    body = ChatBody.model_validate({"model": "base", "messages": QUESTION, "temperature": ENDLESS, "max_tokens": 2000})

    async def leave() -> None:
        follower = await intake.chat(fixture.service, body, Places(fixture.service.worker), time.monotonic())
        await follower.accept()
        (ticket,) = fixture.service.tickets
        following = asyncio.ensure_future(follower.whole())
        await asyncio.sleep(0.05)
        # Both before the loop turns to it again.
        ticket.put(Piece(0, "x", (), 1, None))
        following.cancel()
        done, _ = await asyncio.wait({following}, timeout=5)
        assert done
        assert following.cancelled()

    asyncio.run(leave())
    fixture.wait_idle()
