"""Decoding of many requests that come and go: each takes a row of a static cache, and one step serves all rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import mindspore as ms
import numpy as np

from ms_medqa.config.console import progress
from ms_medqa.config.errors import RunError, UserError
from ms_medqa.generation import reading
from ms_medqa.generation.prompts import Prompts
from ms_medqa.generation.reading import bucket
from ms_medqa.generation.request import Output, Request, Running
from ms_medqa.generation.rows import CacheRows, cache_length
from ms_medqa.generation.sampling import TokenSampler, is_finite
from ms_medqa.models.cache import Piece
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.prompt_reader import PromptReader
from ms_medqa.models.row_adapters import RowAdapters


class Scheduler:
    """Runs up to `max_rows` requests side by side. Not for several threads at once.

    A prompt that begins as something that a row holds (a system text, a context, an earlier turn) is not read again
    from the start.

    Args:
        model: its weights must not change while requests run; call `forget` after they have.
        max_rows: requests at a time.
        adapters: of which each request may take one.

    Attributes:
        prompts: those that wait.
    """

    def __init__(self, model: CausalLM, max_rows: int, adapters: RowAdapters | None = None) -> None:
        self.model = model
        self.adapters = adapters
        self.max_rows = max_rows
        self._rows = CacheRows(PromptReader(model, adapters))
        self.prompts = Prompts(model, self._rows, self.choice)
        self._numbers = itertools.count()

    @property
    def free(self) -> int:
        """Requests that can be added now."""
        return self.max_rows - self.running

    @property
    def running(self) -> int:
        """Requests on their way."""
        return self._rows.running

    def check(self, request: Request) -> None:
        """Raise UserError where a request cannot be answered: empty, too long, or of another vocabulary."""
        if request.adapter is not None and (self.adapters is None or request.adapter not in self.adapters.names):
            raise UserError(f"there is no adapter {request.adapter!r}")
        check_prompt(self.model, request.prompt, request.max_new_tokens)

    def reserve(self, rows: int, length: int) -> None:
        """Have room for so many requests of so many tokens, prompt and answer, so that nothing is compiled twice."""
        self._rows.make_room(min(rows, self.max_rows), length)

    def warm_up(self, length: int) -> None:
        """Compile ahead whatever requests of up to so many tokens need, prompt and answer, so that none waits for it.

        Makes a cache for each power of two of rows, all of this length; together they take as much memory as two of the
        largest. A progress bar tells how far it is.
        """
        assert not self.running, "requests are on their way"
        size = self._rows.least_length = cache_length(self.model, length)
        # The largest first, so that what is idle never takes more than its share.
        sizes = [2**power for power in reversed(range(bucket(self.max_rows).bit_length()))]
        # Several prompts in one piece may be longer than the cache, which holds each by itself.
        first = reading.widths(self.model, False, reading.LARGEST_PIECE, length)
        later = reading.widths(self.model, True, size, length)
        reader = self._rows.reader
        work = list[tuple[int, str, int]]()
        for rows in sizes:
            fed, few = reader.feed_widths(rows), reader.few(rows)
            work += [(rows, "feed", width) for width in fed] or [(rows, "step", 1)]
            # What the kernel reads is no wider.
            work += [(rows, "first", width) for width in first if rows == sizes[0] and width > few]
            work += [(rows, "together", width) for width in first if width > few]
            work += [(rows, "later", width) for width in later if width > few]
        with self._dropped_on_failure(), progress(total=len(work), desc="compiling", unit="graph") as bar:
            for rows, kind, width in work:
                if rows != self._rows.batch:
                    self._rows.move(rows, size)
                self._compile(kind, width)
                bar.update()

    def _compile(self, kind: str, width: int) -> None:
        """One graph, or those that belong together, for the decoder in use."""
        decoder = self._rows.decoder
        if kind == "feed":
            decoder.compile_feed(width)
        elif kind == "together":
            decoder.compile_together(width)
        elif kind == "step":
            # What it writes is in the place of the next prompt's first token.
            zeros = ms.Tensor(np.zeros(decoder.batch, np.int32))
            decoder.step(zeros, zeros, self.choice([None] * decoder.batch)).asnumpy()
        else:
            decoder.compile_read(width, kind == "later", self.choice([None] * width))

    @contextmanager
    def lend(self, rows: int, length: int) -> Iterator[CacheRows]:
        """At least so many rows for a caller that fills them by itself, when no requests run."""
        assert not self.running, "requests are on their way"
        self._rows.make_room(rows, length)
        self.forget()
        with self._dropped_on_failure():
            yield self._rows

    def add(self, request: Request) -> Running:
        """Take a request in; the next step begins with it.

        Raises:
            UserError: see `check`.
        """
        self.check(request)
        assert self.free, "no free row"
        self._rows.make_room(self.running + 1, len(request.prompt) + request.max_new_tokens)
        sampler = TokenSampler(request.params, request.prompt, request.seed, request.stream)
        running = Running(request, next(self._numbers), sampler)
        self._rows.take(running)
        return running

    def remove(self, running: Running) -> None:
        """Let a request go, whether it has ended or not; its row is free at once."""
        self._rows.give_back(running)

    def forget(self) -> None:
        """Drop all requests and whatever rows hold; compiled graphs stay."""
        self._rows.forget()

    def step(self) -> list[Output]:
        """One token for each request whose prompt has been read, and the first of some whose prompts wait.

        A request whose logits are not finite ends with an error, and costs the others nothing. Where anything else is
        raised, all requests and caches are dropped.
        """
        with self._dropped_on_failure():
            outputs = [*(self._feed() if self._rows.few else self._decode()), *self._begin()]
            if any(output.error for output in outputs):
                self._rows.clear_failed()
            for output in outputs:
                if output.finish:
                    self.remove(output.running)
            self._rows.shrink()
        return outputs

    @contextmanager
    def _dropped_on_failure(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            # A run that failed may have left NaN in the cache, which no mask hides from the next answer. One that was
            # interrupted may not have read what counts as read.
            self._rows.drop()
            raise

    def _feed(self) -> Iterator[Output]:
        """One token for each answer, and some of the prompts that wait, by the kernel at once."""
        answering = [(row, one) for row, one in enumerate(self._rows.taken) if one is not None and one.tokens]
        pieces = [Piece(one.tokens[-1:], row, one.cached, 0) for row, one in answering]
        pieces += self.prompts.short_ones()
        if pieces:
            logits = self._rows.decoder.feed(pieces).asnumpy()
            for place, piece in enumerate(pieces):
                yield self._choose(piece.row, logits[place])

    def _decode(self) -> Iterator[Output]:
        """One token for each answer, in a step of all rows."""
        taken = self._rows.taken
        answering = {row: one for row, one in enumerate(taken) if one is not None and one.tokens}
        if not answering:
            return
        # What a prompt goes on with is read again with its next piece; any other token might overflow there.
        begun = {row: one for row, one in enumerate(taken) if one is not None and one.read and not one.tokens}
        newest = np.zeros(len(taken), np.int32)
        for row, running in answering.items():
            newest[row] = running.tokens[-1]
        for row, running in begun.items():
            newest[row] = running.request.prompt[running.read]
        choice = self.choice([one.request.adapter if one is not None else None for one in taken])
        positions = self._rows.positions()
        logits = self._rows.decoder.step(ms.Tensor(newest), ms.Tensor(positions), choice).asnumpy()
        self._rows.check_resting(logits, [*answering, *begun])
        for row in answering:
            yield self._choose(row, logits[row])
        for row in begun:
            if not is_finite(logits[row]):
                yield self._choose(row, logits[row])

    def _begin(self) -> Iterator[Output]:
        for row, logits in self.prompts.read(self.max_rows):
            yield self._choose(row, logits)

    def choice(self, adapters: Sequence[str | None]) -> tuple[ms.Tensor, ...]:
        """What `CachedDecoder` takes to know the adapter of each row."""
        return () if self.adapters is None else (ms.Tensor(self.adapters.choice(adapters)),)

    def _choose(self, row: int, logits: np.ndarray) -> Output:
        running = self._rows.taken[row]
        assert running is not None
        try:
            choice = running.sampler.choose(logits, running.request.logprobs)
        except RunError as error:
            running.error = error
            self._rows.overwrite([row])
            return Output(running, None, None, error)
        if choice.token in running.request.end_ids:
            running.finish = "stop"
            return Output(running, None, "stop")
        running.tokens.append(choice.token)
        if len(running.tokens) == running.request.max_new_tokens:
            running.finish = "length"
        return Output(running, choice, running.finish)


def check_prompt(model: CausalLM, prompt: Sequence[int], max_new_tokens: int) -> None:
    """Raise UserError where a model cannot answer a prompt: empty, too long, or of another vocabulary."""
    config = model.config
    if not len(prompt):
        raise UserError("a prompt has no tokens")
    if len(prompt) + max_new_tokens > config.position_limit:
        raise UserError(
            f"the prompt has {len(prompt)} tokens and max_new_tokens is {max_new_tokens}, but the model holds "
            f"{config.position_limit} positions",
            "shorten the question, its context or the dialogue before it, or lower max_new_tokens",
        )
    strange = next((token for token in (min(prompt), max(prompt)) if not 0 <= token < config.vocab_size), None)
    if strange is not None:
        raise UserError(
            f"a prompt has the token id {strange}, but the model's vocabulary has {config.vocab_size}",
            "use the model's own tokenizer",
        )
