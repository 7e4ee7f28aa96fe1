"""A visitor of the page who has no browser: speaks with Gradio's routes as its scripts do."""

from __future__ import annotations

import html
import json
import secrets
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

Json = dict[str, Any]


class Visitor:
    """One open page.

    Args:
        address: of the server.
        key: shown as a browser shows a password.
        language: that the browser asks for.
    """

    def __init__(self, address: str, key: str | None = None, language: str = "en") -> None:
        import httpx

        auth = None if key is None else ("anybody", key)
        self.client = httpx.Client(base_url=address, auth=auth, headers={"accept-language": language}, timeout=20)
        self.session = secrets.token_hex(6)
        self.home = self.client.get("/").raise_for_status().text
        config, _ = json.JSONDecoder().raw_decode(self.home.partition("window.gradio_config = ")[2])
        self._functions = config["dependencies"]
        self._parts: dict[int, Json] = {part["id"]: part for part in config["components"]}

    def part(self, name: str) -> Json:
        """What the page begins with of a part."""
        return next(part["props"] for i, part in self._parts.items() if self._name(i) == name)

    def join(self, element: str, event: str, values: Mapping[str, Any]) -> httpx.Response:
        """Do something on the page, without looking at what it shows.

        Args:
            element: id of the part where it happens; empty: the page itself.
            event: such as `click`.
            values: of parts whose values are not those that the page began with.
        """
        function = self.function(element, event)
        data = [self._value(part, values) for part in function["inputs"]]
        body = {"data": data, "fn_index": function["id"], "session_hash": self.session, "event_data": None}
        return self.client.post("/gradio_api/queue/join", json=body)

    def act(self, element: str, event: str, values: Mapping[str, Any]) -> Iterator[Json]:
        """The same, and what the page is told of each part, each time anew."""
        from gradio_client.utils import apply_diff

        outputs = self.function(element, event)["outputs"]
        own = self.join(element, event, values).raise_for_status().json()["event_id"]
        told: list[Any] = []
        for message in self.messages():
            if message.get("event_id") != own or message["msg"] not in ("process_generating", "process_completed"):
                continue
            assert message["success"], message
            new = message["output"]["data"]
            if told and message["msg"] == "process_generating":
                # After the first time only what is different.
                new = [apply_diff(old, edits) for old, edits in zip(told, new, strict=True)]
            told = new
            yield {self._name(part): value for part, value in zip(outputs, told, strict=True)}

    def ask(self, question: str, **values: Any) -> list[Json]:
        """Click the button, and wait until nothing more is told. `model_1` stands for the part `model-1`."""
        parts = {name.replace("model_", "model-"): value for name, value in values.items()}
        return list(self.act("ask", "click", {"question": question, **parts}))

    def messages(self) -> Iterator[Json]:
        """What Gradio tells this page."""
        with self.client.stream("GET", f"/gradio_api/queue/data?session_hash={self.session}") as response:
            assert response.status_code == 200
            for line in response.iter_lines():
                if line.startswith("data: "):
                    message = json.loads(line.removeprefix("data: "))
                    if message["msg"] == "close_stream":
                        return
                    yield message

    def function(self, element: str, event: str) -> Json:
        """What is called where something happens on the page."""
        for function in self._functions:
            for part, name in function["targets"]:
                if name == event and (not element or self._name(part) == element):
                    return function
        raise AssertionError(f"nothing happens at {event} of {element}")

    def _value(self, part: int, values: Mapping[str, Any]) -> Any:
        if self._parts[part]["type"] == "state":
            return None
        return values.get(self._name(part), self._parts[part]["props"].get("value"))

    def _name(self, part: int) -> str:
        return self._parts[part]["props"].get("elem_id") or ""


def texts(told: list[Json], chat: str = "chat-0") -> list[list[str]]:
    """A dialogue's messages, each time that the page was told of them."""
    values = [step[chat]["value"] if "value" in step[chat] else step[chat] for step in told]
    return [
        [html.unescape("".join(part["text"] for part in message["content"])) for message in value]
        for value in values
        if isinstance(value, list)
    ]
