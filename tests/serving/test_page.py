"""The page without a browser: what it asks of the models, and what it shows."""

from __future__ import annotations

import asyncio
import importlib.util
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from page_visitor import Visitor, texts
from serving_fakes import ENDLESS, Fixture, running, wait_for

from ms_medqa.data.example import Example
from ms_medqa.serving.page.run import Answer, Run
from ms_medqa.serving.page.texts import CHINESE, ENGLISH, preferred

pytestmark = pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason="not installed: gradio")
Open = Callable[..., Visitor]
QUESTION = "糖尿病患者可以吃水果吗？"
FOREVER = {"temperature": ENDLESS, "max_tokens": 2000}


@pytest.fixture
def fixture(make: Callable[..., Fixture]) -> Fixture:
    return make(adapters=("tuned",), page=True, seconds=0.005, max_queue=2, max_prompt_tokens=300)


@pytest.fixture
def visit(fixture: Fixture) -> Iterator[Open]:
    visitors: list[Visitor] = []
    with running(fixture) as address:

        def build(**options: Any) -> Visitor:
            visitors.append(Visitor(address, **options))
            return visitors[-1]

        yield build
        for visitor in visitors:
            visitor.client.close()


def test_an_answer_grows_while_it_is_made(visit: Open, fixture: Fixture) -> None:
    told = visit().ask(QUESTION * 20)
    shown = texts(told)
    answers = [messages[-1] for messages in shown]
    assert {messages[0] for messages in shown} == {QUESTION * 20}
    assert len(set(answers)) > 5
    assert all(later.startswith(earlier) for earlier, later in pairwise(answers[1:]))
    assert QUESTION in answers[-1]
    assert told[0]["status"] == ENGLISH.running
    assert told[0]["stop"]["interactive"]
    # Else an answer could stand under another model's name.
    assert not any(told[0][part]["interactive"] for part in ("ask", "clear", "model-0", "model-1"))
    assert told[-1]["status"].startswith("Done")
    assert all(told[-1][part]["interactive"] for part in ("ask", "clear", "model-0", "model-1"))
    assert 'route="page",status="200"} 1' in fixture.service.metrics.text()


def test_the_settings_reach_the_model(visit: Open, fixture: Fixture) -> None:
    settings = {"temperature": 0.7, "top_p": 0.5, "top_k": 7, "min_p": 0.25, "repetition_penalty": 1.5}
    told = visit().ask(QUESTION, context="多吃蔬菜。", seed=" 12 ", max_tokens=9, **settings)
    (request,) = fixture.core.requests
    assert {name: getattr(request.params, name) for name in settings} == settings
    assert (request.seed, request.max_new_tokens, request.adapter) == (12, 9, "tuned")
    example = Example("", QUESTION, "", context="多吃蔬菜。")
    assert list(request.prompt) == fixture.service.models["tuned"].prompt.encode_prompt(example)
    assert told[-1]["status"] == ENGLISH.cut.format(seed=12)


def test_an_answer_ends_where_the_config_says(visit: Open, fixture: Fixture) -> None:
    fixture.config.generate.stop = ["水果"]
    assert texts(visit().ask(QUESTION))[-1][-1].endswith("糖尿病患者可以吃")


def test_an_answer_has_what_room_there_is(make: Callable[..., Fixture]) -> None:
    fixture = make(page=True, positions=128)
    with running(fixture) as address:
        visitor = Visitor(address)
        longest = visitor.part("max_tokens")
        assert (longest["value"], longest["maximum"]) == (127, 127)
        told = visitor.ask(QUESTION, temperature=ENDLESS)
    (request,) = fixture.core.requests
    assert request.max_new_tokens == 128 - len(request.prompt)
    assert told[-1]["status"].startswith(ENGLISH.cut.partition("{")[0])


@pytest.mark.parametrize("penalty", [0.2, 2.5])
def test_a_default_beyond_its_slider_does_not_shut_the_page(make: Callable[..., Fixture], penalty: float) -> None:
    fixture = make(page=True)
    defaults = fixture.config.generate
    defaults.repetition_penalty, defaults.top_p = penalty, 0.005
    with running(fixture) as address:
        assert Visitor(address).ask(QUESTION)[-1]["status"].startswith("Done")
    (request,) = fixture.core.requests
    assert (request.params.repetition_penalty, request.params.top_p) == (penalty, 0.01)


def test_base_and_tuned_answer_one_question_side_by_side(visit: Open, fixture: Fixture) -> None:
    told = visit().ask(QUESTION, model_0="base", model_1="tuned")
    first, second = fixture.core.requests
    assert {first.adapter, second.adapter} == {None, "tuned"}
    # With other draws the difference would be the seed's, not the model's.
    assert first.seed == second.seed
    assert fixture.core.most == 2
    base, tuned = texts(told), texts(told, "chat-1")
    assert any(len(one[-1]) > 1 and len(other[-1]) > 1 for one, other in zip(base, tuned, strict=True))
    assert base[-1] != tuned[-1]
    assert all(QUESTION in messages[-1] for messages in (base[-1], tuned[-1]))


def test_each_page_and_each_model_has_its_own_dialogue(visit: Open, fixture: Fixture) -> None:
    mine, other = visit(), visit()
    first = texts(mine.ask("我有糖尿病。"))[-1]
    assert texts(mine.ask("可以吃水果吗？"))[-1][:2] == first
    prompt = fixture.service.models["tuned"].prompt
    expected = Example("", "可以吃水果吗？", "", history=(("我有糖尿病。", first[1]),))
    assert list(fixture.core.requests[-1].prompt) == prompt.encode_prompt(expected)
    for visitor, model in ((other, "tuned"), (mine, "base")):
        shown = texts(visitor.ask("可以吃水果吗？", model_0=model))[-1]
        assert len(shown) == 2
        assert "糖尿病" not in "".join(shown)
    list(mine.act("clear", "click", {}))
    mine.ask("可以吃水果吗？")
    assert list(fixture.core.requests[-1].prompt) == prompt.encode_prompt(Example("", "可以吃水果吗？", ""))


def test_what_looks_like_html_is_shown_as_it_is(visit: Open) -> None:
    written = "    空腹血糖<5.6 且 >3 <img src=//x.example/y> &lt; $$x$$ **粗**"
    told = visit().ask(written)
    assert texts(told)[-1][0] == written
    assert "<" not in str(told[0]["chat-0"])


@pytest.mark.parametrize(("language", "words"), [("en-GB,en;q=0.9", ENGLISH), ("zh-CN,zh;q=0.9,en;q=0.8", CHINESE)])
def test_a_question_that_is_too_long_is_said_so_and_can_be_shortened(
    visit: Open, fixture: Fixture, language: str, words: Any
) -> None:
    visitor = visit(language=language)
    welcome = list(visitor.act("", "load", {}))[-1]
    code = welcome["language"]["value"]
    assert welcome["ask"]["value"] == words.ask
    told = visitor.ask("长" * 400, language=code)
    said = texts(told)[-1][-1]
    assert words.errors["context_length_exceeded"].partition("{")[0] in said
    assert " 300 " in said
    # On a Chinese page nothing is English.
    assert ("prompt" in said or "token" in said) == (words is ENGLISH)
    # The question comes back into its box, and is no part of the dialogue.
    assert told[-1]["question"]["value"] == "长" * 400
    assert told[-1]["status"] == words.failed
    assert len(texts(visitor.ask(QUESTION, language=code))[-1]) == 2


@pytest.mark.parametrize(("values", "said"), [({"seed": "x"}, "seed"), ({"max_tokens": 1.5}, "max_tokens")])
def test_a_setting_that_cannot_be_is_named(visit: Open, fixture: Fixture, values: dict[str, Any], said: str) -> None:
    assert said in texts(visit().ask(QUESTION, **values))[-1][-1]
    assert fixture.core.requests == []


def test_on_a_chinese_page_faults_are_told_in_chinese(make: Callable[..., Fixture]) -> None:
    with running(make(page=True, max_messages=2)) as address:
        visitor = Visitor(address)
        wrong = visitor.ask(QUESTION, language="zh", seed="x")
        visitor.ask(QUESTION, language="zh")
        long = visitor.ask(QUESTION, language="zh")
    for told, expected in ((wrong, "“随机种子”的值不可用。"), (long, "对话已超过 2 条消息，请开始新对话。")):
        assert texts(told)[-1][-1] == f"⚠ {expected}"


def test_a_full_queue_is_said_so(visit: Open, fixture: Fixture) -> None:
    busy = [visit() for _ in range(6)]
    for number, visitor in enumerate(busy, start=1):
        visitor.join("ask", "click", {"question": QUESTION, **FOREVER})
        wait_for(lambda number=number: fixture.service.worker.reserved == number)
    assert ENGLISH.errors["queue_full"] in texts(visit().ask(QUESTION))[-1][-1]
    assert 'route="page",status="429"} 1' in fixture.service.metrics.text()
    for visitor in busy:
        visitor.join("stop", "click", {})
    fixture.wait_idle()


def test_stop_frees_the_row_and_leaves_what_there_is(visit: Open, fixture: Fixture) -> None:
    visitor = visit()
    told = []
    for step in visitor.act("ask", "click", {"question": QUESTION, **FOREVER}):
        told.append(step)
        if len(told) == 3:
            # Another page's button is not this one's.
            visit().join("stop", "click", {})
            assert len(fixture.core.rows) == 1
            visitor.join("stop", "click", {})
    fixture.wait_idle()
    assert any("Stopped." in str(step.get("status")) for step in told)
    assert fixture.core.steps < 500
    assert len(texts(visitor.ask("还有呢？"))[-1]) == 4


@pytest.mark.parametrize("turns", range(4))
def test_a_question_that_is_stopped_as_it_begins_comes_to_its_end(fixture: Fixture, turns: int) -> None:
    run = Run(fixture.service, QUESTION, [("base", ()), ("tuned", ())], {"temperature": ENDLESS, "max_tokens": 2000})

    async def ask() -> None:
        async def watch() -> list[tuple[Answer, ...]]:
            return [answers async for answers in run.pictures()]

        watching = asyncio.ensure_future(watch())
        for _ in range(turns):
            await asyncio.sleep(0)
        run.stop()
        pictures = await asyncio.wait_for(watching, 5)
        assert [answer.finish for answer in pictures[-1]] == ["stopped"] * 2

    asyncio.run(ask())
    fixture.wait_idle()


def test_breaking_off_the_stream_frees_the_row(visit: Open, fixture: Fixture) -> None:
    visitor = visit()
    told = visitor.act("ask", "click", {"question": QUESTION, **FOREVER})
    next(told)
    told.close()
    fixture.wait_idle()
    assert fixture.core.steps < 500


@pytest.mark.parametrize("queued", [False, True])
def test_leaving_the_page_frees_the_row(visit: Open, fixture: Fixture, queued: bool) -> None:
    others = [visit() for _ in range(4 if queued else 0)]
    for number, other in enumerate(others, start=1):
        other.join("ask", "click", {"question": QUESTION, **FOREVER})
        wait_for(lambda number=number: fixture.service.worker.reserved == number)
    visitor = visit()
    with visitor.client.stream("GET", f"/gradio_api/heartbeat/{visitor.session}") as heartbeat:
        lines = heartbeat.iter_lines()
        assert next(lines) == "data: ALIVE"
        visitor.join("ask", "click", {"question": QUESTION, **FOREVER})
        wait_for(lambda: fixture.service.worker.reserved == len(others) + 1)
    wait_for(lambda: fixture.service.worker.reserved == len(others))
    for other in others:
        other.join("stop", "click", {})
    fixture.wait_idle()


def test_an_open_page_does_not_keep_the_server_from_ending(make: Callable[..., Fixture]) -> None:
    fixture = make(page=True, drain_seconds=30)
    ended = threading.Event()
    with running(fixture) as address:
        visitor = Visitor(address)
        with visitor.client.stream("GET", f"/gradio_api/heartbeat/{visitor.session}") as heartbeat:
            lines = heartbeat.iter_lines()
            next(lines)
            fixture.stop()
            threading.Thread(target=lambda: (list(lines), ended.set())).start()
            assert ended.wait(5)


def test_the_language_is_the_browsers(visit: Open) -> None:
    assert [preferred(header) for header in ("zh-TW", "de, zh;q=0.5, en;q=0.4", "en, zh;q=0.9", "de", "", ";q=x")] == [
        "zh",
        "zh",
        "en",
        "en",
        "en",
        "en",
    ]
    visitor = visit(language="zh-CN")
    assert list(visitor.act("", "load", {}))[-1]["disclaimer"]["value"] == CHINESE.disclaimer
    reworded = list(visitor.act("language", "input", {"language": "en"}))[-1]
    assert reworded["disclaimer"]["value"] == ENGLISH.disclaimer
    assert reworded["seed"]["label"] == "Seed"
