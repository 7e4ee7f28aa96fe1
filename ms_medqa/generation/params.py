"""How the next token is chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ms_medqa.config.errors import UserError


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen; the defaults are those of the `generate` section of the config.

    Attributes:
        temperature: logits are divided by it; 0 takes the likeliest token (after penalty and n-gram ban).
        top_p: keep the smallest set of likeliest tokens whose probability reaches this (Holtzman et al. 2020, "The
            Curious Case of Neural Text Degeneration", section 3.1); 1 keeps all.
        top_k: keep the K likeliest tokens (and those equal to the K-th); 0 keeps all.
        repetition_penalty: a logit of a token seen in prompt or answer is divided by this when positive, multiplied
            when negative (Keskar et al. 2019, "CTRL", section 4.1).
        min_p: keep the tokens at least this many times as likely as the likeliest (Nguyen et al. 2024, "Turning Up the
            Heat: Min-p Sampling", section 3); 0 keeps all.
        no_repeat_ngram_size: no sequence of so many tokens comes twice in prompt and answer; 0 forbids none.

    Raises:
        UserError: a value out of range.
    """

    temperature: float = 0.2
    top_p: float = 0.9
    top_k: int = 50
    repetition_penalty: float = 1.1
    min_p: float = 0.0
    no_repeat_ngram_size: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < math.inf:
            raise UserError(
                f"temperature = {self.temperature}: must be a number of at least 0", "0 takes the likeliest token"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p = {self.top_p}: must be above 0 and at most 1", "1 keeps all tokens")
        if self.top_k < 0:
            raise UserError(f"top_k = {self.top_k}: must be at least 0", "0 keeps all tokens")
        if not 0 < self.repetition_penalty < math.inf:
            raise UserError(
                f"repetition_penalty = {self.repetition_penalty}: must be a number above 0", "1 penalises nothing"
            )
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min_p = {self.min_p}: must be from 0 to 1", "0 keeps all tokens")
        if self.no_repeat_ngram_size < 0:
            raise UserError(
                f"no_repeat_ngram_size = {self.no_repeat_ngram_size}: must be at least 0", "0 forbids no repetition"
            )

    @property
    def greedy(self) -> bool:
        """True where no draw is made."""
        return self.temperature == 0
