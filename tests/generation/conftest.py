"""What a decoder is asked to read, and one that fails at it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from scheduling import spoil

from ms_medqa.backend import few_rows
from ms_medqa.backend.few_rows_library import library
from ms_medqa.models.cache import CachedDecoder, Piece


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """What is read of prompts one by one, or fed to the kernel: (row, start, tokens), in order."""
    found: list[tuple[int, int, int]] = []
    read, feed = CachedDecoder.read, CachedDecoder.feed

    def counted_read(self: CachedDecoder, tokens: Sequence[int], row: int, start: int, *others: int) -> object:
        if len(tokens) > self.few:
            found.append((row, start, len(tokens)))
        return read(self, tokens, row, start, *others)

    def counted_feed(self: CachedDecoder, pieces: Sequence[Piece]) -> object:
        found.extend((piece.row, piece.start, len(piece.tokens)) for piece in pieces if piece.length)
        return feed(self, pieces)

    monkeypatch.setattr(CachedDecoder, "read", counted_read)
    monkeypatch.setattr(CachedDecoder, "feed", counted_feed)
    return found


@pytest.fixture
def operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no kernel was compiled, and on an NPU."""
    monkeypatch.setattr(few_rows, "step_kernel", lambda: None)


@pytest.fixture(params=["kernel", "operators"])
def way(request: pytest.FixtureRequest) -> str:
    """With the kernel, and without it."""
    if request.param == "operators":
        request.getfixturevalue("operators")
    elif library() is None:
        pytest.skip("the installation found no C++ compiler")
    return str(request.param)


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
    """A model that overflows where a prompt ends with token 7, and gives no prompt of the same piece a number.

    Fed to the kernel, prompts do not meet.
    """
    read, together, feed = CachedDecoder.read, CachedDecoder.read_together, CachedDecoder.feed

    def read_one(self: CachedDecoder, tokens: Sequence[int], row: int, start: int, *others: Any) -> ms.Tensor:
        logits = read(self, tokens, row, start, *others)
        if tokens[-1] != 7 or len(tokens) <= self.few:
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

    def fed(self: CachedDecoder, pieces: Sequence[Piece]) -> ms.Tensor:
        logits = feed(self, pieces).asnumpy()
        for place, piece in enumerate(pieces):
            if piece.length and piece.tokens[-1] == 7:
                spoil(self, [piece.row], piece.start + len(piece.tokens) - 1)
                logits[place] = np.nan
        return ms.Tensor(logits)

    monkeypatch.setattr(CachedDecoder, "read", read_one)
    monkeypatch.setattr(CachedDecoder, "read_together", read_some)
    monkeypatch.setattr(CachedDecoder, "feed", fed)
