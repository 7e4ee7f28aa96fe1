"""From folders to a service: the rows that it has, and what is told before they are made."""

from __future__ import annotations

from typing import Any

import pytest
import tiny

from ms_medqa.config.errors import RunError, UserError
from ms_medqa.config.schema import Config
from ms_medqa.config.serve_section import ServeSection
from ms_medqa.generation.scheduler import Scheduler
from ms_medqa.models.cache import CachedDecoder, position_bytes
from ms_medqa.models.prompt_reader import PromptReader
from ms_medqa.serving.build import load_service, rows_for
from ms_medqa.serving.service import Service


@pytest.mark.parametrize(("megabytes", "rows"), [(1, 32), (64, 32), (65, 16), (128, 16), (129, 8), (256, 8), (1024, 8)])
def test_rows_by_the_size_of_one(megabytes: int, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """2 GiB hold 32 rows of 64 MiB."""
    model = tiny.model()
    # The model's limit is shorter than that of the settings.
    longest = model.config.position_limit
    monkeypatch.setattr("ms_medqa.serving.build.position_bytes", lambda of: megabytes * 2**20 // longest)
    assert rows_for(model, ServeSection()) == rows
    assert rows_for(model, ServeSection(max_batch=5)) == 5


@pytest.mark.parametrize("wanted", [False, True])
def test_graphs_are_compiled_before_the_first_request_where_that_is_wanted(
    monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    lengths: list[int] = []
    monkeypatch.setattr(Scheduler, "warm_up", lambda self, length: lengths.append(length))
    service = _service(warm_up=wanted, max_prompt_tokens=100, max_tokens=40)
    service.worker.start()
    assert lengths == ([140] if wanted else [])
    assert service.stop(5)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), UserError),
        (RuntimeError("Malloc for kernel output failed, Memory isn't enough, node:Default/Add"), UserError),
        (RuntimeError("Allocate device memory failed."), UserError),
        (RunError("the memory of a run"), RunError),
        (RuntimeError("The shapes do not fit"), RuntimeError),
        (TypeError("memory"), TypeError),
    ],
)
def test_caches_for_which_there_is_no_memory_are_said_so(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: type[Exception]
) -> None:
    def fail(self: Scheduler, length: int) -> None:
        raise error

    monkeypatch.setattr(Scheduler, "warm_up", fail)
    service = _service(warm_up=True, max_batch=7)
    with pytest.raises(expected) as caught:
        service.worker.start()
    assert (caught.value is error) == (expected is not UserError)
    if expected is UserError:
        assert "up to 7 rows of 256 tokens: lower serve.max_batch, serve.max_prompt_tokens" in str(caught.value)
    assert service.stop(5)


def _service(**keys: Any) -> Service:
    tiny.model()
    return load_service(str(tiny.folder()), {}, Config.model_validate({"serve": keys}))


def test_bytes_of_a_position_are_those_of_the_caches() -> None:
    decoder = CachedDecoder(PromptReader(tiny.model()), 2, 16)
    held = sum(cache.nbytes for cache in (*decoder.keys, *decoder.values))
    assert held == 2 * 16 * position_bytes(tiny.model())
