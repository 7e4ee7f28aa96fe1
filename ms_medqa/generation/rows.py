"""The rows of a static cache: which request has which, what each holds, and the decoder that they are rows of.

A decoder of a new size costs a compilation (seconds on a CPU, minutes on an NPU), so sizes are rounded up to powers of
two, and those in use before are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ms_medqa.backend.graph_memory import free_graphs
from ms_medqa.generation.held import NOTHING, SHORTEST_SHARED, Held
from ms_medqa.generation.reading import bucket
from ms_medqa.generation.request import Running
from ms_medqa.generation.sampling import is_finite
from ms_medqa.models.cache import CachedDecoder
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.prompt_reader import PromptReader

SMALLEST_CACHE = 128
# Steps for which a smaller decoder must have been enough: a move costs as much as some, and rows may soon be wanted.
PATIENCE = 16
# One for each power of two up to 1,024 rows.
MAX_IDLE_DECODERS = 10


def cache_length(model: CausalLM, length: int) -> int:
    """Positions of the cache that a request of so many tokens gets, prompt and answer."""
    return min(bucket(length, SMALLEST_CACHE), model.config.position_limit)


class CacheRows:
    """What the rows of one decoder are taken by and hold. Requests move along when another decoder takes over.

    Args:
        reader: of the model that decodes.

    Attributes:
        reader: as given.
        taken: the request of each row, None where it is free.
        least_length: positions that each row of any decoder has at least.
    """

    def __init__(self, reader: PromptReader) -> None:
        self.reader = reader
        # With "dynamic" scaling a key's angle depends on the length of the whole prompt that it was read in.
        self._may_share = reader.lm.config.rope_scaling.kind != "dynamic"
        self.taken: list[Running | None] = []
        self.least_length = 0
        self._held: list[Held] = []
        self._decoder: CachedDecoder | None = None
        self._idle: list[CachedDecoder] = []
        # Positions of the largest decoder so far.
        self._largest = 0
        self._roomy = 0

    @property
    def decoder(self) -> CachedDecoder:
        """The one in use; only after `make_room`."""
        assert self._decoder is not None
        return self._decoder

    @property
    def batch(self) -> int:
        """Rows of the decoder in use; 0 before there is one."""
        return self._decoder.batch if self._decoder is not None else 0

    @property
    def few(self) -> int:
        """`CachedDecoder.few` of the one in use; 0 before there is one."""
        return self._decoder.few if self._decoder is not None else 0

    @property
    def running(self) -> int:
        """Rows that are taken."""
        return sum(one is not None for one in self.taken)

    def take(self, running: Running) -> None:
        """Give a request a free row."""
        wanted = Held.of(running.request.prompt, running.request.adapter)
        spare = [row for row, one in enumerate(self.taken) if one is None]

        def cost(row: int) -> int:
            # Tokens that are lost. To copy a start from there into another row costs as much as reading a few.
            held = self._held[row]
            common = held.common(wanted)
            return len(held.tokens) - (common + SHORTEST_SHARED if common >= SHORTEST_SHARED else 0)

        self.taken[min(spare, key=cost)] = running

    def give_back(self, running: Running) -> None:
        """Free a request's row, which goes on to hold what it holds."""
        if running in self.taken:
            row = self.taken.index(running)
            self._hold(row, running)
            self.taken[row] = None

    def forget(self) -> None:
        """Drop all requests and whatever rows hold; decoders stay."""
        self.taken = [None] * len(self.taken)
        self._held = [NOTHING] * len(self.taken)

    def drop(self) -> None:
        """Drop the decoder in use as well."""
        if self._decoder is not None:
            free_graphs(self._decoder)
        self._decoder, self.taken, self._held = None, [], []

    def clear_failed(self) -> None:
        """Free the rows of requests that have failed, and empty them."""
        failed = [row for row, one in enumerate(self.taken) if one is not None and one.error]
        for row in failed:
            self.taken[row] = None
        self.clear(failed)

    def clear(self, rows: Sequence[int]) -> None:
        """Empty rows in which a NaN may stand: no mask hides it from the next answer."""
        self.decoder.clear_rows(rows)
        self.overwrite(rows)

    def overwrite(self, rows: Iterable[int]) -> None:
        """What rows held counts no longer."""
        for row in rows:
            self._held[row] = NOTHING

    def check_resting(self, logits: np.ndarray, used: Sequence[int]) -> None:
        """Empty the rows at which the model has failed, but those in use.

        A step is of all rows: one that rests reads token 0, and writes behind what it holds. (Where it holds nothing,
        the next prompt overwrites that.)

        Args:
            logits: float32 (rows, V), of the step.
            used: rows that answer, or hold a part of a prompt.
        """
        holding = {row for row, held in enumerate(self._held) if len(held.tokens)}
        self.clear([row for row in holding.difference(used) if not is_finite(logits[row])])

    def positions(self) -> np.ndarray:
        """Where the next token of each row goes, int32 (rows,): behind what it holds."""
        found = np.array([len(held.tokens) for held in self._held], np.int32)
        for row, running in enumerate(self.taken):
            if running is not None and running.read:
                found[row] = running.cached
        return found

    def common(self, wanted: Held, others: Sequence[Held] = ()) -> int:
        """How many tokens from the start some row holds already, or will once it holds one of `others`."""
        return self.common_with([*self._held, *others], wanted)

    def common_with(self, others: Sequence[Held], wanted: Held) -> int:
        """The same of these alone."""
        return max((held.common(wanted) for held in others), default=0) if self._may_share else 0

    def source(self, row: int, wanted: Held, least: int) -> tuple[int, int]:
        """The row whose start a prompt's row had best take over, and how many tokens that is: none, or `least`.

        The last token is always read, for its logits.
        """
        own = self._held[row].common(wanted)
        own = own if own >= least else 0
        found = max(range(len(self._held)), key=lambda other: self._held[other].common(wanted))
        common = self._held[found].common(wanted)
        # Copying costs as much as reading a few.
        if common < own + SHORTEST_SHARED:
            found, common = row, own
        common = min(common, len(wanted.tokens) - 1)
        return found, common if common >= least else 0

    def share(self, row: int, prompt: Sequence[int], adapter: str | None, least: int = SHORTEST_SHARED) -> int:
        """Take over what some row holds of a prompt's start, and say how many tokens that is: none, or `least`."""
        wanted = Held.of(prompt, adapter)
        source, common = self.source(row, wanted, least)
        if not common:
            self._held[row] = NOTHING
            return 0
        if source != row:
            self.decoder.copy_row(source, row)
        self._held[row] = wanted.cut(common)
        return common

    def hold(self, row: int, tokens: Sequence[int], adapter: str | None) -> None:
        """Note what a row holds."""
        if self._may_share:
            # The last slot is where a resting row writes.
            self._held[row] = Held.of(tokens, adapter).cut(self.decoder.length - 1)

    def hold_all(self) -> None:
        """Note what the rows that are taken hold by now."""
        for row, one in enumerate(self.taken):
            if one is not None:
                self._hold(row, one)

    def _hold(self, row: int, running: Running) -> None:
        if running.read and not running.error:
            request = running.request
            self.hold(row, [*request.prompt[: running.read], *running.tokens[:-1]], request.adapter)

    def make_room(self, rows: int, length: int) -> None:
        """Have a decoder of at least so many rows, each of at least so many positions; what runs goes along."""
        now = self._decoder
        if now is not None and rows <= now.batch and length <= now.length:
            return
        rows = bucket(max(rows, now.batch if now and self.running else 1))
        length = max(cache_length(self.reader.lm, length), self.least_length)
        self.move(rows, max(length, now.length) if now and self.running else length)

    def shrink(self) -> None:
        """Go on in a smaller decoder that is there already, where few rows have been left for some steps."""
        smaller = self._smaller()
        self._roomy = self._roomy + 1 if smaller is not None else 0
        if smaller is not None and self._roomy >= PATIENCE:
            self._roomy = 0
            self.move(smaller.batch, smaller.length)

    def _smaller(self) -> CachedDecoder | None:
        running = self.running
        if self._decoder is None or not running or self._decoder.batch < 2 * bucket(running):
            return None
        needed = max(len(one.request.prompt) + one.request.max_new_tokens for one in self.taken if one is not None)
        fitting = [one for one in self._idle if running <= one.batch < self._decoder.batch and one.length >= needed]
        return min(fitting, key=lambda one: (one.batch, one.length), default=None)

    def move(self, rows: int, length: int) -> None:
        """Go on in a decoder of this size; what fits of the rows goes along."""
        before = self._decoder
        found = [one for one in self._idle if rows <= one.batch < 2 * rows and one.length >= length]
        decoder = min(found, key=lambda one: (one.batch, one.length), default=None)
        if decoder is None:
            # Before there is one more.
            self._drop_idle(rows * length)
            decoder = CachedDecoder(self.reader, rows, length)
        else:
            self._idle.remove(decoder)
        kept = sorted(range(len(self.taken)), key=lambda row: (self.taken[row] is None, -len(self._held[row].tokens)))
        kept = [row for row in kept[: decoder.batch] if self.taken[row] is not None or len(self._held[row].tokens)]
        if before is not None:
            if kept:
                decoder.take_over(before, kept)
            self._idle.append(before)
        spare = decoder.batch - len(kept)
        self._held = [self._held[row].cut(decoder.length - 1) for row in kept] + [NOTHING] * spare
        self.taken = [self.taken[row] for row in kept] + [None] * spare
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
        for one in self._idle:
            if one not in kept:
                free_graphs(one)
        self._idle = [one for one in self._idle if one in kept]
