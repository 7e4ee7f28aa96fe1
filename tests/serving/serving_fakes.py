"""A core that echoes prompts at a set speed, and servers around it."""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import Config
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.generation.request import Output, Request
from ms_medqa.generation.sampling import Choice
from ms_medqa.serving.bodies import CompletionBody
from ms_medqa.serving.core import Core
from ms_medqa.serving.service import ServedModel, Service

# At this temperature an answer goes on until its limit: the echo begins anew each time.
ENDLESS = 2.0
LIMIT = 4096


class Row:
    """A running answer."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.made = 0


class EchoCore:
    """Answers with the prompt's own tokens, so that every answer shows whose it is.

    Args:
        rows: that may run at the same time.
        seconds: that a step takes.
    """

    def __init__(self, rows: int = 4, seconds: float = 0.0) -> None:
        self.rows: list[Row] = []
        self.seconds = seconds
        self.failures: list[Exception] = []
        self.requests: list[Request] = []
        self.most = 0
        self.steps = 0
        self._limit = rows
        self._owner = threading.get_ident()

    @property
    def free(self) -> int:
        self._own()
        return self._limit - len(self.rows)

    def check(self, request: Request) -> None:
        self._own()
        if len(request.prompt) + request.max_new_tokens > LIMIT:
            raise UserError("the prompt is too long for the model", "shorten it")

    def add(self, request: Request) -> Row:
        self._own()
        assert self.free > 0
        row = Row(request)
        self.rows.append(row)
        self.requests.append(request)
        self.most = max(self.most, len(self.rows))
        return row

    def step(self) -> list[Output]:
        self._own()
        assert self.rows
        self.steps += 1
        time.sleep(self.seconds)
        if self.failures:
            raise self.failures.pop()
        return [self._advance(row) for row in list(self.rows)]

    def remove(self, running: Row) -> None:
        self._own()
        self.rows.remove(running)

    def _advance(self, row: Row) -> Output:
        request = row.request
        if row.made == len(request.prompt) and request.params.temperature != ENDLESS:
            self.rows.remove(row)
            return Output(row, None, "stop")
        token = request.prompt[row.made % len(request.prompt)]
        row.made += 1
        over = row.made == request.max_new_tokens
        if over:
            self.rows.remove(row)
        if request.logprobs is None:
            return Output(row, Choice(token), "length" if over else None)
        top = tuple((token + place, -0.5 - place) for place in range(request.logprobs))
        return Output(row, Choice(token, -0.5, top), "length" if over else None)

    def _own(self) -> None:
        assert threading.get_ident() == self._owner, "another thread has called the core"


@functools.cache
def tokenizer_of(folder: Path) -> Tokenizer:
    """One tokenizer for all tests."""
    return Tokenizer.load(folder)


class Fixture:
    """A service over an EchoCore.

    Args:
        folder: of the tokenizer.
        rows, seconds: of the core.
        adapters: names beside the base model `base`.
        positions: of all models.
        keys: of the config's section `serve`.
    """

    def __init__(
        self,
        folder: Path,
        rows: int = 4,
        seconds: float = 0.0,
        adapters: tuple[str, ...] = (),
        positions: int = LIMIT,
        **keys: Any,
    ) -> None:
        self.tokenizer = tokenizer_of(folder)
        self.config = Config.model_validate(
            {"serve": {"drain_seconds": 5, "request_seconds": 20, "page": False, **keys}}
        )
        chat, plain = (Prompt.named(name, self.tokenizer) for name in ("chat", "medqa"))
        ends = frozenset(chat.stop_token_ids)
        models = [ServedModel("base", None, chat, ends, positions)]
        models += [ServedModel(name, name, plain, ends, positions) for name in adapters]
        self.cores: list[EchoCore] = []
        # Of the server around it, see `running`.
        self.stop: Callable[[], object] = lambda: None
        self.service = Service(models, functools.partial(self._make, rows, seconds), self.config)
        self.service.worker.start()

    @property
    def core(self) -> EchoCore:
        return self.cores[0]

    def _make(self, rows: int, seconds: float) -> Core:
        self.cores.append(EchoCore(rows, seconds))
        return self.cores[0]

    def body(self, **fields: Any) -> CompletionBody:
        """A request for a plain text."""
        return CompletionBody.model_validate({"model": "base", "prompt": "水果", **fields})

    def close(self) -> None:
        """End the worker."""
        assert self.service.worker.stop(5)

    def wait_idle(self) -> None:
        """Wait until no row is taken."""
        wait_for(lambda: not self.core.rows and not self.service.worker.reserved)


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to be"
        time.sleep(0.005)


@contextlib.contextmanager
def running(fixture: Fixture, key: str | None = None) -> Iterator[str]:
    """The address of a real server on a free port of this machine, in a thread."""
    from ms_medqa.serving.run import bind, serve

    started: queue.Queue[Callable[[], object]] = queue.Queue()
    with bind("127.0.0.1", 0, has_key=key is not None) as listener:
        port = listener.getsockname()[1]
        thread = threading.Thread(target=serve, args=(fixture.service, key, listener, started.put), daemon=True)
        thread.start()
        fixture.stop = stop = started.get(timeout=20)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(RuntimeError):
                stop()
            thread.join(15)
            assert not thread.is_alive(), "the server did not end"
