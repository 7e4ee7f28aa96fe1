"""A client without a socket."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from serving_fakes import Fixture

if TYPE_CHECKING:
    import httpx

QUESTION = [{"role": "user", "content": "糖尿病患者可以吃水果吗？"}]
JSON = {"content-type": "application/json"}


class LocalClient:
    """Sends requests to an ASGI application; `fixture` is what stands behind it."""

    def __init__(self, app: Any, fixture: Fixture) -> None:
        import httpx

        self.fixture = fixture
        self._loop = asyncio.new_event_loop()
        transport = httpx.ASGITransport(app, raise_app_exceptions=True)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")

    def __call__(self, method: str, path: str, **options: Any) -> httpx.Response:
        """One request."""
        return self._loop.run_until_complete(self._client.request(method, path, **options))

    def together(self, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
        """Several requests at once."""

        async def send() -> list[httpx.Response]:
            return await asyncio.gather(
                *(self._client.request(method, path, **options) for method, path, options in requests)
            )

        return self._loop.run_until_complete(send())

    def chat(self, **fields: Any) -> httpx.Response:
        """A question to the base model."""
        body = {"model": "base", "messages": QUESTION, "max_tokens": 200} | fields
        return self("POST", "/v1/chat/completions", json=body)

    def complete(self, prompt: Any = "感冒了怎么办？", **fields: Any) -> httpx.Response:
        """A plain text to the base model."""
        body = {"model": "base", "prompt": prompt, "max_tokens": 200} | fields
        return self("POST", "/v1/completions", json=body)

    def close(self) -> None:
        """End the loop, and what the page has started there."""
        self._loop.run_until_complete(self._end())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    async def _end(self) -> None:
        await self._client.aclose()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def events(text: str) -> list[Any]:
    """The values of a stream of server-sent events, which must end as it should."""
    parts = text.split("\n\n")
    assert parts.pop() == ""
    assert all(part.startswith("data: ") for part in parts)
    values = [part.removeprefix("data: ") for part in parts]
    assert values.pop() == "[DONE]"
    return [json.loads(value) for value in values]


def error_of(response: Any, status: int) -> dict[str, Any]:
    """The error in a response, checked for its shape."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert "x-medical-disclaimer" in response.headers
    return body["error"]


def text_of(client: LocalClient, tokens: int) -> str:
    """A plain text of so many tokens."""
    text = "水" * tokens
    assert len(client.fixture.tokenizer.encode(text)) == tokens
    return text
