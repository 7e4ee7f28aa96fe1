"""Batched decoding: a plain Python loop around compiled steps of fixed shape, on a cache that is reused.

A new shape costs a compilation (seconds on a CPU, minutes on an NPU), so prompts, batches and caches are rounded up to
a few sizes, and a decoder that has been compiled is used again for whatever fits into it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import mindspore as ms
import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.generation.sampling import Sampler, SamplingParams
from ms_medqa.generation.weights import Snapshot, snapshot, unchanged
from ms_medqa.models.cache import CachedDecoder
from ms_medqa.models.decoder import CausalLM

SMALLEST_PROMPT = 32
SMALLEST_CACHE = 128
MAX_IDLE_DECODERS = 3


def bucket(size: int, smallest: int = 1) -> int:
    """The next power of two from `smallest` up."""
    assert size > 0, size
    width = smallest
    while width < size:
        width *= 2
    return width


def prompt_width(tokens: int) -> int:
    """Tokens that a prompt takes in the compiled step that reads it."""
    return bucket(tokens, SMALLEST_PROMPT)


class Engine:
    """Decodes batches of prompts with one model. `Engine.of(model)` gives a model's own.

    A decoder's cache belongs to one running batch, so answers that are streamed side by side take one decoder each.
    """

    def __init__(self, model: CausalLM) -> None:
        self.model = model
        self._idle: list[_Compiled] = []
        self._lock = threading.Lock()

    @classmethod
    def of(cls, model: CausalLM) -> Engine:
        """The engine that all callers of a model share, so that nothing is compiled twice."""
        # Kept on the model and not in a table beside it: decoders refer to the model, and both should go together.
        engine = model.__dict__.get("_generation_engine")
        if engine is None:
            engine = model.__dict__["_generation_engine"] = cls(model)
        return engine

    def check(self, prompt: Sequence[int], max_new_tokens: int) -> None:
        """Raise UserError where a prompt cannot be answered: empty, too long, or of another vocabulary."""
        config = self.model.config
        if not len(prompt):
            raise UserError("a prompt has no tokens")
        if len(prompt) + max_new_tokens > config.position_limit:
            raise UserError(
                f"the prompt has {len(prompt)} tokens and max_new_tokens is {max_new_tokens}, but the model holds "
                f"{config.position_limit} positions",
                "shorten the question or its context, or lower max_new_tokens",
            )
        if min(prompt) < 0 or max(prompt) >= config.vocab_size:
            raise UserError(
                f"a prompt has the token id {max(prompt)}, but the model's vocabulary has {config.vocab_size}",
                "use the model's own tokenizer",
            )

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        max_new_tokens: int,
        end_ids: frozenset[int],
        *,
        seed: int | None = None,
        streams: Sequence[int] | None = None,
        batch: int = 0,
    ) -> Iterator[np.ndarray]:
        """Yield, step by step, the new token of each prompt.

        Args:
            prompts: token ids without padding.
            params: how tokens are chosen.
            max_new_tokens: most tokens of one answer.
            end_ids: tokens that end an answer; they are not handed out.
            seed, streams: see `Sampler`.
            batch: rows to make room for at least, where a larger batch will follow.

        Yields:
            int64 (len(prompts),): -1 where an answer has ended. Ends when all have.

        Raises:
            UserError: a prompt cannot be answered.
        """
        for prompt in prompts:
            self.check(prompt, max_new_tokens)
        if not prompts or max_new_tokens < 1:
            return
        limit = self.model.config.position_limit
        lengths = [len(prompt) for prompt in prompts]
        rows = bucket(max(batch, len(prompts)))
        space = min(bucket(max(lengths) + max_new_tokens, SMALLEST_CACHE), limit)
        sampler = Sampler(params, prompts, seed, streams)
        active = np.ones(len(prompts), dtype=bool)
        with self._lease(rows, space) as compiled:
            decoder = compiled.decoder
            # The decoder may be larger than asked for; the rows too many hold one token each and are never looked at.
            width = min(prompt_width(max(lengths)), decoder.length)
            ids = np.zeros((decoder.batch, width), dtype=np.int32)
            positions = np.ones(decoder.batch, dtype=np.int32)
            for row, prompt in enumerate(prompts):
                ids[row, : len(prompt)] = prompt
            positions[: len(prompts)] = lengths
            logits = decoder.prefill(ms.Tensor(ids), ms.Tensor(positions))
            # Taken after the first run, which may have moved the weights to the device.
            compiled.weights = snapshot(self.model)
            newest = np.zeros(decoder.batch, dtype=np.int32)
            for made in range(1, max_new_tokens + 1):
                tokens = sampler(logits.asnumpy(), active)
                active &= ~np.isin(tokens, list(end_ids))
                tokens[~active] = -1
                if not active.any():
                    return
                yield tokens
                if made == max_new_tokens:
                    return
                newest[: len(prompts)] = np.maximum(tokens, 0)
                logits = decoder.step(ms.Tensor(newest), ms.Tensor(positions))
                # A row that has ended stays where it is, inside its own part of the cache.
                positions[: len(prompts)] += active

    @contextmanager
    def _lease(self, rows: int, space: int) -> Iterator[_Compiled]:
        with self._lock:
            self._idle = [compiled for compiled in self._idle if unchanged(self.model, compiled.weights)]
            # Spare rows cost time in every step, spare cache far less.
            fitting = [
                compiled
                for compiled in self._idle
                if rows <= compiled.decoder.batch <= 2 * rows and compiled.decoder.length >= space
            ]
            taken = min(fitting, key=lambda c: (c.decoder.batch, c.decoder.length), default=None)
            if taken is not None:
                self._idle.remove(taken)
        if taken is None:
            taken = _Compiled(CachedDecoder(self.model, rows, space))
        try:
            yield taken
        except Exception:
            # A run that failed may have left NaN in the cache, which no mask hides from the next answer.
            taken = None
            raise
        finally:
            if taken is not None:
                with self._lock:
                    self._idle.append(taken)
                    del self._idle[:-MAX_IDLE_DECODERS]


@dataclass(eq=False, slots=True)
class _Compiled:
    """A decoder, and the weights that its last run was seen to compute with."""

    decoder: CachedDecoder
    weights: Snapshot = field(default_factory=list)
