"""The JSON of answers, whole and in chunks, as each of the two endpoints has it."""

from __future__ import annotations

import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ms_medqa.serving.job import Scored
from ms_medqa.serving.token_texts import TokenTexts

_NO_PROBABILITY = -9999.0
# What a token takes with its log-probability.
_TOKEN_BYTES = 64

Json = dict[str, Any]


def usage(prompt_tokens: int, made: int) -> Json:
    """The tokens of a request."""
    return {"prompt_tokens": prompt_tokens, "completion_tokens": made, "total_tokens": prompt_tokens + made}


class Format(ABC):
    """One response.

    Args:
        model: name that the request gave.
        texts: of the answer's tokens.
        scored: log-probabilities were asked for.
        top: how many of the likeliest tokens.
    """

    prefix = ""
    whole = ""
    chunk = ""

    def __init__(self, model: str, texts: TokenTexts, scored: bool, top: int) -> None:
        self._head = {"id": f"{self.prefix}-{secrets.token_hex(12)}", "created": int(time.time()), "model": model}
        self._texts = texts
        self._scored = scored
        self._top = top

    def answer(self, choices: Sequence[Json], tokens: Json) -> Json:
        """The whole response."""
        return {**self._head, "object": self.whole, "choices": list(choices), "usage": tokens}

    def part(self, choices: Sequence[Json], tokens: Json | None, usage_wanted: bool) -> Json:
        """A chunk of a stream; where usage is wanted, all but the last say null."""
        part = {**self._head, "object": self.chunk, "choices": list(choices)}
        return {**part, "usage": tokens} if usage_wanted else part

    def opening(self, index: int) -> Json | None:
        """The choice with which an answer's stream begins."""
        return None

    def size(self, texts: Sequence[str], scored: Sequence[Sequence[Scored]]) -> int:
        """Bytes of whole answers, roughly."""
        return sum(map(len, texts)) + sum(map(len, scored)) * (1 + self._top) * _TOKEN_BYTES

    @abstractmethod
    def choice(self, index: int, text: str, scored: Sequence[Scored], finish: str | None) -> Json:
        """A whole answer."""

    @abstractmethod
    def delta(self, index: int, text: str, scored: Sequence[Scored], finish: str | None) -> Json:
        """A part of an answer."""


class ChatFormat(Format):
    """`/v1/chat/completions`."""

    prefix, whole, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def opening(self, index: int) -> Json | None:
        return {
            "index": index,
            "delta": {"role": "assistant", "content": ""},
            "logprobs": None,
            "finish_reason": None,
        }

    def choice(self, index: int, text: str, scored: Sequence[Scored], finish: str | None) -> Json:
        message = {"role": "assistant", "content": text, "refusal": None}
        return {"index": index, "message": message, "logprobs": self._logprobs(scored), "finish_reason": finish}

    def delta(self, index: int, text: str, scored: Sequence[Scored], finish: str | None) -> Json:
        delta = {"content": text} if text else {}
        logprobs = self._logprobs(scored) if scored else None
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, scored: Sequence[Scored]) -> Json | None:
        if not self._scored:
            return None
        content = [
            {
                **self._one(item.choice.token, item.choice.logprob, item.first),
                "top_logprobs": [self._one(*pair, item.first) for pair in item.choice.top[: self._top]],
            }
            for item in scored
        ]
        return {"content": content, "refusal": None}

    def _one(self, token: int, value: float | None, first: bool) -> Json:
        text, values = self._texts(token, first)
        return {"token": text, "logprob": finite(value), "bytes": values}


class TextFormat(Format):
    """`/v1/completions`."""

    prefix, whole, chunk = "cmpl", "text_completion", "text_completion"

    def choice(self, index: int, text: str, scored: Sequence[Scored], finish: str | None) -> Json:
        return {"index": index, "text": text, "logprobs": self._logprobs(scored), "finish_reason": finish}

    def delta(self, index: int, text: str, scored: Sequence[Scored], finish: str | None) -> Json:
        logprobs = self._logprobs(scored) if scored else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish}

    def _logprobs(self, scored: Sequence[Scored]) -> Json | None:
        if not self._scored:
            return None
        return {
            "tokens": [self._texts(item.choice.token, item.first)[0] for item in scored],
            "token_logprobs": [finite(item.choice.logprob) for item in scored],
            "top_logprobs": [self._likeliest(item) for item in scored] if self._top else None,
            "text_offset": [item.start for item in scored],
        }

    def _likeliest(self, item: Scored) -> Json:
        values: Json = {}
        for token, value in item.choice.top[: self._top]:
            # Of two that read alike, the likelier comes first.
            values.setdefault(self._texts(token, item.first)[0], finite(value))
        return values


def finite(value: float | None) -> float:
    """A log-probability as JSON can spell it: like OpenAI's, -9999 stands for no probability at all."""
    # Not max(), which may hand a NaN through.
    return float(value) if value is not None and value > _NO_PROBABILITY else _NO_PROBABILITY
