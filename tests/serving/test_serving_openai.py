"""The official client of OpenAI against a real server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from serving_fakes import ENDLESS, Fixture, running

Make = Callable[..., Fixture]
MESSAGES = [{"role": "user", "content": "感冒了怎么办？"}]


def test_the_official_client_works_unchanged(make: Make) -> None:
    openai = pytest.importorskip("openai")
    fixture = make(adapters=("tuned", "hub/v2"))
    messages = MESSAGES
    with running(fixture, key="secret") as address:
        with openai.OpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0) as client:
            names = ["base", "tuned", "hub/v2"]
            assert [model.id for model in client.models.list()] == names
            assert [client.models.retrieve(name).id for name in names] == names
            answer = client.chat.completions.create(
                model="tuned", messages=messages, temperature=0, n=2, logprobs=True, top_logprobs=1, seed=1
            )
            assert len(answer.choices) == 2
            assert "感冒了怎么办？" in answer.choices[1].message.content
            assert answer.choices[0].logprobs.content[0].top_logprobs[0].logprob == -0.5
            assert answer.usage.total_tokens > 0
            again = [*messages, answer.choices[0].message, *messages]
            extra = {"context": "多喝水。", "top_k": 3, "repetition_penalty": 1.0}
            pieces, usage = [], None
            with client.chat.completions.create(
                model="base", messages=again, stream=True, stream_options={"include_usage": True}, extra_body=extra
            ) as stream:
                for chunk in stream:
                    pieces += [choice.delta.content or "" for choice in chunk.choices]
                    usage = chunk.usage
            assert "多喝水。" in "".join(pieces)
            assert usage.completion_tokens > 0
            text = client.completions.create(model="base", prompt="发热", stop=["热"], logprobs=1)
            assert text.choices[0].text == "发"
            assert "".join(
                c.choices[0].text for c in client.completions.create(model="base", prompt="发热", stream=True)
            ) == ("发热")
            with pytest.raises(openai.NotFoundError, match="no such model"):
                client.chat.completions.create(model="other", messages=messages)
            with pytest.raises(openai.BadRequestError) as caught:
                client.chat.completions.create(model="base", messages=messages, presence_penalty=1)
            assert caught.value.param == "presence_penalty"
            fixture.core.failures = [ZeroDivisionError()]
            with pytest.raises(openai.APIError, match="failed"):
                list(client.completions.create(model="base", prompt="x", stream=True))
        with (
            openai.OpenAI(base_url=f"{address}/v1", api_key="other", max_retries=0) as client,
            pytest.raises(openai.AuthenticationError),
        ):
            client.models.list()

        async def later() -> str:
            async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key="secret", max_retries=0) as client:
                stream = await client.chat.completions.create(model="base", messages=messages, stream=True)
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        assert "感冒了怎么办？" in asyncio.run(later())


def test_the_official_client_does_not_ask_again_what_took_too_long(make: Make) -> None:
    openai = pytest.importorskip("openai")
    fixture = make(seconds=0.01, request_seconds=0.3)
    with running(fixture) as address, openai.OpenAI(base_url=f"{address}/v1", api_key="none") as client:
        assert client.max_retries > 0
        with pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(model="base", messages=MESSAGES, temperature=ENDLESS, max_tokens=2000)
        assert caught.value.status_code == 504
        fixture.wait_idle()
    assert len(fixture.core.requests) == 1
