"""The end of a real server: what runs is finished, what is new refused, and none waited for too long."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from serving_client import error_of
from serving_fakes import Fixture, running, wait_for
from serving_wire import ENDLESS_BODY, HEAD, Make, port_of, post


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
