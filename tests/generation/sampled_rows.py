"""Several answers drawn step by step, for tests of what one row does to another: nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ms_medqa.generation.sampling import SamplingParams, TokenSampler, draw_seed


class SampledRows:
    """One sampler a row; row i draws from stream `streams[i]`, by default i."""

    def __init__(
        self,
        params: SamplingParams,
        prompts: Sequence[Sequence[int]],
        seed: int | None = None,
        streams: Sequence[int] | None = None,
    ) -> None:
        seed = draw_seed() if seed is None else seed
        pairs = zip(prompts, streams or range(len(prompts)), strict=True)
        self._rows = [TokenSampler(params, prompt, seed, stream) for prompt, stream in pairs]

    def __call__(self, logits: np.ndarray, active: Sequence[bool]) -> np.ndarray:
        """float32 (rows, V), bool (rows,) -> the token of each active row, -1 for the others."""
        chosen = np.full(len(self._rows), -1, dtype=np.int64)
        for row in np.flatnonzero(active):
            chosen[row] = self._rows[row].choose(logits[row]).token
        return chosen
