"""How much may be held for pages, whatever their clients do."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.util
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from page_visitor import Visitor, texts
from serving_client import error_of
from serving_fakes import ENDLESS, Fixture, running, wait_for

from ms_medqa.serving.errors import ApiError
from ms_medqa.serving.page import visits
from ms_medqa.serving.page.visits import Visits

needs_gradio = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="not installed: gradio")
FOREVER = {"temperature": ENDLESS, "max_tokens": 2000}
# It is refused before anything is made of it, and shown with all its signs spelt out.
HUGE = {"question": "&" * 1_000_000, "seed": "x"}


class Notes:
    """Notes what is thrown away."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def leave(self, name: str) -> None:
        self.told.append(("leave", name))

    def drop(self, name: str) -> None:
        self.told.append(("drop", name))

    def settle(self, name: str) -> None:
        self.told.append(("settle", name))

    def forget(self, name: str) -> None:
        self.told.append(("forget", name))


def _refused(act: Callable[[], object]) -> bool:
    try:
        act()
    except ApiError as error:
        return (error.status, error.code) == (503, "page_busy")
    return False


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "_UNREAD_SECONDS", 0.05)
    monkeypatch.setattr(visits, "_KEPT_SECONDS", 0.3)


def test_what_a_page_does_not_fetch_is_bounded_and_thrown_away(short: None) -> None:
    async def ask() -> None:
        notes = Notes()
        pages = Visits(notes, 2**20)
        with pages.connected("open", reads=False):
            assert [_refused(lambda: pages.ask("open", 2**20 - 2**15)) for _ in range(4)] == [False, False, True, True]
            assert not _refused(lambda: pages.ask("other", 2**19))
            await asyncio.sleep(0.15)
            # One has not been open at all.
            assert notes.told == [(what, "open") for what in ("leave", "drop")] + [
                (what, "other") for what in ("leave", "forget")
            ]
            assert not _refused(lambda: pages.ask("open", 2**21))

    asyncio.run(ask())


def test_all_pages_together_are_bounded(short: None) -> None:
    async def ask() -> None:
        pages = Visits(Notes(), 2**20)
        refused = [_refused(lambda number=number: pages.ask(f"p{number}", 2**20)) for number in range(40)]
        assert refused == [False] * 15 + [True] * 25
        await asyncio.sleep(0.15)
        assert not _refused(lambda: pages.ask("p39", 2**20))

    asyncio.run(ask())


def test_what_is_fetched_counts_no_more(short: None) -> None:
    async def ask() -> None:
        notes = Notes()
        pages = Visits(notes, 2**20)
        for _ in range(10):
            pages.ask("a", 2**20)
            with pages.connected("a", reads=True):
                await asyncio.sleep(0.07)
            pages.all_read("a")
        assert notes.told == [("settle", "a")] * 10
        await asyncio.sleep(0.4)
        assert notes.told[10:] == [("leave", "a"), ("forget", "a")]

    asyncio.run(ask())


def test_of_too_many_pages_those_go_that_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "MOST", 3)

    async def ask() -> None:
        notes = Notes()
        pages = Visits(notes, 2**20)
        with contextlib.ExitStack() as opened:
            opened.enter_context(pages.connected("a", reads=False))
            pages.ask("a", 9)
            for name in "bcd":
                pages.ask(name, 9)
            assert notes.told == [("leave", "b"), ("forget", "b")]
            for name in "ef":
                opened.enter_context(pages.connected(name, reads=False))
            assert _refused(lambda: pages.ask("g", 9))
            assert _refused(lambda: opened.enter_context(pages.connected("g", reads=False)))
            assert not _refused(lambda: pages.ask("a", 9))

    asyncio.run(ask())


@pytest.fixture
def fixture(make: Callable[..., Fixture]) -> Fixture:
    return make(page=True, seconds=0.002)


@pytest.fixture
def address(fixture: Fixture) -> Iterator[str]:
    with running(fixture) as address:
        yield address


@needs_gradio
def test_a_page_that_never_fetches_gets_no_more_and_costs_nobody(
    address: str, fixture: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visits, "_UNREAD_SECONDS", 3)
    visitor = Visitor(address)
    responses = [visitor.join("ask", "click", HUGE) for _ in range(4)]
    assert [response.status_code for response in responses[:2]] == [200, 200]
    for response in responses[2:]:
        assert error_of(response, 503)["code"] == "page_busy"
    assert "水果" in texts(Visitor(address).ask("水果"))[-1][-1]

    def is_dropped() -> bool:
        with visitor.client.stream("GET", f"/gradio_api/queue/data?session_hash={visitor.session}") as response:
            return response.status_code == 404

    # Looking at it would be fetching.
    time.sleep(4)
    assert is_dropped()
    assert visitor.join("ask", "click", HUGE).status_code == 200


@needs_gradio
def test_what_nobody_fetches_is_not_made(address: str, fixture: Fixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "_UNREAD_SECONDS", 0.5)
    visitor = Visitor(address)
    with visitor.client.stream("GET", f"/gradio_api/heartbeat/{visitor.session}") as heartbeat:
        lines = heartbeat.iter_lines()
        next(lines)
        visitor.join("ask", "click", {"question": "水果", **FOREVER}).raise_for_status()
        wait_for(lambda: fixture.core.rows)
        fixture.wait_idle()
        assert fixture.core.steps < 1500
        # The page is as good as new.
        assert "水果" in texts(visitor.ask("水果"))[-1][-1]


@needs_gradio
def test_an_open_page_keeps_its_dialogue_whoever_else_comes(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "MOST", 3)
    visitor = Visitor(address)
    with visitor.client.stream("GET", f"/gradio_api/heartbeat/{visitor.session}") as heartbeat:
        lines = heartbeat.iter_lines()
        next(lines)
        visitor.ask("水果？")
        others = [Visitor(address) for _ in range(5)]
        assert all(len(texts(other.ask("水？"))[-1]) == 2 for other in others)
        assert len(texts(visitor.ask("还有呢？"))[-1]) == 4
        # One that was closed, and for which another has come, begins anew.
        assert len(texts(others[0].ask("水？"))[-1]) == 2


@needs_gradio
def test_of_a_question_nothing_stays_behind_but_its_dialogue(address: str) -> None:
    from gradio.state_holder import SessionState

    visitor = Visitor(address)
    visitor.ask("Zebra" * 10, seed="x")
    visitor.ask("Zebra" * 10, context="Zebra" * 10)

    def held() -> list[Any]:
        states = [each for each in gc.get_objects() if type(each) is SessionState]
        return [values for state in states for values in state.config_values.values() if "ZebraZebra" in str(values)]

    wait_for(lambda: not held())
    assert len(texts(visitor.ask("水"))[-1]) == 4


@needs_gradio
def test_a_call_is_refused_that_no_page_makes(address: str) -> None:
    visitor = Visitor(address)
    stop = visitor.function("stop", "click")["id"]
    body = {"data": [], "fn_index": stop, "session_hash": visitor.session}
    for wrong in (
        {"session_hash": None},
        {"session_hash": "x" * 65},
        {"session_hash": "../x"},
        {"data": ["Zebra"]},
        {"data": "Zebra"},
        {"fn_index": 999},
        {"fn_index": -1},
        {"fn_index": True},
        {"fn_index": "0"},
        {"fn_index": None},
    ):
        error_of(visitor.client.post("/gradio_api/queue/join", json=body | wrong), 400)
    for harmless in ({"trigger_id": "Zebra"}, {"event_data": "Zebra"}, {"batched": "Zebra"}, {"event_id": "Zebra"}):
        assert visitor.client.post("/gradio_api/queue/join", json=body | harmless).status_code == 200
    error_of(visitor.client.get("/gradio_api/queue/data?session_hash=unknown"), 404)
    error_of(visitor.client.get("/gradio_api/queue/data"), 404)


@needs_gradio
def test_only_what_an_open_page_holds_counts_as_one(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visits, "MOST", 3)
    visitor = Visitor(address)
    visitor.ask("水果？")
    for number in range(5):
        for path in (f"heartbeat/x{number}", f"queue/data?session_hash=x{number}", "queue/data?session_hash=../x"):
            visitor.client.head(f"/gradio_api/{path}")
    # Its dialogue has not had to go.
    assert len(texts(visitor.ask("还有呢？"))[-1]) == 4


@needs_gradio
@pytest.mark.parametrize(
    "values",
    [
        {"model-0": "Zebra"},
        {"language": "Zebra"},
        {"temperature": "Zebra"},
        {"question": None, "seed": None},
        {"language": None, "model-0": None, "model-1": None, "context": None, "max_tokens": None},
        {"temperature": True, "top_k": 1e300, "max_tokens": -5, "context": "&", "seed": 0},
        {"language": 1, "model-0": 2, "model-1": 3, "question": 4, "context": 5, "seed": 6},
    ],
)
def test_values_that_gradio_refuses_are_not_logged(
    address: str, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, values: dict[str, Any]
) -> None:
    visitor = Visitor(address)
    with contextlib.suppress(AssertionError):
        list(visitor.act("ask", "click", {"question": "Zebra", **values}))
    assert "水果" in texts(visitor.ask("水果"))[-1][-1]
    out, err = capfd.readouterr()
    # The client in this process logs what it asks for.
    logged = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("http"))
    for hidden in ("Zebra", "Traceback", "failed"):
        assert hidden not in out + err + logged


@needs_gradio
def test_a_failure_of_the_pages_own_is_written_down(
    address: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ms_medqa.serving.page import handlers

    said = "Zebra"

    def fail(*arguments: Any) -> Any:
        raise ZeroDivisionError(said)

    monkeypatch.setattr(handlers, "_chosen", fail)
    visitor = Visitor(address)
    with pytest.raises(AssertionError):
        list(visitor.act("ask", "click", {"question": "水果"}))
    assert "a function of the page failed: ZeroDivisionError" in caplog.text
    assert said not in caplog.text
