"""A core without a common batch: each row is a decoding of its own, and a step takes one token of each in turn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.generation.engine import Engine
from ms_medqa.models.decoder import CausalLM
from ms_medqa.serving.core import Choice, Output, Request


@dataclass(eq=False, slots=True)
class _Row:
    request: Request
    tokens: Iterator[np.ndarray]
    made: int = 0


class EngineCore:
    """See `core.Core`; it gives no log-probabilities.

    Args:
        models: by the adapter's registered name, the base model under None.
        rows: answers that may run at the same time.
    """

    def __init__(self, models: Mapping[str | None, CausalLM], rows: int) -> None:
        self._engines = {name: Engine.of(model) for name, model in models.items()}
        self._rows: list[_Row] = []
        self._limit = rows

    @property
    def free(self) -> int:
        """Rows that could be taken now."""
        return self._limit - len(self._rows)

    def check(self, request: Request) -> None:
        """Raise UserError where a request cannot be answered."""
        if request.adapter not in self._engines:
            raise UserError(f"unknown adapter {request.adapter!r}")
        if request.logprobs is not None:
            raise UserError("logprobs are not supported by this server's decoding")
        self._engines[request.adapter].check(request.prompt, request.max_new_tokens)

    def add(self, request: Request) -> _Row:
        """Take a row."""
        tokens = self._engines[request.adapter].decode(
            [request.prompt],
            request.params,
            request.max_new_tokens,
            request.end_ids,
            seed=request.seed,
            streams=[request.stream],
        )
        row = _Row(request, tokens)
        self._rows.append(row)
        return row

    def step(self) -> list[Output]:
        """One token for every row."""
        outputs = []
        for row in list(self._rows):
            tokens = next(row.tokens, None)
            if tokens is None:
                outputs.append(Output(row, None, "stop"))
            else:
                row.made += 1
                over = row.made == row.request.max_new_tokens
                outputs.append(Output(row, Choice(int(tokens[0])), "length" if over else None))
            if outputs[-1].finish is not None:
                self.remove(row)
        return outputs

    def remove(self, running: _Row) -> None:
        """Free a row."""
        self._rows.remove(running)
        # Gives the cache back to those that wait for one.
        running.tokens.close()  # type: ignore[attr-defined]
