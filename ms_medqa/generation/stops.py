"""An answer's text while its tokens arrive, up to the first stop string."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from ms_medqa.config.errors import UserError
from ms_medqa.data.tokenizer import TextStream, Tokenizer


class AnswerText:
    """Decodes one answer token by token and ends it before the stop string that begins first in its text.

    What is given out does not depend on where tokens begin and end: all pieces and the end of `flush`, joined, are the
    whole text up to the stop string, of which nothing is given out.

    Args:
        tokenizer: the model's.
        stops: texts that end the answer.

    Attributes:
        stopped: a stop string has come; whatever is pushed afterwards is dropped.

    Raises:
        UserError: a stop string is empty.
    """

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str] = ()) -> None:
        if not all(stops):
            raise UserError("stop: an empty text would end every answer at once", "leave it out")
        self.stopped = False
        self._stops = tuple(stops)
        self._stream = TextStream(tokenizer)
        # Text that may be the beginning of a stop string.
        self._held = ""

    def fork(self) -> AnswerText:
        """Another one that has taken the same and goes on by itself."""
        other = copy.copy(self)
        other._stream = self._stream.fork()
        return other

    def push(self, token_id: int) -> str:
        """Take one token; returns the text that is now certain, often empty."""
        if self.stopped:
            return ""
        return self._release(self._stream.push(token_id))

    def flush(self) -> str:
        """The rest, where no more tokens come; incomplete characters as U+FFFD."""
        if self.stopped:
            return ""
        return self._release(self._stream.flush(), last=True)

    def _release(self, piece: str, last: bool = False) -> str:
        if not piece and not last:
            return ""
        text = self._held + piece
        found = min((place for stop in self._stops if (place := text.find(stop)) >= 0), default=len(text))
        # Until it is known whether a stop string begins before the one that was found, the answer goes on.
        certain = found if last else min(found, self._first_beginning(text))
        self.stopped = certain == found < len(text)
        self._held = "" if last else text[certain:]
        return text[:certain]

    def _first_beginning(self, text: str) -> int:
        """Where the longest end of `text` that a longer stop string begins with starts; its length where none does."""
        return min((self._beginning(text, stop) for stop in self._stops), default=len(text))

    @staticmethod
    def _beginning(text: str, stop: str) -> int:
        place = text.find(stop[0], max(0, len(text) - len(stop) + 1))
        while place >= 0 and not stop.startswith(text[place:]):
            place = text.find(stop[0], place + 1)
        return place if place >= 0 else len(text)
