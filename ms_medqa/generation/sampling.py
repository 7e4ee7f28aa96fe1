"""Choice of the next token on the host: repetition penalty, temperature, top-k, top-p, then a seeded draw.

Order and meaning are those of Hugging Face's logits processors, so a setting means the same here and there. One
difference is wanted: padding is never part of a prompt here, so it is never penalised.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ms_medqa.config.errors import RunError, UserError


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen; the defaults are those of the `generate` section of the config.

    Attributes:
        temperature: logits are divided by it; 0 takes the likeliest token (after the repetition penalty).
        top_p: keep the smallest set of likeliest tokens whose probability reaches this; 1 keeps all.
        top_k: keep the K likeliest tokens (and those equal to the K-th); 0 keeps all.
        repetition_penalty: a logit of a token seen in prompt or answer is divided by this when positive, multiplied
            when negative (Keskar et al. 2019, "CTRL", section 4.1).
    """

    temperature: float = 0.2
    top_p: float = 0.9
    top_k: int = 50
    repetition_penalty: float = 1.1

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise UserError(f"temperature = {self.temperature}: must be at least 0", "0 takes the likeliest token")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p = {self.top_p}: must be above 0 and at most 1")
        if self.top_k < 0:
            raise UserError(f"top_k = {self.top_k}: must be at least 0", "0 keeps all tokens")
        if not self.repetition_penalty > 0:
            raise UserError(f"repetition_penalty = {self.repetition_penalty}: must be above 0", "1 penalises nothing")

    @property
    def greedy(self) -> bool:
        """True where no draw is made."""
        return self.temperature == 0


def draw_seed() -> int:
    """A fresh seed of 63 bits, for a run whose user set none."""
    return secrets.randbits(63)


def row_generator(seed: int, stream: int) -> np.random.Generator:
    """The random numbers of one answer: a function of (seed, stream) alone, never of its neighbours in a batch."""
    key = np.array([seed % 2**64, stream % 2**64], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def penalise_repetition(logits: np.ndarray, seen: np.ndarray, penalty: float) -> None:
    """Lower the logits of `seen` token ids in place. logits: float32 (V,); seen: unique int ids."""
    if penalty != 1.0 and seen.size:
        values = logits[seen]
        logits[seen] = np.where(values < 0, values * penalty, values / penalty)


def candidates(logits: np.ndarray, params: SamplingParams) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that may be drawn and their probabilities, likeliest first.

    Args:
        logits: float32 (V,), after the repetition penalty.
        params: a temperature above 0.

    Returns:
        int64 ids (K,) and float64 probabilities (K,) whose sum is 1; at least one token.
    """
    vocab_size = logits.shape[0]
    if 0 < params.top_k < vocab_size:
        threshold = np.partition(logits, vocab_size - params.top_k)[vocab_size - params.top_k]
        ids = np.flatnonzero(logits >= threshold)
    else:
        ids = np.arange(vocab_size)
    # A stable order makes ties fall to the lower id, as argmax does.
    ids = ids[np.argsort(-logits[ids], kind="stable")]
    scores = logits[ids].astype(np.float64)
    # Subtracted before the division: a temperature near 0 would make infinities of which no difference can be taken.
    with np.errstate(over="ignore"):
        weights = np.exp((scores - scores[0]) / params.temperature)
    probabilities = weights / weights.sum()
    if params.top_p < 1:
        before = np.cumsum(probabilities) - probabilities
        keep = before < params.top_p
        keep[0] = True
        ids, probabilities = ids[keep], probabilities[keep]
        probabilities = probabilities / probabilities.sum()
    return ids, probabilities


class Sampler:
    """Next tokens of a batch of rows; remembers what each row has said.

    Args:
        params: how to choose.
        prompts: token ids of each row's prompt, without padding; they count as seen.
        seed: of the draws; None takes a fresh one.
        streams: number of each row's own random stream; by default its place in the batch.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompts: Sequence[Sequence[int]],
        seed: int | None = None,
        streams: Sequence[int] | None = None,
    ) -> None:
        streams = range(len(prompts)) if streams is None else streams
        assert len(streams) == len(prompts), "one stream a row"
        self.params = params
        self.seed = draw_seed() if seed is None else seed
        self._seen = [set(map(int, prompt)) for prompt in prompts]
        self._generators = [row_generator(self.seed, stream) for stream in streams]

    def __call__(self, logits: np.ndarray, active: Sequence[bool] | np.ndarray) -> np.ndarray:
        """Choose one token for each active row.

        Args:
            logits: float32 (B, V) with B at least the number of rows; not changed.
            active: bool (rows,); other rows get -1 and draw nothing.

        Returns:
            int64 ids (rows,).

        Raises:
            RunError: a row's logits are not finite.
        """
        chosen = np.full(len(self._seen), -1, dtype=np.int64)
        for row in np.flatnonzero(active):
            scores = np.array(logits[row], dtype=np.float32)
            # max() hands a NaN through, and an overflow shows as infinity.
            if not np.isfinite(scores.max()):
                raise RunError("the model gave logits that are not finite; try runtime.dtype=float32")
            seen = self._seen[row]
            seen_ids = np.fromiter(seen, dtype=np.int64, count=len(seen))
            penalise_repetition(scores, seen_ids, self.params.repetition_penalty)
            if self.params.greedy:
                token = int(scores.argmax())
            else:
                ids, probabilities = candidates(scores, self.params)
                point = self._generators[row].random()
                # The last sum may fall short of 1 by rounding, so the index is clipped.
                place = min(int(np.searchsorted(np.cumsum(probabilities), point, side="right")), len(ids) - 1)
                token = int(ids[place])
            seen.add(token)
            chosen[row] = token
        return chosen
