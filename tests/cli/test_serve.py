"""`ms-medqa serve`: its arguments, and a real model behind it."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tiny

from ms_medqa.cli import serve as command
from ms_medqa.cli.main import main

INSTALLED = all(importlib.util.find_spec(name) for name in ("fastapi", "uvicorn", "httpx"))
has_gradio = importlib.util.find_spec("gradio") is not None
needs_libraries = pytest.mark.skipif(not INSTALLED, reason="not installed: fastapi, uvicorn or httpx")


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(command.KEY_VARIABLE, raising=False)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a faulty command line is told."""
    assert main(["serve", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    return err


def test_without_its_libraries_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_LIBRARIES", ("no_such_library", "sys"))
    assert "needs no_such_library: pip install 'ms_medqa[serve]'" in refused(capsys)


@needs_libraries
@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_an_address_that_others_reach_needs_a_key(capsys: pytest.CaptureFixture[str], host: str) -> None:
    assert "there is no key" in refused(capsys, "--host", host, "--model", "no-such-model")


@needs_libraries
def test_a_port_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert f"127.0.0.1 port {port}" in refused(capsys, "--port", port)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--adapter", "x"], "NAME=DIR"),
        (["--adapter", "a/b=x"], "NAME=DIR"),
        (["--adapter", "=x"], "NAME=DIR"),
        (["--adapter", "a=x", "--adapter", "a=y"], "is taken"),
        (["--api-key", ""], "visible ASCII"),
        (["--api-key", "two words"], "visible ASCII"),
        (["--api-key-file", "/no/such/file"], "/no/such/file"),
        (["--port", "70000"], "serve.port"),
        (["serve.page=maybe"], "serve.page"),
        (["serve.max_queu=3"], "did you mean 'serve.max_queue'?"),
        (["serve.cors_origins=[example.org]"], "no origin"),
        (["--host", " "], "serve.host"),
        (["generate.num_beams=4", "--port", "0"], "the server draws"),
    ],
)
def test_arguments_that_cannot_be(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert said in refused(capsys, *arguments)


@needs_libraries
def test_faults_of_the_command_line_are_told_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ms_medqa.serving import build

    def load(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("the model is loaded")

    monkeypatch.setattr(build, "load_model", load)
    (tmp_path / "empty").mkdir()
    adapter = tiny.write_adapter(tmp_path / "adapter")
    for argument, said in (
        (f"medqa={tmp_path / 'tpyo'}", "tpyo: no such folder"),
        (f"medqa={tmp_path / 'empty'}", "adapter_config.json"),
        (f"medqa-tiny={adapter}", "--adapter medqa-tiny: the model itself has this name"),
    ):
        assert said in refused(capsys, "--port", "0", "serve.page=false", "--adapter", argument)


@needs_libraries
@pytest.mark.skipif(not has_gradio, reason="not installed: gradio")
def test_a_page_that_cannot_be_made_is_told_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ms_medqa.serving.page.mount", None)
    error = refused(capsys, "--port", "0", "--model", "no-such-model")
    assert "the page cannot be made: ModuleNotFoundError" in error
    assert "serve.page=false" in error
    assert "no-such-model" in refused(capsys, "--port", "0", "--model", "no-such-model", "serve.page=false")


def test_where_the_key_comes_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    file.write_text("from-file\n")
    assert command.read_key(None, None) is None
    monkeypatch.setenv(command.KEY_VARIABLE, "from-variable")
    assert command.read_key(None, None) == "from-variable"
    assert command.read_key(None, str(file)) == "from-file"
    # A shell leaves it as it is in `--api-key-file=~/key`.
    monkeypatch.setenv("HOME", str(tmp_path))
    assert command.read_key(None, "~/key") == "from-file"
    assert command.read_key("from-option", None) == "from-option"


def _texts(client: Any, body: dict[str, Any]) -> list[str]:
    response = client.post("/v1/chat/completions", json=body)
    return [choice["message"]["content"] for choice in response.json()["choices"]]


@needs_libraries
def test_a_real_model_and_its_adapter_answer_until_a_signal(tmp_path: Path) -> None:
    import httpx

    adapter = tiny.write_adapter(tmp_path / "adapter")
    arguments = ["--model", str(tiny.folder()), "--adapter", f"tuned={adapter}", "--port", "0"]
    environment = os.environ | {command.KEY_VARIABLE: "secret"}
    process = subprocess.Popen(
        [sys.executable, "-m", "ms_medqa.cli.main", "serve", *arguments, "serve.model_name=plain"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    with process:
        try:
            assert process.stderr is not None
            line = next(line for line in process.stderr if " on http://" in line)
            assert line.startswith("serving plain, tuned on ")
            if has_gradio:
                assert process.stderr.readline() == f"the page: {line.split()[-1]}/\n"
            answers = {}
            with httpx.Client(base_url=line.split()[-1], timeout=60) as client:
                assert client.get("/health").json()["ready"] is True
                assert client.get("/v1/models").status_code == 401
                assert client.get("/", auth=("me", "secret")).status_code == (200 if has_gradio else 401)
                client.headers["authorization"] = "Bearer secret"
                for model in ("plain", "tuned"):
                    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "头痛怎么办？"}]}
                    body |= {"temperature": 0, "max_tokens": 8}
                    response = client.post("/v1/chat/completions", json=body)
                    assert response.status_code == 200, response.text
                    answers[model] = response.json()["choices"][0]["message"]["content"]
                # Answers of one seed differ from each other, and come again whoever shares the batch.
                body |= {"model": "plain", "temperature": 2, "n": 3, "seed": 7}
                drawn = [_texts(client, body) for _ in range(2)]
                alone = _texts(client, body | {"n": 1})
                # The model has 256 positions, and the default answer 200 tokens.
                long = {"model": "plain", "prompt": "a" * 100, "temperature": 0}
                usage = client.post("/v1/completions", json=long).json()["usage"]
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(20) == 0, rest
        finally:
            process.kill()
    assert answers["plain"] == tiny.qa().answer("头痛怎么办？", temperature=0, max_new_tokens=8)
    assert answers["tuned"] != answers["plain"]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == 3
    assert alone == drawn[0][:1]
    assert usage["prompt_tokens"] > 56
    assert usage["completion_tokens"] <= 256 - usage["prompt_tokens"]
    assert "头痛" not in rest
    assert "Traceback" not in rest


# It tells when the graphs begin to be compiled. In the background of a shell SIGINT is ignored, under nohup SIGHUP.
_PROGRAM = """
import signal, sys
from ms_medqa.cli import serve
from ms_medqa.cli.main import main

def told(service):
    print("compiling", flush=True)
    start(service)

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
start, serve._start = serve._start, told
sys.exit(main(["serve", *sys.argv[1:]]))
"""


@needs_libraries
@pytest.mark.slow
# Before and after the first graph has run.
@pytest.mark.parametrize(
    ("number", "said", "seconds"),
    [
        (signal.SIGTERM, "ended by SIGTERM", 0.0),
        (signal.SIGTERM, "ended by SIGTERM", 6.0),
        (signal.SIGHUP, "ended by SIGHUP", 0.0),
        (signal.SIGINT, "interrupted", 0.0),
        (signal.SIGINT, "interrupted", 6.0),
    ],
)
def test_a_signal_while_graphs_are_compiled_ends_it_at_once(number: signal.Signals, said: str, seconds: float) -> None:
    command = [sys.executable, "-c", _PROGRAM, "--port", "0", "serve.warm_up=true", "serve.page=false"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, env=os.environ | {"GLOG_v": "3"}) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "compiling\n"
            time.sleep(seconds)
            process.send_signal(number)
            began = time.monotonic()
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    assert time.monotonic() - began < 5
    assert process.returncode == 128 + number, err
    assert err.splitlines()[-1] == f"ms-medqa serve: {said}"
    assert "Traceback" not in err
    assert out == ""


@needs_libraries
@pytest.mark.slow
def test_a_server_that_has_compiled_everything_answers(tmp_path: Path) -> None:
    import httpx

    limits = ["serve.max_batch=1", "serve.max_prompt_tokens=120", "serve.max_tokens=8", "serve.page=false"]
    command = [
        sys.executable,
        "-m",
        "ms_medqa.cli.main",
        "serve",
        "--model",
        str(tiny.folder()),
        "--port",
        "0",
        *limits,
    ]
    with subprocess.Popen([*command, "serve.warm_up=true"], stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            address = next(line for line in process.stderr if " on http://" in line).split()[-1]
            name = httpx.get(f"{address}/health", timeout=20).json()["model"]
            body = {
                "model": name,
                "messages": [{"role": "user", "content": "头痛？"}],
                "temperature": 0,
                "max_tokens": 8,
            }
            response = httpx.post(f"{address}/v1/chat/completions", json=body, timeout=60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()
    (choice,) = response.json()["choices"]
    assert choice["message"]["content"] == tiny.qa().answer("头痛？", temperature=0, max_new_tokens=8)
