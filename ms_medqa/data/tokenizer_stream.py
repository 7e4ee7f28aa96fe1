"""An answer's text while its tokens arrive."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ms_medqa.data.tokenizer import Tokenizer


class TextStream:
    """Decodes a growing answer token by token; never gives out half a character.

    All pieces and the end of `flush`, joined, are what `Tokenizer.decode` makes of all ids.
    """

    # A character has at most 4 bytes, so at most 3 of them can still be waiting for the rest.
    _MAX_PENDING = 3

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = 0

    def fork(self) -> TextStream:
        """Another one that has taken the same and goes on by itself."""
        other = copy.copy(self)
        other._ids = self._ids.copy()
        return other

    def push(self, token_id: int) -> str:
        """Take one token; returns the text that is now certain, often empty."""
        self._ids.append(int(token_id))
        text = self._tokenizer.decode(self._ids)
        certain = len(text)
        while certain and text[certain - 1] == "\ufffd" and len(text) - certain < self._MAX_PENDING:
            certain -= 1
        piece = text[self._shown : certain]
        self._shown = max(self._shown, certain)
        if certain == len(text) and len(self._ids) > 16:
            # Decoding restarts from the last token, so that the cost of a push does not grow with the answer; but not
            # from one without text, behind which the next would lose its space as if it began the answer.
            last = self._tokenizer.decode(self._ids[-1:])
            if last.strip():
                self._ids, self._shown = self._ids[-1:], len(last)
        return piece

    def flush(self) -> str:
        """The rest, incomplete characters as U+FFFD; the stream can be used again afterwards."""
        piece = self._tokenizer.decode(self._ids)[self._shown :]
        self._ids, self._shown = [], 0
        return piece
