"""The page in a real browser: a Chromium that is installed here, without its window."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from serving_fakes import Fixture, running

from ms_medqa.serving.page.texts import CHINESE, ENGLISH

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = os.environ.get("MS_MEDQA_CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"))), None
)
_MISSING = [name for name in ("gradio", "playwright") if importlib.util.find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(_MISSING), reason=f"not installed: {', '.join(_MISSING)}"),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: install one, or set MS_MEDQA_CHROMIUM to its path"),
]
QUESTION = "糖尿病患者可以吃水果吗？"
_MILLISECONDS = 15_000
# A page that is loaded anew breaks off what it waited for.
_BROKEN_OFF = ("AbortError", "Connection errored out")
Open = Callable[..., "Visit"]


class Visit:
    """A person in front of a browser.

    Args:
        browser: starts a profile of its own.
        address: of the server.
        locale: the browser's language.
        key: that the person types where the browser asks.
    """

    def __init__(self, browser: Browser, address: str, locale: str, key: str | None) -> None:
        credentials: Any = None if key is None else {"username": "me", "password": key}
        self.context = browser.new_context(locale=locale, http_credentials=credentials)
        self.context.set_default_timeout(_MILLISECONDS)
        self.address = address
        self.faults: list[str] = []
        self.context.on("request", self._check)
        self.context.on(
            "response", lambda response: self._note(response.status < 400, f"{response.status} {response.url}")
        )
        self.context.on("console", lambda message: self._note(message.type != "error", message.text))
        self.context.on("weberror", lambda error: self._note(False, str(error.error)))
        self.page = self.context.new_page()
        self.load()

    def load(self) -> None:
        """Load the page, or load it anew."""
        self.page.goto(self.address)
        self.page.locator("#ask").wait_for()
        # The words come once more, in the browser's language, when the page has its connection.
        self.page.wait_for_timeout(700)

    def ask(self, question: str) -> None:
        """Write a question and send it."""
        self.page.fill("#question textarea", question)
        self.page.click("#ask")

    def answers(self, side: int = 0) -> list[str]:
        """The model's texts of one side."""
        return self.page.locator(f"#chat-{side} [data-testid=bot] .md").all_inner_texts()

    def set(self, **settings: str) -> None:
        """Unfold the settings and write some."""
        self.page.click("#sampling button")
        for name, value in settings.items():
            field = self.page.locator(f"#{name} input[type=number]")
            # What is written while the settings still unfold is put back, for all to see.
            for _ in range(20):
                if field.input_value() == value:
                    break
                field.fill(value)
                field.press("Tab")
                self.page.wait_for_timeout(200)
            assert field.input_value() == value

    def wait_status(self, text: str) -> None:
        """Wait until the line below the dialogue says something."""
        status = self.page.locator("#status")
        try:
            status.filter(has_text=text).wait_for()
        except Exception as error:
            raise AssertionError(f"it says {status.inner_text()!r}, not {text!r}") from error

    def _check(self, request: Any) -> None:
        url = urlsplit(request.url)
        self._note(url.scheme in ("data", "blob") or url.hostname == "127.0.0.1", f"asked for {request.url}")

    def _note(self, good: bool, fault: str) -> None:
        if not good and not any(words in fault for words in _BROKEN_OFF):
            self.faults.append(fault)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Containers run it as root, which its sandbox does not like; it loads this machine's page alone.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield started
        started.close()


@pytest.fixture
def fixture(make: Callable[..., Fixture]) -> Fixture:
    return make(adapters=("tuned",), page=True, seconds=0.02, max_prompt_tokens=1500, request_seconds=60)


@pytest.fixture
def visit(fixture: Fixture, browser: Browser) -> Iterator[Open]:
    visits: list[Visit] = []
    with running(fixture) as address:

        def build(locale: str = "en-US") -> Visit:
            visits.append(Visit(browser, address, locale, None))
            return visits[-1]

        yield build
        for each in visits:
            each.context.close()
            assert each.faults == []


def test_an_answer_grows_and_a_dialogue_goes_on(visit: Open, fixture: Fixture) -> None:
    here = visit()
    here.ask(QUESTION * 30)
    lengths = set()
    while "Seed" not in here.page.inner_text("#status"):
        lengths.update(map(len, here.answers()))
        here.page.wait_for_timeout(30)
    assert len(lengths) > 3
    assert QUESTION in here.answers()[-1]
    assert here.page.input_value("#question textarea") == ""
    here.page.fill("#context textarea", "多吃蔬菜。")
    here.ask("还有呢？")
    here.page.locator("#chat-0 [data-testid=bot]").nth(1).wait_for()
    here.wait_status("Seed")
    # The server's models echo their prompts: the first round stands there, and so does the context.
    assert QUESTION in here.answers()[-1]
    assert fixture.tokenizer.decode(list(fixture.core.requests[-1].prompt)).count("多吃蔬菜。") == 1


def test_base_and_tuned_answer_side_by_side(visit: Open) -> None:
    here = visit()
    assert not here.page.locator("#chat-1").is_visible()
    # Gradio's own bin would empty what is shown, and the dialogue would go on unseen.
    assert here.page.locator("#answers button:visible").count() == 0
    here.page.click("#model-1 input")
    here.page.get_by_role("option", name="base").click()
    here.page.locator("#chat-1").wait_for()
    here.ask(QUESTION * 30)
    growing = 0
    while "Seed" not in here.page.inner_text("#status"):
        sides = [here.answers(side) for side in (0, 1)]
        growing += all(side and len(side[-1]) > 1 for side in sides)
        here.page.wait_for_timeout(30)
    assert growing > 3
    assert here.page.locator("#answers button:visible").count() == 0
    tuned, base = (here.answers(side)[-1] for side in (0, 1))
    assert QUESTION in tuned
    assert QUESTION in base
    assert tuned != base


def test_a_long_text_and_what_looks_like_html(visit: Open) -> None:
    here = visit()
    written = "    空腹血糖<5.6 <img src=http://a.example/x.png> ![x](http://a.example/y.png)\n" + "长" * 300
    here.ask(written)
    here.wait_status("Seed")
    # The server's models echo their prompts, so this is a model's text as well.
    assert "空腹血糖<5.6 <img src=http://a.example/x.png> ![x](http://a.example/y.png)" in here.answers()[-1]
    assert here.page.locator("#chat-0 img[src*='a.example']").count() == 0
    box = here.page.locator("#chat-0 [data-testid=bot]").last.bounding_box()
    assert box is not None
    assert box["width"] < here.page.viewport_size["width"]  # type: ignore[index]
    disclaimer = here.page.locator("#disclaimer")
    for place in (0, 10_000):
        here.page.mouse.wheel(0, place)
        here.page.wait_for_timeout(200)
        seen = disclaimer.bounding_box()
        assert seen is not None
        assert 0 <= seen["y"] < here.page.viewport_size["height"]  # type: ignore[index]


def test_an_error_is_readable_and_the_page_goes_on(visit: Open) -> None:
    here = visit("zh-CN")
    here.ask("长" * 2000)
    here.wait_status(CHINESE.failed)
    assert CHINESE.errors["context_length_exceeded"].partition("{")[0] in here.answers()[-1]
    assert here.page.input_value("#question textarea") == "长" * 2000
    here.ask(QUESTION)
    here.wait_status(CHINESE.done.partition("{")[0])
    assert QUESTION in here.answers()[-1]


def test_the_language_is_the_browsers_and_can_be_switched(visit: Open) -> None:
    here = visit("zh-CN")
    for words, other in ((CHINESE, ENGLISH), (ENGLISH, CHINESE)):
        here.page.locator("#language label", has_text=words.name).click()
        here.page.locator("#disclaimer", has_text=words.disclaimer[:20]).wait_for()
        text = here.page.inner_text("body")
        assert all(word in text for word in (words.ask, words.context, words.sampling, words.model))
        assert other.ask not in here.page.inner_text("#ask")


def test_stop_reload_and_leaving(visit: Open, fixture: Fixture) -> None:
    here = visit()
    here.set(temperature="2", max_tokens="2000")
    here.ask(QUESTION)
    here.page.locator("#stop:enabled").click()
    here.wait_status("Stopped")
    fixture.wait_idle()
    here.ask(QUESTION)
    here.page.locator("#chat-0 [data-testid=bot]").nth(1).wait_for()
    here.load()
    fixture.wait_idle()
    # A page begins anew: what was said before is not held against the next question.
    assert here.answers() == []
    here.ask("水果？")
    here.wait_status("Seed")
    assert QUESTION not in here.answers()[-1]
    here.page.fill("#question textarea", QUESTION)
    here.set(temperature="2")
    here.page.click("#ask")
    here.page.locator("#stop:enabled").wait_for()
    here.page.close()
    fixture.wait_idle()


def test_the_browser_asks_for_the_key(make: Callable[..., Fixture], browser: Browser) -> None:
    with running(make(page=True), "secret-1") as address:
        here = Visit(browser, address, "en-US", "secret-1")
        here.ask(QUESTION)
        here.wait_status("Seed")
        here.context.close()
        assert here.faults == []
