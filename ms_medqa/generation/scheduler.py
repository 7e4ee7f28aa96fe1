"""Decoding of many requests that come and go: each takes a row of a static cache, and one step serves all rows.

A new shape costs a compilation (seconds on a CPU, minutes on an NPU), so rows, cache and pieces of prompts are rounded
up to powers of two, and what has been compiled is kept.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import mindspore as ms
import numpy as np

from ms_medqa.config.errors import RunError, UserError
from ms_medqa.generation import reading
from ms_medqa.generation.held import NOTHING, SHORTEST_SHARED, Held
from ms_medqa.generation.reading import bucket, piece_width
from ms_medqa.generation.request import Output, Request, Running
from ms_medqa.generation.sampling import TokenSampler, is_finite
from ms_medqa.models.cache import CachedDecoder
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.prompt_reader import PromptReader
from ms_medqa.models.row_adapters import RowAdapters

SMALLEST_CACHE = 128
# Steps for which a smaller decoder must have been enough: a move costs as much as some, and rows may soon be wanted.
PATIENCE = 16
# Steps that a prompt waits at most to be read with others, where all rows are taken.
READ_PATIENCE = 4
MAX_IDLE_DECODERS = 7


class Scheduler:
    """Runs up to `max_rows` requests side by side. Not for several threads at once.

    A prompt that begins as something that a row holds (a system text, a context, an earlier turn) is not read again
    from the start.

    Args:
        model: its weights must not change while requests run; call `forget` after they have.
        max_rows: requests at a time.
        adapters: of which each request may take one.
    """

    def __init__(self, model: CausalLM, max_rows: int, adapters: RowAdapters | None = None) -> None:
        self.model = model
        self.adapters = adapters
        self.max_rows = max_rows
        # With "dynamic" scaling a key's angle depends on the length of the whole prompt that it was read in.
        self._may_share = model.config.rope_scaling.kind != "dynamic"
        self._reader = PromptReader(model, adapters)
        self._decoder: CachedDecoder | None = None
        self._idle: list[CachedDecoder] = []
        # Positions of the largest decoder so far.
        self._largest = 0
        self._rows: list[Running | None] = []
        self._held: list[Held] = []
        self._numbers = itertools.count()
        self._roomy = 0
        self._put_off = 0

    @property
    def free(self) -> int:
        """Requests that can be added now."""
        return self.max_rows - self.running

    @property
    def running(self) -> int:
        """Requests on their way."""
        return sum(one is not None for one in self._rows)

    def check(self, request: Request) -> None:
        """Raise UserError where a request cannot be answered: empty, too long, or of another vocabulary."""
        if request.adapter is not None and (self.adapters is None or request.adapter not in self.adapters.names):
            raise UserError(f"there is no adapter {request.adapter!r}")
        check_prompt(self.model, request.prompt, request.max_new_tokens)

    def reserve(self, rows: int, length: int) -> None:
        """Have room for so many requests of so many tokens, prompt and answer, so that nothing is compiled twice."""
        self._make_room(min(rows, self.max_rows), length)

    @contextmanager
    def lend(self, rows: int, length: int) -> Iterator[CachedDecoder]:
        """A decoder of at least this size for a caller that fills its rows by itself, when no requests run."""
        assert not self.running, "requests are on their way"
        self._make_room(rows, length)
        self.forget()
        assert self._decoder is not None
        with self._dropped_on_failure():
            yield self._decoder

    def add(self, request: Request) -> Running:
        """Take a request in; the next step begins with it.

        Raises:
            UserError: see `check`.
        """
        self.check(request)
        assert self.free, "no free row"
        self._make_room(self.running + 1, len(request.prompt) + request.max_new_tokens)
        sampler = TokenSampler(request.params, request.prompt, request.seed, request.stream)
        running = Running(request, next(self._numbers), sampler)
        wanted = Held.of(request.prompt, request.adapter)
        spare = [row for row, one in enumerate(self._rows) if one is None]
        # The row that holds its start already, else the one whose loss costs least.
        row = max(spare, key=lambda row: (self._held[row].common(wanted), -len(self._held[row].tokens)))
        self._rows[row] = running
        return running

    def remove(self, running: Running) -> None:
        """Let a request go, whether it has ended or not; its row is free at once."""
        if running in self._rows:
            row = self._rows.index(running)
            self._hold(row)
            self._rows[row] = None

    def forget(self) -> None:
        """Drop all requests and whatever rows hold; compiled graphs stay."""
        self._rows = [None] * len(self._rows)
        self._held = [NOTHING] * len(self._rows)

    def step(self) -> list[Output]:
        """One token for each request whose prompt has been read, then some of the prompts that wait.

        A request whose logits are not finite ends with an error, and costs the others nothing. Where anything else is
        raised, all requests and caches are dropped.
        """
        with self._dropped_on_failure():
            outputs = [*self._decode(), *self._read()]
            if any(output.error for output in outputs):
                self._clear()
        for output in outputs:
            if output.finish:
                self.remove(output.running)
        self._shrink()
        return outputs

    @contextmanager
    def _dropped_on_failure(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            # A run that failed may have left NaN in the cache, which no mask hides from the next answer.
            self._decoder, self._rows, self._held = None, [], []
            raise

    def _clear(self) -> None:
        """Free the rows of requests that have failed, and empty all rows but those that answer.

        A NaN that was written, be it by a row at rest, is hidden from the next answer by no mask.
        """
        assert self._decoder is not None
        self._rows = [None if one is not None and one.error else one for one in self._rows]
        empty = [row for row, one in enumerate(self._rows) if one is None or not one.read]
        self._decoder.clear_rows(empty)
        for row in empty:
            self._held[row] = NOTHING

    def _decode(self) -> Iterator[Output]:
        rows = [row for row, one in enumerate(self._rows) if one is not None and one.tokens]
        if not rows:
            return
        assert self._decoder is not None
        newest = np.zeros(self._decoder.batch, np.int32)
        # A row that waits or rests writes behind what it holds.
        positions = np.array([len(held.tokens) for held in self._held], np.int32)
        for row, running in enumerate(self._rows):
            if running is not None and running.read:
                positions[row] = running.cached
                newest[row] = running.tokens[-1] if running.tokens else 0
        choice = self.choice([one.request.adapter if one is not None else None for one in self._rows])
        logits = self._decoder.step(ms.Tensor(newest), ms.Tensor(positions), choice).asnumpy()
        for row in rows:
            yield self._choose(row, logits[row])

    def _read(self) -> Iterator[Output]:
        waiting = [(row, one) for row, one in enumerate(self._rows) if one is not None and not one.tokens]
        waiting.sort(key=lambda pair: pair[1].number)
        budget = 0 if self._may_wait([one for _, one in waiting]) else reading.LARGEST_PIECE
        while waiting and budget > 0:
            row, running = waiting[0]
            prompt = running.request.prompt
            if not running.read:
                self._hold_all()
                together = self._together(waiting, budget)
                if len(together) > 1:
                    logits = self._read_together(together)
                    if logits is None:
                        continue
                    del waiting[: len(together)]
                    budget -= sum(len(one.request.prompt) for _, one in together)
                    yield from (self._choose(row, logits[place]) for place, (row, _) in enumerate(together))
                    continue
                running.read = running.shared = self._share(row, running.request)
            logits, count = self.read_piece(prompt, running.read, row, running.request.adapter)
            running.read += count
            budget -= count
            if running.read == len(prompt):
                del waiting[0]
                yield self._choose(row, logits)

    def _may_wait(self, waiting: Sequence[Running]) -> bool:
        """Whether prompts should be read later, with those that come in the next steps.

        All answers pause while prompts are read, for one short prompt as long as for several. So where all rows are
        taken, and more requests are likely to wait for one, it is done for a quarter of the rows at a time.
        """
        few = len(waiting) < max(1, self.max_rows // 4) and len(waiting) < self.running
        wait = not self.free and few and self._put_off < READ_PATIENCE and not any(one.read for one in waiting)
        self._put_off = self._put_off + 1 if wait and waiting else 0
        return wait

    def _together(self, waiting: Sequence[tuple[int, Running]], budget: int) -> list[tuple[int, Running]]:
        """Of the requests that wait, in their order, the first few whose whole prompts one piece may hold."""
        most = min(budget, piece_width(self.model, reading.LARGEST_PIECE, 0, reading.LARGEST_PIECE))
        found, best, used, apart = list[Held](), 0, 0, 0
        for _, running in waiting:
            request = running.request
            wanted = Held.of(request.prompt, request.adapter)
            # Of a start that is shorter than any piece, reading it again costs less than a piece of one's own.
            shared = max(held.common(wanted) for held in (*self._held, *found)) if self._may_share else 0
            used += len(request.prompt)
            if running.read or running.apart or shared >= reading.SMALLEST_PIECE or used > most:
                break
            found.append(wanted)
            apart += bucket(len(request.prompt), reading.SMALLEST_PIECE)
            # One piece may be padded by more than several are.
            if bucket(used, reading.SMALLEST_PIECE) <= apart:
                best = len(found)
        return list(waiting[:best])

    def _read_together(self, together: Sequence[tuple[int, Running]]) -> np.ndarray | None:
        """Read whole prompts in one piece; float32 (batch, V) logits, those after the prompts first.

        None where the model fails at one: no mask hides a NaN of that from the others, so each is to be read apart.
        """
        assert self._decoder is not None
        prompts = [running.request.prompt for _, running in together]
        adapters = [running.request.adapter for _, running in together for _ in running.request.prompt]
        width = bucket(len(adapters), reading.SMALLEST_PIECE)
        choice = self.choice([*adapters, *[None] * (width - len(adapters))])
        rows = [row for row, _ in together]
        logits = self._decoder.read_together(prompts, rows, width, choice).asnumpy()
        for row in rows:
            self._held[row] = NOTHING
        if not is_finite(logits[: len(rows)]):
            self._decoder.clear_rows(rows)
            for _, running in together:
                running.apart = True
            return None
        for _, running in together:
            running.read = len(running.request.prompt)
        return logits

    def read_piece(self, prompt: Sequence[int], start: int, row: int, adapter: str | None) -> tuple[np.ndarray, int]:
        """Read the next piece of a prompt into a row of the decoder that is in use.

        Args:
            prompt: token ids.
            start: how many of them the row holds.
            row: of the decoder.
            adapter: through which the prompt is read.

        Returns:
            float32 (V,) logits after the piece, and its number of tokens.
        """
        assert self._decoder is not None
        width = piece_width(self.model, len(prompt) - start, start, self._decoder.length)
        tokens = prompt[start : start + width]
        logits = self._decoder.read(tokens, row, start, width, len(prompt), self.choice([adapter] * width))
        return logits.asnumpy()[0], len(tokens)

    def choice(self, adapters: Sequence[str | None]) -> tuple[ms.Tensor, ...]:
        """What `CachedDecoder` takes to know the adapter of each row."""
        return () if self.adapters is None else (ms.Tensor(self.adapters.choice(adapters)),)

    def _choose(self, row: int, logits: np.ndarray) -> Output:
        running = self._rows[row]
        assert running is not None
        try:
            choice = running.sampler.choose(logits, running.request.logprobs)
        except RunError as error:
            running.error = error
            self._held[row] = NOTHING
            return Output(running, None, None, error)
        if choice.token in running.request.end_ids:
            running.finish = "stop"
            return Output(running, None, "stop")
        running.tokens.append(choice.token)
        if len(running.tokens) == running.request.max_new_tokens:
            running.finish = "length"
        return Output(running, choice, running.finish)

    def _share(self, row: int, request: Request) -> int:
        """Take over what some row holds of a prompt's start; the last token is always read, for its logits."""
        wanted = Held.of(request.prompt, request.adapter)
        source = max(range(len(self._held)), key=lambda other: (self._held[other].common(wanted), other == row))
        common = min(self._held[source].common(wanted), len(wanted.tokens) - 1)
        if common < SHORTEST_SHARED:
            self._held[row] = NOTHING
            return 0
        if source != row:
            assert self._decoder is not None
            self._decoder.copy_row(source, row)
        self._held[row] = wanted.cut(common)
        return common

    def _hold_all(self) -> None:
        """Note what the rows that are taken hold."""
        for row, one in enumerate(self._rows):
            if one is not None:
                self._hold(row)

    def _hold(self, row: int) -> None:
        """Note what a row's cache holds now."""
        running = self._rows[row]
        assert running is not None
        if not running.read or running.error or not self._may_share:
            return
        assert self._decoder is not None
        request = running.request
        held = Held.of([*request.prompt[: running.read], *running.tokens[:-1]], request.adapter)
        # The last slot is where a resting row writes.
        self._held[row] = held.cut(self._decoder.length - 1)

    def _make_room(self, rows: int, length: int) -> None:
        now = self._decoder
        if now is not None and rows <= now.batch and length <= now.length:
            return
        rows = bucket(max(rows, now.batch if now and self.running else 1))
        length = cache_length(self.model, length)
        self._move(rows, max(length, now.length) if now and self.running else length)

    def _shrink(self) -> None:
        """Go on in a smaller decoder that is there already, where few rows have been left for some steps."""
        smaller = self._smaller()
        self._roomy = self._roomy + 1 if smaller is not None else 0
        if smaller is not None and self._roomy >= PATIENCE:
            self._roomy = 0
            self._move(smaller.batch, smaller.length)

    def _smaller(self) -> CachedDecoder | None:
        running = self.running
        if self._decoder is None or not running or self._decoder.batch < 2 * bucket(running):
            return None
        needed = max(len(one.request.prompt) + one.request.max_new_tokens for one in self._rows if one is not None)
        fitting = [one for one in self._idle if running <= one.batch < self._decoder.batch and one.length >= needed]
        return min(fitting, key=lambda one: (one.batch, one.length), default=None)

    def _move(self, rows: int, length: int) -> None:
        """Go on in a decoder of this size; what fits of the rows goes along."""
        before = self._decoder
        found = [one for one in self._idle if rows <= one.batch < 2 * rows and one.length >= length]
        decoder = min(found, key=lambda one: (one.batch, one.length), default=None)
        if decoder is None:
            # Before there is one more.
            self._drop_idle(rows * length)
            decoder = CachedDecoder(self._reader, rows, length)
        else:
            self._idle.remove(decoder)
        kept = sorted(range(len(self._rows)), key=lambda row: (self._rows[row] is None, -len(self._held[row].tokens)))
        kept = [row for row in kept[: decoder.batch] if self._rows[row] is not None or len(self._held[row].tokens)]
        if before is not None:
            if kept:
                decoder.take_over(before, kept)
            self._idle.append(before)
        spare = decoder.batch - len(kept)
        self._held = [self._held[row].cut(decoder.length - 1) for row in kept] + [NOTHING] * spare
        self._rows = [self._rows[row] for row in kept] + [None] * spare
        self._decoder = decoder

    def _drop_idle(self, wanted: int) -> None:
        """Make room for a decoder of so many positions, as all together may take no more than two of the largest.

        Kept of the idle ones are the largest first, then the newest.
        """
        self._largest = max(self._largest, wanted)
        used = wanted + (self._decoder.positions if self._decoder is not None else 0)
        kept: list[CachedDecoder] = []
        newest = self._idle[::-1]
        # Sorting keeps the order of equals. The one in use will be idle, too.
        for one in sorted(newest, key=lambda one: one.positions < self._largest)[: MAX_IDLE_DECODERS - 1]:
            if used + one.positions <= 2 * self._largest:
                used += one.positions
                kept.append(one)
        self._idle = [one for one in self._idle if one in kept]


def cache_length(model: CausalLM, length: int) -> int:
    """Positions of the cache that a request of so many tokens gets, prompt and answer."""
    return min(bucket(length, SMALLEST_CACHE), model.config.position_limit)


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
