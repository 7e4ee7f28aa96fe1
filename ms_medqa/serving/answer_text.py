"""An answer's text while its tokens arrive, up to the first stop string."""

from __future__ import annotations

from collections.abc import Sequence

from ms_medqa.data.tokenizer import TextStream, Tokenizer


class AnswerText:
    """Decodes token by token and ends before the first of `stops`; holds back what may be the start of one.

    Attributes:
        stopped: a stop string was met; nothing comes out any more.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        self.stopped = False
        self._stream = TextStream(tokenizer)
        self._stops = tuple(stops)
        self._held = ""

    def push(self, token: int) -> str:
        """Take one token; returns the text that is now certain, often empty."""
        return "" if self.stopped else self._take(self._stream.push(token))

    def flush(self) -> str:
        """What was held back; the answer is over."""
        if self.stopped:
            return ""
        text = self._take(self._stream.flush()) + self._held
        self._held = ""
        return text

    def _take(self, piece: str) -> str:
        text = self._held + piece
        found = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        certain = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[certain:]
        return text[:certain]


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` with which `stop` begins."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)
