"""What the page keeps shut: Gradio's other routes, other hosts, other origins, and everybody without the key."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from page_visitor import Visitor, texts
from serving_client import LocalClient, error_of
from serving_fakes import Fixture, running

from ms_medqa.config.errors import UserError
from ms_medqa.serving.page import has_page

KEY = "secret-1"
JOIN = "/gradio_api/queue/join"
needs_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="not installed: gradio")
Ask = Callable[..., LocalClient]


@pytest.fixture
def locked(make: Callable[..., Fixture]) -> Iterator[str]:
    with running(make(page=True), KEY) as address:
        yield address


@needs_gradio
def test_the_page_loads_nothing_from_another_host(ask: Ask) -> None:
    client = ask(page=True)
    for path in ("/", "/theme.css"):
        response = client("GET", path)
        assert response.status_code == 200
        assert set(re.findall(r"(?:https?:)?//([\w.-]+\.\w+)", response.text)) <= {"127.0.0.1", "www.w3.org"}
        policy = response.headers["content-security-policy"]
        assert "connect-src 'self'" in policy
        assert "http" not in policy
    assert '"analytics_enabled":false' in client("GET", "/").text


@needs_gradio
def test_no_route_but_those_of_the_page_is_open(ask: Ask, tmp_path: Path) -> None:
    client = ask(page=True)
    (tmp_path / "secret.txt").write_text("secret")
    closed = [
        ("POST", "/gradio_api/upload"),
        ("GET", f"/gradio_api/file={tmp_path}/secret.txt"),
        ("GET", f"/gradio_api/file/{tmp_path}/secret.txt"),
        ("GET", f"/file={tmp_path}/secret.txt"),
        ("GET", "/gradio_api/proxy=http://127.0.0.1/"),
        ("GET", "/static/../../../setup.py"),
        ("GET", "/static/%2e%2e/index.html"),
        ("GET", "/assets/..%2f..%2findex.html"),
        ("GET", "/assets//etc/passwd"),
        ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/run/predict"),
        ("POST", "/gradio_api/call/ask"),
        ("POST", "/gradio_api/cancel"),
        ("POST", "/gradio_api/process_recording"),
        ("GET", "/gradio_api/runs"),
        ("GET", "/gradio_api/info"),
        ("GET", "/gradio_api/heartbeat/../info"),
        ("GET", "/config"),
        ("GET", "/monitoring"),
        ("POST", "/login"),
        ("GET", "/gradio_api/mcp/sse"),
        ("POST", "/gradio_api/vibe-edit"),
        ("GET", "/gradio_api/dev/reload"),
    ]
    for method, path in closed:
        error_of(client(method, path), 404)
    # A page can be restored from a file that its address names.
    assert client("GET", "/?deep_link=x&page=y").text == client("GET", "/").text
    # The interface is where it was.
    assert client.chat().status_code == 200
    assert client("GET", "/health").status_code == 200


@needs_gradio
def test_bodies_and_origins_are_checked_before_gradio_sees_them(ask: Ask) -> None:
    client = ask(page=True, max_body_bytes=1000)
    error_of(client("POST", JOIN, json={"data": ["x" * 1000]}), 413)
    error_of(client("POST", JOIN, content=b"{}", headers={"content-type": "text/plain"}), 415)
    error_of(client("POST", JOIN, json={"data": [{"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}]}), 400)
    error_of(client("POST", JOIN, content=b"{", headers={"content-type": "application/json"}), 400)
    for headers in ({"origin": "https://a.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}):
        for method, path in (("POST", JOIN), ("GET", "/gradio_api/queue/data?session_hash=x")):
            error = error_of(client(method, path, json={}, headers=headers), 403)
            assert error["code"] == "wrong_origin"
    for path in ("/", JOIN):
        assert error_of(client("GET", path, headers={"host": "a.example"}), 403)["code"] == "wrong_host"
    # A link on another site may lead here.
    assert client("GET", "/", headers={"sec-fetch-site": "cross-site"}).status_code == 200


@needs_gradio
@pytest.mark.parametrize("key", [None, KEY])
def test_no_other_page_may_read_this_one(ask: Ask, key: str | None) -> None:
    client = ask(key, page=True)
    shown = {"authorization": f"Bearer {key}"}
    for origin in ("https://a.example", "null", "http://localhost:1", "http://127.0.0.1"):
        response = client("GET", "/", headers=shown | {"origin": origin})
        assert response.status_code == 200
        assert [name for name in response.headers if name.startswith("access-control")] == []


@needs_gradio
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/theme.css", {"origin": "http://["}, 403),
        (f"/static/{'x' * 300}", {}, 404),
        (f"/assets/{'x/' * 2500}x", {}, 404),
        ("/", {"x-forwarded-host": "a:b"}, 200),
        ("/", {"x-gradio-server": "http://a:b"}, 200),
    ],
)
def test_nothing_that_a_request_says_of_an_address_makes_the_page_fail(
    ask: Ask, path: str, headers: dict[str, str], status: int
) -> None:
    assert ask(page=True)("GET", path, headers=headers).status_code == status


@needs_gradio
@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/static/none", {}, 404),
        ("/static/img", {}, 403),
        ("/static/img/logo.svg", {"range": "x"}, 400),
        ("/static/img/logo.svg", {"range": "bytes=999999-"}, 416),
    ],
)
def test_errors_of_the_pages_files_have_the_shape_of_all_others(
    ask: Ask, path: str, headers: dict[str, str], status: int
) -> None:
    client = ask(page=True)
    response = client("GET", path, headers=headers)
    error_of(response, status)
    if status == 416:
        assert response.headers["content-range"].startswith("bytes */")
    assert client("HEAD", path).headers["allow"] == "GET"


@needs_gradio
def test_a_call_for_which_there_is_no_room_is_told_when_to_come_back(
    make: Callable[..., Fixture], monkeypatch: pytest.MonkeyPatch
) -> None:
    from gradio.queueing import Queue

    with running(make(page=True)) as address:
        visitor = Visitor(address)
        monkeypatch.setattr(Queue, "__len__", lambda queue: 10**6)
        response = visitor.join("stop", "click", {})
    assert error_of(response, 503)["code"] == "page_busy"
    assert response.headers["retry-after"] == "5"


@needs_gradio
def test_the_page_asks_for_the_key_as_a_password(locked: str) -> None:
    import httpx

    for auth in (None, ("anybody", ""), ("anybody", "secret-2"), (KEY, ""), (KEY, "x")):
        for path in ("/", "/theme.css", "/gradio_api/queue/data?session_hash=x", "/gradio_api/heartbeat/x"):
            response = httpx.get(f"{locked}{path}", auth=auth)
            error_of(response, 401)
            assert response.headers["www-authenticate"].startswith("Basic ")
        error_of(httpx.post(f"{locked}{JOIN}", json={}, auth=auth), 401)
    for credentials in ("Basic", "Basic !", "Basic c2VjcmV0LTE=", "Basic /w=="):
        error_of(httpx.get(locked, headers={"authorization": credentials}), 401)
    visitor = Visitor(locked, KEY)
    assert "水果" in texts(visitor.ask("水果"))[-1][-1]
    # A browser adds a password by itself, so the interface takes none.
    for path in ("/v1/models", "/metrics", "/openapi.json"):
        response = visitor.client.get(path)
        error_of(response, 401)
        assert response.headers["www-authenticate"] == "Bearer"
    assert httpx.get(locked, headers={"authorization": f"Bearer {KEY}"}).status_code == 200


@needs_gradio
def test_questions_and_answers_are_not_logged(
    make: Callable[..., Fixture], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO), running(make(page=True)) as address:
        visitor = Visitor(address)
        visitor.ask("Zebra", context="Zebra")
        visitor.ask("Zebra", seed="Zebra")
        error_of(visitor.join("ask", "click", {"question": ["Zebra"]}), 400)
    out, err = capfd.readouterr()
    # The client in this process logs what it asks for.
    logged = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    assert f"POST {JOIN} 200" in logged
    for hidden in ("Zebra", visitor.session):
        assert hidden not in out + err + logged


def test_without_gradio_the_server_says_how_to_get_the_page(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "ms_medqa[web]" in error_of(ask(page=False)("GET", "/"), 404)["message"]
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gradio" else found(name))
    client = ask(page="auto")
    assert "ms_medqa[web]" in error_of(client("GET", "/"), 404)["message"]
    assert client.chat().status_code == 200
    with pytest.raises(UserError, match=r"gradio.*"):
        has_page(True)
    assert not has_page(False)


_PROGRAM = """
import json, sys
from pathlib import Path

sys.path.insert(0, sys.argv[1])
from serving_fakes import Fixture
from ms_medqa.serving.app import build_app

fixture = Fixture(Path(sys.argv[2]), page=False)
build_app(fixture.service)
fixture.close()
print(json.dumps([name for name in sys.modules if name.partition(".")[0] in ("gradio", "gradio_client")]))
"""


def test_a_server_without_a_page_does_not_import_gradio(tiny_tokenizer_folder: Path) -> None:
    command = [sys.executable, "-c", _PROGRAM, str(Path(__file__).parent), str(tiny_tokenizer_folder)]
    done: Any = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"GLOG_v": "3"}, timeout=60)
    assert json.loads(done.stdout.splitlines()[-1]) == []
