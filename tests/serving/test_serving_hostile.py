"""Hundreds of broken requests: none of them is the server's fault."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from serving_client import JSON, QUESTION, LocalClient, error_of

from ms_medqa.serving.bodies import ChatBody, CompletionBody

Ask = Callable[..., LocalClient]
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
    "top_p": [5e-324, 1],
    "repetition_penalty": [0.01, 100],
    "stream": [True, False],
    "user": ["𝄞"],
    "frequency_penalty": [-0.0],
    "model": ["tuned"],
}
PIECES = [b"", b"\xff", b"\x00", b'"', b"{", b"[", b"\\ud800", b"9" * 30, b"\xc3", b"\x1f"]


def _mutations(seed: int) -> Iterator[tuple[str, bytes]]:
    rng = random.Random(seed)
    for _ in range(400):
        chat = rng.random() < 0.5
        body: dict[str, Any] = {"model": "base", "max_tokens": 5}
        body |= {"messages": [*QUESTION]} if chat else {"prompt": "x"}
        for _ in range(rng.choice((1, 1, 2, 4))):
            if rng.random() < 0.6:
                name = rng.choice(list(FITTING))
                body[name] = rng.choice(FITTING[name])
            else:
                body[rng.choice(FIELDS)] = rng.choice(VALUES)
        if chat and rng.random() < 0.3:
            message = {"role": rng.choice(["user", "system", "assistant", 1]), "content": rng.choice(VALUES)}
            body["messages"] = [message, *QUESTION][:: rng.choice((1, -1))]
        data = json.dumps(body, ensure_ascii=rng.random() < 0.5).encode()
        if rng.random() < 0.3:
            for _ in range(rng.choice((1, 1, 3, 10))):
                place = rng.randrange(len(data))
                piece = rng.choice(PIECES)
                data = data[:place] + piece + data[place + rng.choice((0, 1, 5)) :]
        yield "/v1/chat/completions" if chat else "/v1/completions", data


@pytest.mark.parametrize("seed", range(3))
def test_no_bad_input_is_the_servers_fault(ask: Ask, seed: int) -> None:
    client = ask(adapters=("tuned",))
    good = 0
    for path, data in _mutations(seed):
        response = client("POST", path, content=data, headers=JSON)
        assert response.status_code < 500, (data, response.text)
        if response.status_code == 200:
            good += 1
            assert "error" not in response.text
        else:
            error_of(response, response.status_code)
    # Else it would be the mutations that are all alike.
    assert 20 < good < 380
    client.fixture.wait_idle()
