"""Choice of the next token on the host: penalties and filters (`processors`), then a seeded draw."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ms_medqa.config.errors import RunError
from ms_medqa.generation.params import SamplingParams as SamplingParams
from ms_medqa.generation.processors import History, candidates, likeliest, weigh

# Tokens that a draw puts in order; those behind them are hardly ever drawn, and to order them all takes 12 ms.
_ORDERED = 1024


def draw_seed() -> int:
    """A fresh seed of 63 bits, for a run whose user set none."""
    return secrets.randbits(63)


def row_generator(seed: int, stream: int) -> np.random.Generator:
    """The random numbers of one answer: a function of (seed, stream) alone, never of its neighbours in a batch."""
    key = np.array([seed % 2**64, stream % 2**64], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token.

    Attributes:
        token: its id.
        logprob: natural logarithm of its probability in the model's own distribution, before penalty, temperature and
            filters; None where it was not asked for.
        top: (id, log-probability) of the likeliest tokens, likeliest first, as many as asked for; tokens that the
            model rules out (a logit of -inf) are not among them.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class TokenSampler:
    """Chooses the tokens of one answer, and remembers them.

    Args:
        params: how to choose.
        prompt: token ids without padding; they count as seen.
        seed, stream: the draws are a function of these two alone.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int], seed: int, stream: int = 0) -> None:
        self.params = params
        self._history = History(prompt, params.no_repeat_ngram_size)
        self._generator = row_generator(seed, stream)

    def choose(self, logits: np.ndarray, logprobs: int | None = None) -> Choice:
        """Choose the next token.

        Args:
            logits: float32 (V,); not changed.
            logprobs: None: no log-probabilities; 0: that of the chosen token; K: those of the K likeliest as well.

        Raises:
            RunError: the logits are not finite.
        """
        logits = np.asarray(logits, dtype=np.float32)
        check_finite(logits)
        scores = logits.copy()
        self._history.penalise(scores, self.params.repetition_penalty)
        self._history.forbid(scores)
        # A penalty far from 1 may have made an infinity.
        check_finite(scores)
        if self.params.greedy:
            token = int(scores.argmax())
        else:
            token = draw(*candidates(scores, self.params), self._generator.random())
        self._history.add(token)
        if logprobs is None:
            return Choice(token)
        return Choice(token, *log_probabilities(logits, token, logprobs))


def draw(ids: np.ndarray, scores: np.ndarray, point: float) -> int:
    """The token at `point` of the tokens' probabilities laid end to end, the likeliest first (lower id first on ties).

    Of more than a thousand tokens, those behind the likeliest thousand lie in the order of their ids.

    Args:
        ids: int (K,), ascending.
        scores: float32 (K,) log-probabilities up to a constant, the largest finite.
        point: in [0, 1).
    """
    head = likeliest(scores, _ORDERED)
    order = head[np.argsort(-scores[head], kind="stable")]
    if head.size < scores.size:
        tail = np.ones(scores.size, dtype=bool)
        tail[head] = False
        order = np.concatenate([order, np.flatnonzero(tail)])
    sums = np.cumsum(weigh(scores)[order], dtype=np.float64)
    # Short of the end, so that what is found has a probability above 0, whatever the rounding.
    place = np.searchsorted(sums, min(point * sums[-1], np.nextafter(sums[-1], 0)), side="right")
    return int(ids[order[place]])


def log_probabilities(logits: np.ndarray, token: int, count: int) -> tuple[float, tuple[tuple[int, float], ...]]:
    """The log-softmax of `logits`, float32 (V,), at `token`, and (id, value) where it is greatest, lower id on ties."""
    top = logits.max()
    total = float(np.log(weigh(logits).sum(dtype=np.float64)))

    def value(place: int) -> float:
        # In this order, for beside a large logit the logarithm would be rounded away.
        return float(logits[place]) - float(top) - total

    # One at least, for `likeliest` cannot look for none.
    ids = likeliest(logits, max(count, 1))
    ids = ids[np.argsort(-logits[ids], kind="stable")][:count]
    ids = ids[np.isfinite(logits[ids])]
    return value(token), tuple((int(i), value(i)) for i in ids)


def is_finite(logits: np.ndarray) -> bool:
    """Whether a model's logits hold no NaN and no infinity above."""
    # max() hands a NaN through, and an overflow shows as infinity.
    return bool(np.isfinite(logits.max()))


def check_finite(logits: np.ndarray) -> None:
    """Raise RunError where a model's logits, float32 (V,), hold a NaN or an infinity above."""
    if not is_finite(logits):
        raise RunError("the model gave logits that are not finite; try runtime.dtype=float32")
