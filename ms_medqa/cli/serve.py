"""Serve a model and its adapters over HTTP, with the interface of OpenAI."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ms_medqa.cli.adapters import named_adapters
from ms_medqa.config import Config, load_config
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path

if TYPE_CHECKING:
    from ms_medqa.serving.service import Service

KEY_VARIABLE = "MS_MEDQA_API_KEY"
_LIBRARIES = ("fastapi", "uvicorn")
# For what runs in threads to come to its end.
_END_SECONDS = 0.2
# A key goes into a header.
_KEY = re.compile(r"[!-~]+")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys, such as serve.max_queue=16")
    parser.add_argument("--model", metavar="DIR", help="model folder or name of a shipped model (default: medqa-tiny)")
    parser.add_argument(
        "--adapter", metavar="NAME=DIR", action="append", default=[], help="adapter and its name; may be repeated"
    )
    parser.add_argument("--host", metavar="H", help="address to listen on (default: 127.0.0.1, this machine alone)")
    parser.add_argument("--port", type=int, metavar="P", help="port (default: 8000)")
    key = parser.add_mutually_exclusive_group()
    key.add_argument("--api-key", metavar="KEY", help="what clients must show; others here can read it in `ps`")
    key.add_argument(
        "--api-key-file",
        metavar="FILE",
        help=f"file that holds it; the environment variable {KEY_VARIABLE} will do too",
    )
    parser.add_argument("--config", metavar="FILE", help="YAML config; its sections `serve` and `generate` count")


def run(args: argparse.Namespace) -> int:
    """Serve until a signal."""
    config = load_config(args.config, args.overrides + _option_overrides(args))
    adapters = named_adapters(args.adapter)
    key = read_key(args.api_key, args.api_key_file)
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"serving needs {' and '.join(missing)}", "pip install 'ms_medqa[serve]'")
    from ms_medqa.backend.interrupt import hold_interrupt

    # Any thread of a library's would take Ctrl-C, were it to begin outside.
    with hold_interrupt():
        listener = _set_up(config, key)
    with listener:
        from ms_medqa.serving.build import load_service
        from ms_medqa.serving.run import serve

        service = load_service(args.model or config.model.path, adapters, config)
        with _ending(service):
            _start(service)
            _set_up_log()
            if config.serve.log_text:
                print("serve.log_text: prompts and answers are written into the log", file=sys.stderr)
            serve(service, key, listener, lambda stop: _announce(service, listener))
    return 0


@contextmanager
def _ending(service: Service) -> Iterator[None]:
    """End the service's threads behind the block, or the process where one does not end.

    Python does not take itself apart unharmed while MindSpore compiles or computes in another thread.
    """
    status, text = 0, ""
    try:
        yield
    except (SystemExit, KeyboardInterrupt) as stop:
        if service.stop(_END_SECONDS):
            raise
        # As `main` says and does it.
        text = getattr(stop, "text", "interrupted")
        status = stop.code if isinstance(stop, SystemExit) and isinstance(stop.code, int) else 128 + signal.SIGINT
    except BaseException:
        service.stop(_END_SECONDS)
        raise
    else:
        if service.stop(_END_SECONDS):
            return
    # A terminal that has been closed takes no more lines.
    with suppress(OSError):
        if text:
            print(f"ms-medqa serve: {text}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _start(service: Service) -> None:
    from ms_medqa.backend.interrupt import check_interrupt, hold_interrupt

    # Compiling ahead takes minutes, and its thread must not see Ctrl-C.
    with hold_interrupt():
        service.worker.start(check_interrupt)


def read_key(key: str | None, file: str | None) -> str | None:
    """The key that clients must show: from the option, the file or the environment; None where there is none.

    Raises:
        UserError: an empty key, or one with other characters than visible ASCII ones.
    """
    if key is not None:
        source = "--api-key"
    elif file is not None:
        source = f"--api-key-file {file}"
        try:
            key = user_path(file).read_text(encoding="utf-8").strip()
        except UnicodeDecodeError:
            raise UserError(f"{source}: not UTF-8 text") from None
    elif (key := os.environ.get(KEY_VARIABLE)) is not None:
        source = KEY_VARIABLE
    else:
        return None
    if not _KEY.fullmatch(key):
        raise UserError(
            f"{source}: a key is one word of visible ASCII characters", "such as `openssl rand -hex 32` makes"
        )
    return key


def _option_overrides(args: argparse.Namespace) -> list[str]:
    options = {"serve.host": args.host, "serve.port": args.port}
    return [f"{name}={value}" for name, value in options.items() if value is not None]


def _set_up(config: Config, key: str | None) -> socket.socket:
    """What can be told to be wrong before the model is loaded, which takes long; returns the socket to listen on."""
    from ms_medqa.backend.device import setup_runtime
    from ms_medqa.backend.interrupt import start_threads
    from ms_medqa.serving.page import has_page, load_page
    from ms_medqa.serving.run import bind

    listener = bind(config.serve.host, config.serve.port, key is not None)
    try:
        if has_page(config.serve.page):
            load_page()
        device = setup_runtime(config.runtime, mode="pynative")
        start_threads()
    except BaseException:
        listener.close()
        raise
    if device.notice:
        print(device.notice, file=sys.stderr)
    return listener


def _set_up_log() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for name, level in (("ms_medqa.serving", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)


def _announce(service: Service, listener: socket.socket) -> None:
    from ms_medqa.serving.front import DISCLAIMER
    from ms_medqa.serving.page import has_page

    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(DISCLAIMER, file=sys.stderr)
    address = f"http://{shown}:{port}"
    print(f"serving {', '.join(service.models)} on {address}", file=sys.stderr, flush=True)
    if has_page(service.settings.page):
        print(f"the page: {address}/", file=sys.stderr, flush=True)
