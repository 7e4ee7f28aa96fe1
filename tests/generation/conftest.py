"""What a decoder is asked to read, and one that fails at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from scheduling import spoil

from ms_medqa.models.cache import CachedDecoder


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """What is read of prompts: (row, start, tokens), in order."""
    pieces: list[tuple[int, int, int]] = []
    real = CachedDecoder.read

    def counted(self: CachedDecoder, tokens: Sequence[int], row: int, start: int, *others: int) -> object:
        pieces.append((row, start, len(tokens)))
        return real(self, tokens, row, start, *others)

    monkeypatch.setattr(CachedDecoder, "read", counted)
    return pieces


@pytest.fixture
def together(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The sizes of the prompts that are read in one piece, for each such piece."""
    pieces: list[list[int]] = []
    real = CachedDecoder.read_together

    def counted(self: CachedDecoder, prompts: Sequence[Sequence[int]], *others: object) -> object:
        pieces.append([len(one) for one in prompts])
        return real(self, prompts, *others)

    monkeypatch.setattr(CachedDecoder, "read_together", counted)
    return pieces


@pytest.fixture
def fails_at_7(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that overflows where a prompt ends with token 7, and gives no prompt of the same piece a number."""
    read, together = CachedDecoder.read, CachedDecoder.read_together

    def read_one(self: CachedDecoder, tokens: Sequence[int], row: int, start: int, *others: Any) -> ms.Tensor:
        logits = read(self, tokens, row, start, *others)
        if tokens[-1] != 7:
            return logits
        spoil(self, [row], start + len(tokens) - 1)
        return ms.Tensor(np.full(logits.shape, np.nan, np.float32))

    def read_some(
        self: CachedDecoder, prompts: Sequence[Sequence[int]], rows: Sequence[int], *others: Any
    ) -> ms.Tensor:
        logits = together(self, prompts, rows, *others)
        if all(prompt[-1] != 7 for prompt in prompts):
            return logits
        spoil(self, rows)
        return ms.Tensor(np.full(logits.shape, np.nan, np.float32))

    monkeypatch.setattr(CachedDecoder, "read", read_one)
    monkeypatch.setattr(CachedDecoder, "read_together", read_some)
