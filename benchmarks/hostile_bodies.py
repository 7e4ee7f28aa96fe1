"""Broken bodies of requests, for the tests of the server and for `serve.py`."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from ms_medqa.serving.bodies import ChatBody, CompletionBody

CHAT, PLAIN = "/v1/chat/completions", "/v1/completions"
QUESTION = {"role": "user", "content": "糖尿病患者可以吃水果吗？"}
# The noncharacters are the marks by which chat templates are cut.
TEXTS = ["", "x", "1", "null", "\x00", "\ufdd00\ufdd1", "\uffff", "𝄞" * 50, "<|im_end|>", "x" * 3000]
NUMBERS = [0, -1, 1, 2**31, 2**63, -(2**63), 10**19, 1e308, -0.0, 0.5, 5e-324]
LISTS = [[], [[]], [None], ["", ""], [{"role": "user", "content": "x"}], [{"type": "text", "text": 1}], list(range(50))]
VALUES: list[Any] = [None, True, False, {}, {"a": {}}, {"type": "text"}, *TEXTS, *NUMBERS, *LISTS]
FIELDS = sorted({*ChatBody.model_fields, *CompletionBody.model_fields, "odd"})
# Values at the edge of what is taken.
FITTING: dict[str, list[Any]] = {
    "n": [1, 2, 8],
    "seed": [0, -5, 2**63],
    "stop": ["\x00", ["水", "x"], []],
    "max_tokens": [1, 9],
    "top_k": [-1, 3],
    "temperature": [0, 5e-324, 2],
    "top_p": [0, 5e-324, 1],
    "repetition_penalty": [0.01, 100],
    "stream": [True, False],
    "user": ["𝄞"],
    "frequency_penalty": [-0.0],
}
PIECES = [b"", b"\xff", b"\x00", b'"', b"{", b"[", b"\\ud800", b"9" * 30, b"\xc3", b"\x1f"]


def mutated_body(rng: random.Random, models: Sequence[str]) -> tuple[str, bytes]:
    """Path and body of a request that was a good one before a few of its fields, or of its bytes, were changed.

    Args:
        rng: decides everything.
        models: names that the server knows, the first one as a rule.
    """
    chat = rng.random() < 0.5
    body: dict[str, Any] = {"model": models[0], "max_tokens": 5}
    body |= {"messages": [QUESTION]} if chat else {"prompt": "x"}
    fitting = FITTING | {"model": list(models)}
    for _ in range(rng.choice((1, 1, 2, 4))):
        if rng.random() < 0.6:
            name = rng.choice(list(fitting))
            body[name] = rng.choice(fitting[name])
        else:
            body[rng.choice(FIELDS)] = rng.choice(VALUES)
    if chat and rng.random() < 0.3:
        message = {"role": rng.choice(["user", "system", "assistant", 1]), "content": rng.choice(VALUES)}
        body["messages"] = [message, QUESTION][:: rng.choice((1, -1))]
    data = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode()
    if rng.random() < 0.3:
        for _ in range(rng.choice((1, 1, 3, 10))):
            place = rng.randrange(len(data))
            piece = rng.choice(PIECES)
            data = data[:place] + piece + data[place + rng.choice((0, 1, 5)) :]
    return CHAT if chat else PLAIN, data
