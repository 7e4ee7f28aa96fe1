"""What is done to a row of logits before a token is drawn from it.

Order and meaning are those of Hugging Face's `generate`: repetition penalty, no-repeat n-gram, temperature, top-k,
top-p, min-p, of which the last four are left out where the likeliest token is taken. Three differences are wanted.
Padding is never part of a prompt here, so it is never penalised. Of equally likely tokens at the border of top-p the
lower ids stay, where Hugging Face keeps as many of them but leaves open which. And where Hugging Face would be left
without a token or with NaN, a token can be drawn: see `History.forbid` and `divide`.
"""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterable

import numpy as np

from ms_medqa.generation.params import SamplingParams

# Tokens of which only the likeliest is looked at before the k likeliest of a vocabulary are sought.
_GROUP = 16
# Ranges of scores among which the border of top-p is sought.
_RANGES = 2048


class History:
    """The tokens of a prompt and its answer: which occur, and what has followed each run of n - 1 tokens.

    Args:
        tokens: the prompt.
        ngram_size: n of the n-grams to remember; 0 remembers none.
    """

    def __init__(self, tokens: Iterable[int] = (), ngram_size: int = 0) -> None:
        self._seen: set[int] = set()
        # Beside the set, for an array of a set would be made anew at each token.
        self._ids = np.empty(256, dtype=np.int64)
        self._ngram_size = ngram_size
        self._newest: deque[int] = deque(maxlen=max(ngram_size - 1, 0))
        self._following: dict[tuple[int, ...], list[int]] = {}
        for token in tokens:
            self.add(int(token))

    def add(self, token: int) -> None:
        """Take the next token."""
        if token not in self._seen:
            if len(self._seen) == self._ids.size:
                self._ids = np.resize(self._ids, 2 * self._ids.size)
            self._ids[len(self._seen)] = token
            self._seen.add(token)
        if self._ngram_size:
            if len(self._newest) == self._ngram_size - 1:
                # Added in place, for a run of no tokens is followed by all of them.
                self._following.setdefault(tuple(self._newest), []).append(token)
            self._newest.append(token)

    def fork(self) -> History:
        """Another one that remembers the same and goes on by itself."""
        other = copy.copy(self)
        for name in ("_seen", "_ids", "_newest"):
            setattr(other, name, getattr(self, name).copy())
        other._following = {run: tokens.copy() for run, tokens in self._following.items()}
        return other

    def penalise(self, logits: np.ndarray, penalty: float) -> None:
        """Lower the logits of tokens that occur, in place. logits: float32 (V,)."""
        if penalty != 1.0 and self._seen:
            seen = self._ids[: len(self._seen)]
            # A prompt may hold ids that the model has an embedding for, but no logit.
            seen = seen[seen < logits.shape[0]]
            values = logits[seen]
            # Either overflows where the other is taken; what is taken is looked at by the caller.
            with np.errstate(over="ignore"):
                logits[seen] = np.where(values < 0, values * penalty, values / penalty)

    def forbid(self, logits: np.ndarray) -> None:
        """Set to -inf, in place, what would complete an n-gram that occurs. logits: float32 (V,).

        Where this would leave no token at all, it is not done: an answer cannot go on without one.
        """
        banned = np.array(self._following.get(tuple(self._newest), ()), dtype=np.int64)
        banned = banned[banned < logits.shape[0]]
        if banned.size:
            before = logits[banned]
            logits[banned] = -np.inf
            if logits.max() == -np.inf:
                logits[banned] = before


def divide(scores: np.ndarray, temperature: float) -> np.ndarray:
    """float32 (V,) scores / temperature.

    Where that is too large for a float32, the largest is subtracted first, which leaves the probabilities as they are.
    """
    top = float(scores.max())
    if max(abs(top), 1.0) / np.finfo(np.float32).max < temperature:
        # The others may become -inf: they are further from the largest than a probability can tell.
        with np.errstate(over="ignore"):
            return scores / np.float32(temperature)
    with np.errstate(over="ignore"):
        return ((scores.astype(np.float64) - top) / temperature).astype(np.float32)


def likeliest(scores: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` greatest scores, and of those equal to the last of them.

    Args:
        scores: float (N,) without NaN.
        count: at least 1; may be more than there are.

    Returns:
        int64 (at least min(count, N),), ascending.
    """
    size = scores.shape[0]
    places = np.arange(size)
    if count >= size:
        return places
    groups = size // _GROUP
    if groups >= count:
        # So many groups hold a score of at least `floor`: the one sought is no smaller. This costs a tenth of looking
        # for it among all.
        tops = scores[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
        floor = np.partition(tops, groups - count)[groups - count]
        places = np.flatnonzero(scores >= floor)
    values = scores[places]
    last = np.partition(values, values.size - count)[values.size - count]
    return places[values >= last]


def nucleus(scores: np.ndarray, top_p: float) -> np.ndarray:
    """Which tokens top-p keeps. As in Hugging Face's processor, the unlikeliest go as long as all that go have at most
    1 - top_p together, in float32; the likeliest stays in any case.

    Args:
        scores: float32 (N,) log-probabilities up to a constant, the largest finite.
        top_p: above 0, below 1.

    Returns:
        bool (N,).
    """
    rest = np.float32(1 - top_p)
    probabilities = _softmax(scores)
    # Summed up in narrow ranges, the unlikeliest first, they tell in which range the border lies: only that is sorted.
    # Beyond the last range all go: even if all tokens were as likely as those, they would have too little together.
    top, span = scores.max(), np.float32(np.log(2 * scores.size / rest))
    depths = ((top - np.maximum(scores, top - span)) * (_RANGES / span)).astype(np.int32)
    np.minimum(depths, _RANGES - 1, out=depths)
    below = np.cumsum(np.bincount(depths, weights=probabilities, minlength=_RANGES)[::-1])
    border = min(int(np.searchsorted(below.astype(np.float32), rest, side="right")), _RANGES - 1)
    near = np.flatnonzero(depths == _RANGES - 1 - border)
    values = np.sort(scores[near])
    sums = (below[border - 1] if border else 0.0) + np.cumsum(np.sort(probabilities[near]), dtype=np.float64)
    removed = min(int(np.searchsorted(sums.astype(np.float32), rest, side="right")), values.size - 1)
    kept = scores >= values[removed]
    surplus = removed - int(np.searchsorted(values, values[removed]))
    if surplus:
        kept[near[scores[near] == values[removed]][-surplus:]] = False
    return kept


def likely_enough(scores: np.ndarray, min_p: float) -> np.ndarray:
    """Which tokens min-p keeps: bool (N,) for float32 scores (N,), the largest finite."""
    probabilities = _softmax(scores)
    return probabilities >= np.float32(min_p) * probabilities.max()


def candidates(logits: np.ndarray, params: SamplingParams) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that may be drawn, after temperature, top-k, top-p and min-p.

    Args:
        logits: float32 (V,), after penalty and ban, the largest finite.
        params: a temperature above 0.

    Returns:
        int64 ids (K,), ascending, and float32 scores (K,), log-probabilities up to a constant; at least one token.
    """
    scores = divide(logits, params.temperature)
    ids = likeliest(scores, params.top_k or scores.size)
    if ids.size < scores.size:
        scores = scores[ids]
    if params.top_p < 1:
        places = np.flatnonzero(nucleus(scores, params.top_p))
        ids, scores = ids[places], scores[places]
    if params.min_p > 0:
        places = np.flatnonzero(likely_enough(scores, params.min_p))
        ids, scores = ids[places], scores[places]
    return ids, scores


def process(logits: np.ndarray, params: SamplingParams, history: History) -> np.ndarray:
    """All processors in turn.

    Args:
        logits: float32 (V,), the largest finite; not changed.
        params: how to choose; at a temperature of 0 only penalty and ban are applied.
        history: prompt and answer so far.

    Returns:
        float32 (V,): what a token is drawn from by softmax, -inf where it cannot be drawn.
    """
    scores = logits.copy()
    history.penalise(scores, params.repetition_penalty)
    history.forbid(scores)
    if params.greedy:
        return scores
    ids, kept = candidates(scores, params)
    scores.fill(-np.inf)
    scores[ids] = kept
    return scores


def weigh(scores: np.ndarray) -> np.ndarray:
    """Probabilities as multiples of the largest: float32 (N,) for float32 scores (N,), the largest finite."""
    # A score may be further from the largest than a float32 can tell.
    with np.errstate(over="ignore"):
        return np.exp(scores - scores.max())


def _softmax(scores: np.ndarray) -> np.ndarray:
    weights = weigh(scores)
    return weights / weights.sum()
