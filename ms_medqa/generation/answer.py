"""`AnswerStream`: an answer piece by piece, and how fast it came."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator

from ms_medqa.generation.answers import Tokens
from ms_medqa.generation.prepared import Prepared
from ms_medqa.generation.request import Finish
from ms_medqa.generation.stops import AnswerText


class AnswerStream(Iterator[str]):
    """The pieces of an answer's text as they are made; never half a character.

    Args:
        prepared: the question.
        outputs: its tokens; the decoder begins when the first piece is asked for.
        text: makes text of its tokens.
        on_end: is told the whole answer when all pieces have been taken.
        at_once: the tokens come together at the end, as those of a search do.

    Attributes:
        prepared: the question.
        tokens: of the answer, so far.
        finish: `stop` where it ended by itself, `length` where `max_new_tokens` cut it off, None while it runs.
        first_seconds: from the first call to the first token; the prompt is read in it.
        seconds: from the first call to the newest token.
    """

    def __init__(
        self,
        prepared: Prepared,
        outputs: Tokens,
        text: AnswerText,
        on_end: Callable[[str], object] = lambda answer: None,
        at_once: bool = False,
    ) -> None:
        self.prepared = prepared
        self.tokens = 0
        self.finish: Finish | None = None
        self.first_seconds = 0.0
        self.seconds = 0.0
        self._outputs = outputs
        self._on_end = on_end
        self._at_once = at_once
        self._pieces = self._run(text)

    def __next__(self) -> str:
        return next(self._pieces)

    def close(self) -> None:
        """End the answer here; what it would have used is free for the next."""
        self._pieces.close()
        self._outputs.close()

    @property
    def tokens_per_second(self) -> float | None:
        """Of the tokens after the first, or of all where they came at once; None where there are none."""
        first, seconds = (0, self.seconds) if self._at_once else (1, self.seconds - self.first_seconds)
        return (self.tokens - first) / seconds if self.tokens > first and seconds > 0 else None

    def _run(self, text: AnswerText) -> Generator[str, None, None]:
        began, pieces = time.perf_counter(), []
        for token, finish in self._outputs:
            self.finish = finish
            if token is not None:
                self.tokens += 1
                self.seconds = time.perf_counter() - began
                if self.tokens == 1:
                    self.first_seconds = self.seconds
                if piece := text.push(token):
                    pieces.append(piece)
                    yield piece
            if text.stopped:
                self.finish = "stop"
                break
        self._outputs.close()
        if piece := text.flush():
            pieces.append(piece)
            yield piece
        if text.stopped:
            # A stop string that might have become a longer one.
            self.finish = "stop"
        self._on_end("".join(pieces))
