"""What is compiled ahead is all that requests need later."""

from __future__ import annotations

import importlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from scheduling import GREEDY, SHARED, alone, prompt, request, run

from ms_medqa.backend.few_rows_library import library
from ms_medqa.generation import generate, load_model, reading, rows
from ms_medqa.generation.request import Request
from ms_medqa.generation.scheduler import Scheduler
from ms_medqa.models import step_kernel
from ms_medqa.models.cache import CachedDecoder
from ms_medqa.peft.rows import load_row_adapters


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The functions of which MindSpore compiles a graph, one after the other."""
    names: list[str] = []
    for place in ("mindspore.graph.api", "mindspore.common.api"):
        with suppress(ImportError, AttributeError):
            executor = importlib.import_module(place)._JitExecutor
            # It is asked for where a graph is not there yet.
            real = executor._set_compile_cache_dep_files

            def noted(self: Any, *given: Any, real: Any = real) -> Any:
                names.append(self.fn.__name__)
                return real(self, *given)

            monkeypatch.setattr(executor, "_set_compile_cache_dep_files", noted)
            return names
    pytest.skip("this MindSpore does not tell when it compiles")


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> set[tuple[str, int]]:
    """How prompts are read: the first piece of one, a later one, or several together; and the width."""
    found: set[tuple[str, int]] = set()
    read, together = CachedDecoder.read, CachedDecoder.read_together

    def noted_read(self: CachedDecoder, tokens: Any, row: int, start: int, width: int, *others: Any) -> Any:
        found.add(("later" if start else "first", width))
        return read(self, tokens, row, start, width, *others)

    def noted_together(self: CachedDecoder, prompts: Any, rows: Any, width: int, *others: Any) -> Any:
        found.add(("together", width))
        return together(self, prompts, rows, width, *others)

    monkeypatch.setattr(CachedDecoder, "read", noted_read)
    monkeypatch.setattr(CachedDecoder, "read_together", noted_together)
    return found


# Requests that may come to the end of the cache, where no piece of the usual widths has room, and some that may not.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "limit", "widest", "most"), [("kernel", 250, 512, 2), ("operators", 100, 256, 2)], indirect=["way"]
)
def test_no_request_waits_for_a_graph(
    limit: int,
    widest: int,
    most: int,
    compiled: list[str],
    widths: set[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    way: str,
) -> None:
    rng = np.random.default_rng(limit)
    lengths = [limit - 3, *rng.integers(1, limit - 10, 12).tolist()]
    # Every other one has a start in common with others; those at the end are longer together than the cache.
    prompts = [prompt(size, SHARED if size > len(SHARED) and number % 2 else ()) for number, size in enumerate(lengths)]
    prompts += [[*prompts[0][:-2], 9, 9], *(prompt(limit - 20) for _ in range(most))]
    news = [min(int(rng.integers(1, 30)), limit - len(tokens)) for tokens in prompts]
    expected = [alone(tokens, new) for tokens, new in zip(prompts, news, strict=True)]
    made: list[tuple[int, int]] = []

    class Counted(CachedDecoder):
        def __init__(self, model: Any, batch: int, length: int) -> None:
            made.append((batch, length))
            super().__init__(model, batch, length)

    monkeypatch.setattr(rows, "CachedDecoder", Counted)
    batch = Scheduler(tiny.model(), most)
    batch.warm_up(limit)
    # Where the kernel reads, longer prompts alone are for operators.
    graphs = {"begin", "go_on", "layers", "head", "pick", "embed"}
    assert set(compiled) >= (graphs if way == "operators" else {"tokens"})
    length = rows.cache_length(batch.model, limit)
    sizes = [(size, length) for size in (4, 2, 1) if size < 2 * most]
    assert made == sizes
    compiled.clear()
    widths.clear()
    running, waiting = [], [request(tokens, new) for tokens, new in zip(prompts, news, strict=True)][::-1]
    while len(waiting) > most:
        # At times one, at times as many as there is room for.
        for _ in range(int(rng.integers(0, batch.free + 1))):
            if len(waiting) > most:
                running.append(batch.add(waiting.pop()))
        for _ in range(int(rng.integers(1, 20))):
            batch.step()
    run(batch)
    running += map(batch.add, waiting[::-1])
    run(batch)
    assert [one.tokens for one in running] == expected
    if way == "operators":
        assert ("together", widest) in widths
        assert {kind for kind, _ in widths} == {"first", "later", "together"}
    assert compiled == []
    assert made == sizes


@pytest.mark.skipif(library() is None, reason="the installation found no C++ compiler")
def test_few_tokens_of_large_layers_that_operators_might_read(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch, together: list[list[int]]
) -> None:
    """The kernel reads them wherever they come from, for no operator's graph is as narrow."""
    monkeypatch.setattr(step_kernel, "SMALL_LAYER", 0)
    monkeypatch.setattr(reading, "LARGEST_PIECE", 64)
    prompts = [prompt(size) for size in (10, 20, 60, 5)]
    expected = [alone(tokens) for tokens in prompts]
    batch = Scheduler(tiny.model(), 4)
    batch.warm_up(100)
    for _ in range(2):
        compiled.clear()
        running = [batch.add(request(tokens)) for tokens in prompts]
        run(batch)
        assert [one.tokens for one in running] == expected
        assert compiled == []
        batch.forget()
    assert together == []


def test_with_adapters_as_well(tmp_path: Path, compiled: list[str]) -> None:
    model, adapter = load_model(tiny.folder()), tiny.write_adapter(tmp_path / "adapter")
    options = {"max_new_tokens": 6, "greedy": True, "repetition_penalty": 1.0, "eos_token_id": []}
    tokens = prompt(40)
    expected = [generate(one, [tokens], **options)[0] for one in (model, load_model(tiny.folder(), adapter))]
    batch = Scheduler(model, 2, load_row_adapters(model, {"tuned": adapter}))
    batch.warm_up(60)
    compiled.clear()
    running = [batch.add(Request(tokens, GREEDY, 6, adapter=name)) for name in (None, "tuned")]
    run(batch)
    assert [one.tokens for one in running] == expected
    assert compiled == []


@pytest.mark.usefixtures("operators")
def test_after_a_failure_the_sizes_are_the_same(compiled: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache that failed is gone; one of another length would bring graphs of its own for all widths."""

    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    first, second = prompt(20), prompt(40)
    expected = alone(second)
    batch = Scheduler(tiny.model(), 1)
    batch.warm_up(200)
    batch.add(request(first))
    with monkeypatch.context() as patch:
        patch.setattr(CachedDecoder, "read", fail)
        with pytest.raises(RuntimeError, match="a fault"):
            batch.step()
    compiled.clear()
    running = batch.add(request(second))
    run(batch)
    again = batch.add(request([*second, *prompt(5)]))
    run(batch)
    assert running.tokens == expected
    assert again.shared > 0
    assert set(compiled) == {"layers"}
