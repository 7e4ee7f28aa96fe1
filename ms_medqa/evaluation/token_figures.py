"""Figures over the tokens of texts that are known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ms_medqa.evaluation.figures import Figure, ratio_figure
from ms_medqa.evaluation.trees import Score

# The end of float64; such a model is broken, but its report should still be valid JSON.
_LARGEST = 700.0


def token_figures(scores: Sequence[Score]) -> list[Figure]:
    """`perplexity`, exp of the mean loss of a token, and `token_accuracy`, the share of tokens that were likeliest."""
    tokens = [float(score.tokens) for score in scores]
    losses = [score.loss for score in scores]
    return [
        ratio_figure("perplexity", losses, tokens, lambda mean: np.exp(np.minimum(mean, _LARGEST))),
        ratio_figure("token_accuracy", [float(score.correct) for score in scores], tokens),
    ]


def bits_per_byte(losses: Sequence[float], sizes: Sequence[int]) -> Figure:
    """Loss in bits over the bytes (UTF-8) of the texts: comparable between tokenizers, unlike perplexity."""
    return ratio_figure("bits_per_byte", [loss / math.log(2) for loss in losses], [float(size) for size in sizes])
