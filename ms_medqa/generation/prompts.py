"""Prompts that wait to be read: in which order and in which pieces, each into its row of the static cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import compress

import mindspore as ms
import numpy as np

from ms_medqa.generation import reading
from ms_medqa.generation.held import Held
from ms_medqa.generation.reading import bucket, piece_width
from ms_medqa.generation.request import Running
from ms_medqa.generation.rows import CacheRows
from ms_medqa.generation.sampling import is_finite
from ms_medqa.models.cache import Piece
from ms_medqa.models.decoder import CausalLM

# Steps that a prompt waits at most to be read with others, where all rows are taken.
READ_PATIENCE = 4

# Requests, each with its row.
Waiting = list[tuple[int, Running]]


class Prompts:
    """Reads the prompts of the requests that have a row and no token yet.

    Args:
        model: reads.
        rows: of the cache.
        choice: of adapters, as `CachedDecoder` takes it, one for each token.
    """

    def __init__(
        self,
        model: CausalLM,
        rows: CacheRows,
        choice: Callable[[Sequence[str | None]], tuple[ms.Tensor, ...]],
    ) -> None:
        self._model, self._rows, self._choice = model, rows, choice
        self._put_off = 0
        # Those that the kernel reads in the next step, and operators need not read in this one.
        self._later: list[Running] = []

    def read(self, max_rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """Read by operators what may be read between two steps.

        Args:
            max_rows: requests at a time.

        Yields:
            A row whose prompt has been read to its end, and float32 (V,) logits after it. Where the model has failed
            at a piece, those are not finite, and the rest of that prompt is not read.
        """
        later, self._later = self._later, []
        waiting = [(row, one) for row, one in self._waiting() if one not in later]
        budget = 0 if self._may_wait([one for _, one in waiting], max_rows) else reading.LARGEST_PIECE
        while waiting and budget > 0:
            row, running = waiting[0]
            prompt = running.request.prompt
            if not running.read:
                self._rows.hold_all()
                together = self._together(waiting, budget)
                if len(together) > 1:
                    logits = self._read_together(together)
                    if logits is None:
                        continue
                    del waiting[: len(together)]
                    budget -= sum(len(one.request.prompt) for _, one in together)
                    yield from ((row, logits[place]) for place, (row, _) in enumerate(together))
                    continue
                running.read = running.shared = self._rows.share(row, prompt, running.request.adapter)
            last, count = self.read_piece(prompt, running.read, row, running.request.adapter)
            running.read += count
            budget -= count
            if running.read == len(prompt) or not is_finite(last):
                del waiting[0]
                yield row, last

    def short_ones(self) -> list[Piece]:
        """Prompts that the kernel reads, or what is left of them: the first, and others for which there is room.

        They are to be read now, and count as read. The rest waits for the next step: to read them apart takes no longer
        where layers are small. Where they are not, those that operators can read in one piece are left to `read`, if
        there is not room for all.
        """
        waiting, few = self._waiting(), self._rows.few
        if not waiting:
            return []
        self._rows.hold_all()
        left = [self._left(row, one) for row, one in waiting]
        short = [(row, one, count) for (row, one), count in zip(waiting, left, strict=True) if count <= few]
        if not self._rows.decoder.reader.kernel.small:
            fresh = [
                not one.read and len(one.request.prompt) - count < reading.SMALLEST_PIECE for _, one, count in short
            ]
            if sum(count for _, _, count in compress(short, fresh)) > few:
                short = [one for one, is_fresh in zip(short, fresh, strict=True) if not is_fresh]
        chosen, found, used = list[Piece](), list[Held](), 0
        for row, running, count in short:
            request = running.request
            wanted = Held.of(request.prompt, request.adapter)
            # What is read now need not be read again.
            soon = self._rows.common_with(found, wanted) >= len(request.prompt) - count + reading.SMALLEST_PIECE
            if used + count > few or (soon and not running.read):
                self._later.append(running)
                continue
            if not running.read:
                running.read = running.shared = self._rows.share(row, request.prompt, request.adapter, least=1)
            rest = request.prompt[running.read :]
            # It is more than it was if the row that held its start is one that is read into now.
            if used + len(rest) > few:
                self._later.append(running)
                continue
            used += len(rest)
            found.append(wanted)
            chosen.append(Piece(rest, row, running.read, len(request.prompt)))
            running.read = len(request.prompt)
        return chosen

    def _waiting(self) -> Waiting:
        """Requests whose prompts have not been read to the end, in the order in which they came."""
        taken = enumerate(self._rows.taken)
        waiting = [(row, one) for row, one in taken if one is not None and not (one.tokens or one.error or one.finish)]
        return sorted(waiting, key=lambda pair: pair[1].number)

    def _left(self, row: int, running: Running) -> int:
        """Tokens of a prompt that are to be read, beside those that some row holds."""
        request = running.request
        wanted = Held.of(request.prompt, request.adapter)
        return len(request.prompt) - (running.read or self._rows.source(row, wanted, least=1)[1])

    def _may_wait(self, waiting: Sequence[Running], max_rows: int) -> bool:
        """Whether prompts should be read later, with those that come in the next steps.

        All answers pause while prompts are read, for one short prompt as long as for several. So where all rows are
        taken, and more requests are likely to wait for one, it is done for a quarter of the rows at a time.
        """
        running = self._rows.running
        few = len(waiting) < max(1, max_rows // 4) and len(waiting) < running
        full = running >= max_rows
        wait = full and few and self._put_off < READ_PATIENCE and not any(one.read for one in waiting)
        self._put_off = self._put_off + 1 if wait and waiting else 0
        return wait

    def _together(self, waiting: Waiting, budget: int) -> Waiting:
        """Of the requests that wait, in their order, the first few whose whole prompts one piece may hold."""
        most = min(budget, piece_width(self._model, reading.LARGEST_PIECE, 0, reading.LARGEST_PIECE))
        found, best, used, apart = list[Held](), 0, 0, 0
        for _, running in waiting:
            request = running.request
            wanted = Held.of(request.prompt, request.adapter)
            # Of a start that is shorter than any piece, reading it again costs less than a piece of one's own.
            shared = self._rows.common(wanted, found)
            used += len(request.prompt)
            if running.read or running.apart or shared >= reading.SMALLEST_PIECE or used > most:
                break
            found.append(wanted)
            apart += bucket(len(request.prompt), reading.SMALLEST_PIECE)
            # One piece may be padded by more than several are.
            if bucket(used, reading.SMALLEST_PIECE) <= apart:
                best = len(found)
        return waiting[:best]

    def _read_together(self, together: Waiting) -> np.ndarray | None:
        """Read whole prompts in one piece; float32 (batch, V) logits, those after the prompts first.

        None where the model fails at one: no mask hides a NaN of that from the others, so each is to be read apart.
        """
        prompts = [running.request.prompt for _, running in together]
        rows = [row for row, _ in together]
        if sum(map(len, prompts)) <= self._rows.few:
            # As few tokens as this have no other graph.
            pieces = [Piece(prompt, row, 0, len(prompt)) for prompt, row in zip(prompts, rows, strict=True)]
            logits = self._rows.decoder.feed(pieces).asnumpy()
        else:
            adapters = [running.request.adapter for _, running in together for _ in running.request.prompt]
            width = bucket(len(adapters), reading.SMALLEST_PIECE)
            choice = self._choice([*adapters, *[None] * (width - len(adapters))])
            logits = self._rows.decoder.read_together(prompts, rows, width, choice).asnumpy()
        self._rows.overwrite(rows)
        if not is_finite(logits[: len(rows)]):
            self._rows.clear(rows)
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
        width = piece_width(self._model, len(prompt) - start, start, self._rows.decoder.length)
        tokens = prompt[start : start + width]
        logits = self._rows.decoder.read(tokens, row, start, width, len(prompt), self._choice([adapter] * width))
        return logits.asnumpy()[0], len(tokens)
