"""Clients that stream answers side by side, and know what each answer has to be."""

from __future__ import annotations

import asyncio
import json
import re
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from serve_connections import Connections, Response

_ANSWER_SECONDS = 300.0
_RETRY_SECONDS = 0.2
_GENERATED = re.compile(r"^medqa_generated_tokens_total (\d+)$", re.MULTILINE)


@dataclass
class Tally:
    """What clients saw.

    Attributes:
        tokens: of all answers that came whole.
        answers: those answers.
        first: seconds to the first part of each answer.
        between: seconds between two parts of an answer.
        faults: kind of a fault and how often; `refused` is none: the client came again after 429.
    """

    tokens: int = 0
    answers: int = 0
    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    refused: int = 0

    def clear_times(self) -> None:
        """Forget how long what was asked so far took."""
        self.first, self.between = [], []

    def times(self) -> str:
        """Median and 99th percentile in ms."""
        parts = []
        for name, values in (("first token", self.first), ("between tokens", self.between)):
            cuts = statistics.quantiles(values, n=100) if len(values) > 1 else [0.0] * 99
            parts.append(f"{name} {cuts[49] * 1e3:,.0f} ms, p99 {cuts[98] * 1e3:,.0f} ms")
        return "; ".join(parts)


@dataclass(frozen=True)
class Question:
    """What is asked, and what a client that is alone is answered; None while nobody knows."""

    text: str
    answer: str | None = None


class _Failed(Exception):
    """An answer that did not come as it should; the message is the kind of the fault."""


class Asker:
    """Asks a server greedily, in streams.

    Args:
        connections: to the server.
        new_tokens: longest answer.
    """

    def __init__(self, connections: Connections, new_tokens: int) -> None:
        self._connections, self._new_tokens = connections, new_tokens

    async def ask(self, question: str, tally: Tally) -> str | None:
        """The answer; None where it failed, or the queue was full, which the tally knows."""
        body = {
            "model": "base",
            "messages": [{"role": "user", "content": question}],
            "max_tokens": self._new_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        try:
            return await asyncio.wait_for(self._ask(body, tally), _ANSWER_SECONDS)
        except _Failed as error:
            tally.faults[str(error)] += 1
        except (OSError, EOFError, ValueError, TimeoutError, asyncio.TimeoutError, asyncio.LimitOverrunError) as error:
            tally.faults[type(error).__name__] += 1
        return None

    async def _ask(self, body: dict[str, Any], tally: Tally) -> str | None:
        began = time.monotonic()
        async with self._connections.ask("POST", "/v1/chat/completions", body) as response:
            if response.status == 200:
                return await self._read(response, began, tally)
            async for _ in response.parts():
                pass
        if response.status != 429:
            raise _Failed(f"status {response.status}")
        tally.refused += 1
        await asyncio.sleep(_RETRY_SECONDS)
        return None

    async def generated(self) -> int:
        """Tokens that the server has made so far."""
        found = _GENERATED.search(await asyncio.wait_for(self._metrics(), _ANSWER_SECONDS))
        assert found
        return int(found[1])

    async def _metrics(self) -> str:
        async with self._connections.ask("GET", "/metrics") as response:
            return b"".join([part async for part in response.parts()]).decode()

    async def _read(self, response: Response, began: float, tally: Tally) -> str:
        parts: list[str] = []
        ids, finish, usage, last, over = set(), None, None, began, False
        async for data in response.events():
            if data == b"[DONE]":
                over = True
            else:
                event = json.loads(data)
                if "error" in event:
                    raise _Failed(f"error {event['error']['code']}")
                ids.add(event["id"])
                usage = event["usage"]
                for choice in event["choices"]:
                    finish = choice["finish_reason"] or finish
                    if text := choice["delta"].get("content"):
                        now = time.monotonic()
                        (tally.between if parts else tally.first).append(now - last)
                        last = now
                        parts.append(text)
        if not over or finish is None or usage is None:
            raise _Failed("lost")
        if len(ids) != 1:
            raise _Failed("parts of several answers")
        tally.tokens += usage["completion_tokens"]
        tally.answers += 1
        return "".join(parts)


def judge(text: str, place: int, questions: Sequence[Question]) -> str | None:
    """What is wrong with an answer to the question at `place`; None where it is the one that a client alone gets.

    Sums of floats depend on the number of rows in their last bits, so that of two tokens that are all but equally
    likely a batch may take the other one. Such an answer still begins as its own question's does, and no other's.
    """
    own = questions[place].answer
    if text == own:
        return None
    starts = [_common(text, question.answer or "") for question in questions]
    return "other words" if starts[place] == max(starts) and starts.count(max(starts)) == 1 else "crossed"


def _common(a: str, b: str) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def telling(questions: Sequence[Question]) -> list[Question]:
    """Those whose answer is not empty and no other's, so that it shows whose it is."""
    often = Counter(question.answer for question in questions)
    return [question for question in questions if question.answer and often[question.answer] == 1]


async def alone(asker: Asker, questions: Sequence[Question], tally: Tally) -> tuple[list[Question], float]:
    """Ask one after the other; returns the questions with their answers, and tokens/s."""
    began, before, found = time.monotonic(), tally.tokens, []
    for question in questions:
        found.append(Question(question.text, await asker.ask(question.text, tally)))
    return found, (tally.tokens - before) / (time.monotonic() - began)


async def together(
    asker: Asker, clients: int, seconds: float, questions: Sequence[Question], tally: Tally
) -> tuple[float, int]:
    """Clients that ask one question after the other for a time.

    Returns:
        Tokens/s of all together in that time, and how many answers had other words than alone.
    """
    began, other_words = time.monotonic(), 0

    async def run(number: int) -> None:
        nonlocal other_words
        for place in _walk(number, clients, len(questions)):
            if time.monotonic() - began > seconds:
                return
            text = await asker.ask(questions[place].text, tally)
            if text is None:
                continue
            fault = judge(text, place, questions)
            other_words += fault == "other words"
            if fault == "crossed":
                tally.faults[fault] += 1

    async def rate() -> float:
        before = await asker.generated()
        await asyncio.sleep(seconds)
        return (await asker.generated() - before) / (time.monotonic() - began)

    # At the end fewer and fewer run, which is not measured.
    made, *_ = await asyncio.gather(rate(), *(run(number) for number in range(clients)))
    return made, other_words


def _walk(number: int, clients: int, size: int) -> Iterator[int]:
    """Places of the questions of one client; at no time do many clients stand at the same."""
    place = number * size // clients
    while True:
        yield place % size
        place += 1
