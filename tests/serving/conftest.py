"""What the tests of the server share; they are skipped where its libraries are not installed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# The broken requests are those of `benchmarks/serve.py`.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
_NEEDED = ("fastapi", "uvicorn", "httpx")
_MISSING = [name for name in _NEEDED if importlib.util.find_spec(name) is None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip with a reason where a library is missing."""
    if _MISSING:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason=f"not installed: {', '.join(_MISSING)}"))


@pytest.fixture
def make(tiny_tokenizer_folder: Path) -> Iterator[Callable[..., Any]]:
    """Makes a service over a core that echoes; see `serving_fakes.Fixture`."""
    from serving_fakes import Fixture

    made: list[Fixture] = []

    def build(folder: Path = tiny_tokenizer_folder, **options: Any) -> Fixture:
        made.append(Fixture(folder, **options))
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.fixture
def ask(make: Callable[..., Any]) -> Iterator[Callable[..., Any]]:
    """Makes a client of an application that runs in the test's own process, without a socket."""
    from serving_client import LocalClient

    from ms_medqa.serving.app import build_app

    clients: list[LocalClient] = []

    def build(key: str | None = None, **options: Any) -> LocalClient:
        fixture = make(**options)
        clients.append(LocalClient(build_app(fixture.service, key), fixture))
        return clients[-1]

    yield build
    for client in clients:
        client.close()
