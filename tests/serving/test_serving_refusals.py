"""What is refused, and how it is said: every error has OpenAI's shape."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from serving_client import JSON, QUESTION, LocalClient, error_of, events, text_of
from serving_fakes import ENDLESS, LIMIT

from ms_medqa.serving.app import build_app
from ms_medqa.serving.bodies import ChatBody

Ask = Callable[..., LocalClient]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": " \n"}]}, "messages"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages"),
        ({"messages": [*QUESTION, *QUESTION]}, "messages"),
        ({"messages": [QUESTION[0] | {"name": 1}]}, "messages[0].name"),
        ({"messages": [*QUESTION, {"role": "system", "content": "x"}, *QUESTION]}, "messages"),
        ({"messages": QUESTION * 7}, "messages"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_k": 1.5}, "top_k"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"seed": 2**64}, "seed"),
        ({"seed": "7"}, "seed"),
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 301}, "max_tokens"),
        ({"max_completion_tokens": 301}, "max_completion_tokens"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"stop": 3}, "stop"),
        ({"stream": 1}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"store": True}, "store"),
        ({"made_up": 1}, "made_up"),
        ({"model": None}, "model"),
        ({"context": 1}, "context"),
    ],
)
def test_a_field_that_cannot_be_is_named(ask: Ask, fields: dict[str, Any], param: str) -> None:
    client = ask(max_messages=6, max_tokens=300)
    assert error_of(client.chat(**fields), 400)["param"] == param
    assert client.fixture.core.requests == []


@pytest.mark.parametrize("message", [0, {"role": "user", "content": 0}, QUESTION[0]])
def test_too_long_a_dialogue_is_refused_unread(ask: Ask, message: Any) -> None:
    error = error_of(ask(max_messages=6).chat(messages=[message] * 7), 400)
    assert (error["param"], error["message"]) == ("messages", "more than 6 messages")


@pytest.mark.parametrize("part", ["body", "message", "stream_options", "metadata"])
def test_a_thousand_faults_are_not_all_looked_at(ask: Ask, part: str) -> None:
    faults = {f"x{number}": number for number in range(1000)}
    parts = {"body": faults, "message": {"messages": [QUESTION[0] | faults]}}
    fields = parts.get(part, {part: faults, "stream": True})
    with pytest.raises(ValidationError) as caught:
        ChatBody.model_validate({"model": "base", "messages": QUESTION} | fields)
    assert caught.value.error_count() == 1
    told = {"body": "x0", "message": "messages[0].x0", "stream_options": "stream_options.x0", "metadata": "metadata"}
    assert error_of(ask().chat(**fields), 400)["param"] == told[part]


def test_what_changes_nothing_is_taken(ask: Ask) -> None:
    harmless = {
        "frequency_penalty": 0,
        "presence_penalty": 0.0,
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "logit_bias": {},
        "user": "somebody",
        "store": False,
        "temperature": None,
        "stop": None,
        "n": None,
        "stream": None,
    }
    client = ask()
    assert client.chat(**harmless).status_code == 200
    # An answer that is handed back as the official client dumps it.
    answer = {"role": "assistant", "content": "x", "refusal": None, "tool_calls": None, "annotations": []}
    assert client.chat(messages=[*QUESTION, answer, *QUESTION]).status_code == 200


def test_a_template_that_takes_no_such_messages_is_said_so(
    ask: Ask, tiny_tokenizer_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shutil.copytree(tiny_tokenizer_folder, tmp_path / "model")
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    path.write_text(json.dumps(settings | {"chat_template": refusal + settings["chat_template"]}), encoding="utf-8")
    client = ask(folder=folder)
    system = {"role": "system", "content": "Zebra"}
    error = error_of(client.chat(messages=[system, *QUESTION]), 400)
    assert (error["param"], error["message"]) == ("messages", "this model's template takes no such messages")
    # Whoever runs the server learns more, but not what was said.
    assert str(folder) in caplog.text
    assert "no system role" in caplog.text
    assert "Zebra" not in caplog.text
    assert client.chat().status_code == 200


def test_a_model_that_is_not_registered_is_not_found(ask: Ask) -> None:
    client = ask(adapters=("tuned",))
    for name in ("", "other", "../tuned", "/etc", "tuned/", "x" * 5000):
        assert error_of(client.chat(model=name), 404)["code"] == "model_not_found"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b"null", 400),
        (b'"text"', 400),
        (b"\xff\xfe{}", 400),
        (b"\xef\xbb\xbf{}", 400),
        (b'{"model": "base", "messages": NaN}', 400),
        (b'{"model": "base", "temperature": 1e999}', 400),
        (b'{"model": "base", "seed": ' + b"9" * 5000 + b"}", 400),
        (b'{"model": "base", "messages": ' + b"[" * 33 + b"]" * 33 + b"}", 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 50_000, 400),
        (b'{"model": "base", "prompt": "\\ud83d"}', 400),
        (b'{"\\udc00": 1}', 400),
        (b" " * 200_001, 413),
    ],
)
def test_a_body_that_is_none(ask: Ask, body: bytes, status: int) -> None:
    client = ask(max_body_bytes=500_000 if status == 400 else 200_000)
    error_of(client("POST", "/v1/completions", content=body, headers=JSON), status)


def test_a_body_in_chunks_has_the_same_limit(ask: Ask) -> None:
    async def chunks() -> Any:
        for _ in range(30):
            yield b" " * 1000

    client = ask(max_body_bytes=20_000)
    response = client("POST", "/v1/completions", content=chunks(), headers=JSON)
    assert "content-length" not in response.request.headers
    assert error_of(response, 413)["code"] == "body_too_large"
    assert response.headers["connection"] == "close"


def test_the_content_type_must_be_json(ask: Ask) -> None:
    client = ask()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json"):
        error_of(client("POST", "/v1/chat/completions", content=b"{}", headers={"content-type": kind}), 415)
    error_of(client("POST", "/v1/chat/completions"), 415)
    response = client(
        "POST", "/v1/completions", content=b"{}", headers={"content-type": "Application/JSON; charset=utf-8"}
    )
    assert error_of(response, 400)["code"] == "missing_required_parameter"


def test_wrong_methods_and_paths(ask: Ask) -> None:
    client = ask()
    for method in ("GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE", "MADEUP"):
        response = client(method, "/v1/chat/completions")
        assert response.headers["allow"] == "POST"
        if method != "HEAD":
            error_of(response, 405)
    for path in ("/", "/docs", "/redoc", "/v1", "/v1/chat/completions/", "/v1//models", "/%ff", "/..%2f..%2fetc"):
        error_of(client("GET", path), 404)
    assert client("HEAD", "/health").status_code == 200
    assert client("GET", "/openapi.json").status_code == 200


def test_too_long_a_prompt(ask: Ask) -> None:
    client = ask(max_prompt_tokens=50, max_tokens=8000)
    assert error_of(client.complete("x " * 60), 400)["code"] == "context_length_exceeded"
    assert error_of(client.complete(""), 400)["param"] == "prompt"
    # An answer that does not fit behind it is refused in a stream as plainly as whole.
    for stream in (False, True):
        error = error_of(client.complete("x", max_tokens=5000, stream=stream), 400)
        assert error["code"] == "context_length_exceeded"
        assert "5000" in error["message"]
    assert client.fixture.service.worker.reserved == 0


def test_a_prompt_that_leaves_no_room_for_an_answer(ask: Ask) -> None:
    client = ask(max_prompt_tokens=10_000)
    for tokens in (LIMIT, LIMIT + 1):
        error = error_of(client.complete(text_of(client, tokens)), 400)
        assert error["code"] == "context_length_exceeded"
        assert str(LIMIT - 1) in error["message"]
    assert client.fixture.core.requests == []


def test_the_answers_to_all_prompts_of_a_request_have_one_limit(ask: Ask) -> None:
    client = ask(max_n=6, rows=8)
    assert len(client.complete(["一", "二", "三"], n=2).json()["choices"]) == 6
    assert error_of(client.complete(["一", "二", "三"], n=3), 400)["param"] == "prompt"
    assert error_of(client.complete(["一"] * 7), 400)["param"] == "prompt"
    assert error_of(client.complete("一", n=7), 400)["param"] == "n"


def test_a_key_opens_all_routes_but_health(ask: Ask) -> None:
    client = ask(key="secret-1")
    assert client("GET", "/health").status_code == 200
    for path in ("/metrics", "/v1/models", "/openapi.json", "/unknown", "/health/", "//health"):
        for shown in (
            None,
            "",
            "Bearer",
            "Bearer ",
            "Bearer secret-2",
            "Bearer secret-1x",
            "Basic secret-1",
            "secret-1",
        ):
            headers = {} if shown is None else {"authorization": shown}
            response = client("GET", path, headers=headers)
            assert error_of(response, 401)["code"] == "invalid_api_key"
            assert response.headers["www-authenticate"] == "Bearer"
    odd = client("GET", "/metrics", headers=[(b"authorization", b"Bearer \xff\xfe")])
    error_of(odd, 401)
    assert client("GET", "/metrics", headers={"authorization": "bearer secret-1"}).status_code == 200
    # Behind a key, any name may lead here.
    assert client("GET", "/metrics", headers={"authorization": "Bearer secret-1", "host": "x.org"}).status_code == 200


def test_without_a_key_only_this_machines_names_lead_here(ask: Ask) -> None:
    client = ask()
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert client("GET", "/v1/models", headers={"host": host}).status_code == 200
    for host in ("evil.example", "evil.example:8000", "localhost.evil.example", "", "[::1"):
        assert error_of(client("GET", "/v1/models", headers={"host": host}), 403)["code"] == "wrong_host"


def test_other_origins_need_a_leave(ask: Ask) -> None:
    origin = {"origin": "https://a.example"}
    wanted = "authorization,content-type,x-stainless-os"
    before = origin | {"access-control-request-method": "POST", "access-control-request-headers": wanted}
    closed = ask(key="k")
    assert "access-control-allow-origin" not in closed("GET", "/health", headers=origin).headers
    error_of(closed("OPTIONS", "/v1/models", headers=before), 401)
    opened = ask(key="k", cors_origins=["https://a.example"])
    response = opened("OPTIONS", "/v1/chat/completions", headers=before)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://a.example"
    assert response.headers["access-control-allow-headers"] == wanted
    assert "access-control-allow-credentials" not in response.headers
    # An error can be read there, too, and when to come again.
    error = opened("GET", "/v1/models", headers=origin)
    assert "access-control-allow-origin" in error.headers
    assert "retry-after" in error.headers["access-control-expose-headers"].lower()
    other = opened("GET", "/v1/models", headers={"origin": "https://b.example", "authorization": "Bearer k"})
    assert "access-control-allow-origin" not in other.headers
    assert opened("OPTIONS", "/v1/models", headers=before | {"origin": "https://b.example"}).status_code == 400


def test_a_full_queue_asks_to_come_back(ask: Ask) -> None:
    client = ask(rows=2, seconds=0.01, max_queue=3)
    body = {"model": "base", "prompt": "x", "temperature": 2.0, "max_tokens": 50}
    responses = client.together(*(("POST", "/v1/completions", {"json": body}) for _ in range(12)))
    refused = [response for response in responses if response.status_code != 200]
    assert len(refused) == 7
    for response in refused:
        assert error_of(response, 429)["code"] == "queue_full"
        assert int(response.headers["retry-after"]) > 0
    assert client.fixture.core.most == 2
    client.fixture.wait_idle()
    assert client.complete("x").status_code == 200


@pytest.mark.parametrize(("answers", "taken"), [(1, 3), (2, 1)])
def test_prompts_that_are_being_encoded_have_places_in_the_queue(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, answers: int, taken: int
) -> None:
    client = ask(rows=2, max_queue=1, seconds=0.001)
    service, release = client.fixture.service, threading.Event()
    encode, reserved = service.encode_texts, list[int]()

    def slow(*arguments: Any) -> list[list[int]]:
        reserved.append(service.worker.reserved)
        release.wait(0.5)
        return encode(*arguments)

    monkeypatch.setattr(service, "encode_texts", slow)
    body = {"model": "base", "prompt": "x", "max_tokens": 5, "n": answers}
    responses = client.together(*(("POST", "/v1/completions", {"json": body}) for _ in range(8)))
    assert sorted(response.status_code for response in responses) == [200] * taken + [429] * (8 - taken)
    # What is refused is refused before it costs a second.
    assert len(reserved) == taken
    assert max(reserved) <= 3
    client.fixture.wait_idle()
    # What turns out to be no request gives its place back as well.
    for fields in ({"prompt": ""}, {"n": 9}, {"model": "other"}, {"prompt": 1}):
        assert client.complete(**{"prompt": "x", **fields}).status_code in (400, 404)
    assert service.worker.reserved == 0


def test_the_time_that_encoding_takes_is_the_requests(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    client = ask(request_seconds=1, seconds=0.005)
    encode, release = client.fixture.service.encode_texts, threading.Event()

    def slow(*arguments: Any) -> list[list[int]]:
        release.wait(0.8)
        return encode(*arguments)

    monkeypatch.setattr(client.fixture.service, "encode_texts", slow)
    began = time.monotonic()
    assert error_of(client.complete("x", temperature=ENDLESS, max_tokens=2000), 504)["code"] == "timeout"
    assert time.monotonic() - began < 1.6
    monkeypatch.setattr(client.fixture.service, "encode_texts", lambda *arguments: release.wait(5) and [])
    assert error_of(client.complete("x"), 504)["code"] == "timeout"
    assert time.monotonic() - began < 3.2
    assert client.fixture.service.worker.reserved == 0
    release.set()


def test_a_client_that_leaves_while_its_prompt_is_encoded_gives_its_place_back(make: Callable[..., Any]) -> None:
    fixture, release = make(), threading.Event()
    fixture.service.encode_texts = lambda *arguments: release.wait(10) and [[1]]

    async def leave() -> None:
        body = {"type": "http.request", "body": b'{"model": "base", "prompt": "x"}', "more_body": False}
        received = [{"type": "http.disconnect"}, body]
        encoding = asyncio.Event()

        async def receive() -> Any:
            if len(received) == 1:
                while not fixture.service.worker.reserved:
                    await asyncio.sleep(0.005)
                encoding.set()
            return received.pop()

        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers, "query_string": b""}
        began = time.monotonic()
        app = build_app(fixture.service)
        await app(scope, receive, lambda message: asyncio.sleep(0))
        assert encoding.is_set()
        assert time.monotonic() - began < 5
        assert fixture.service.worker.reserved == 0

    asyncio.run(leave())
    release.set()


@pytest.mark.parametrize("where", ["parse_json", "check_body"])
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_large_body_is_read_beside_the_event_loop(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, where: str, path: str
) -> None:
    from ms_medqa.serving import app

    threads, work = [], getattr(app, where)

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread())
        return work(*arguments)

    client = ask()
    monkeypatch.setattr(app, where, noted)
    body = {"model": "base", "stop": [1] * 100_000}
    error_of(client("POST", path, json=body), 400)
    assert threads
    assert threading.main_thread() not in threads
    client.fixture.wait_idle()


def test_a_request_that_takes_too_long_gives_its_row_back(ask: Ask) -> None:
    client = ask(seconds=0.02, request_seconds=0.5)
    assert error_of(client.complete("x", temperature=2.0), 504)["code"] == "timeout"
    response = client.complete("x", temperature=2.0, stream=True)
    assert response.status_code == 200
    assert events(response.text)[-1]["error"]["code"] == "timeout"
    client.fixture.wait_idle()


def test_a_core_that_fails_loses_what_runs_and_nothing_else(ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    client = ask(rows=2)
    for stream in (False, True):
        client.fixture.core.failures = [ZeroDivisionError("inside")]
        response = client.complete("x", stream=stream)
        error = events(response.text)[-1]["error"] if stream else error_of(response, 500)
        assert error["type"] == "server_error"
        assert "inside" not in error["message"]
        client.fixture.wait_idle()
        assert client.complete("x").json()["choices"][0]["text"] == "x"
    assert "medqa_step_failures_total 2" in client("GET", "/metrics").text


@pytest.mark.parametrize("error", [OSError("a disk"), ZeroDivisionError()])
def test_what_fails_in_a_route_is_written_down(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    client = ask()

    def fail(*arguments: Any) -> Any:
        raise error

    monkeypatch.setattr(client.fixture.service, "encode_texts", fail)
    assert error_of(client.complete("x"), 500)["code"] == "internal_error"
    assert f"a request failed: {type(error).__name__}" in caplog.text
    assert 'completions",status="500"} 1' in client("GET", "/metrics").text
    assert client.fixture.service.worker.reserved == 0


def _called(app: Any, send: Callable[..., Any], receive: Callable[..., Any]) -> None:
    """A call of an application for the list of models."""
    headers = [(b"host", b"localhost")]
    scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": headers, "query_string": b""}

    async def call() -> None:
        task = asyncio.ensure_future(app(scope, receive, send))
        await asyncio.sleep(0.05)
        task.cancel()
        await task

    asyncio.run(call())


def test_a_connection_that_breaks_is_no_failure(make: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    fixture = make()

    async def send(message: Any) -> None:
        raise ConnectionResetError

    _called(build_app(fixture.service), send, asyncio.Event().wait)
    assert "failed" not in caplog.text


def test_who_is_broken_off_at_the_very_end_is_told_so(
    make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ms_medqa.serving import app

    async def wait(*arguments: Any) -> Any:
        await asyncio.Event().wait()

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    monkeypatch.setattr(app.CORSMiddleware, "__call__", wait)
    _called(build_app(make(cors_origins=["*"]).service), send, asyncio.Event().wait)
    start, body = sent
    assert start["status"] == 503
    assert b"x-medical-disclaimer" in dict(start["headers"])
    assert json.loads(body["body"])["error"]["code"] == "stopping"


@pytest.mark.parametrize("wanted", [False, True])
def test_texts_are_logged_only_where_that_is_wanted(ask: Ask, caplog: pytest.LogCaptureFixture, wanted: bool) -> None:
    with caplog.at_level(logging.DEBUG):
        client = ask(log_text=wanted)
        client.chat(messages=[{"role": "user", "content": "Zebra"}])
        client.complete("Zebra", stream=True)
        client.complete("Zebra", temperature="Zebra")
        client("GET", "/made%0Aup?question=Zebra")
    own = [record for record in caplog.records if record.name.startswith("ms_medqa")]
    assert any("POST /v1/chat/completions 200" in record.getMessage() for record in own)
    assert any("Zebra" in record.getMessage() for record in own) == wanted
    assert all("\n" not in record.getMessage() for record in own)
