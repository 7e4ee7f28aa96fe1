"""How many rows one forward pass may take."""

from __future__ import annotations

from ms_medqa.models.config import ModelConfig

# Attention scores of all layers in one pass. On a CPU, MindSpore keeps the results of every operator of a graph until
# the graph goes, about 28 bytes for each score of each layer: this many come to 1.8 GB for each compiled shape.
MAX_PASS_SCORES = 2**26


def rows_that_fit(config: ModelConfig, width: int, wish: int) -> int:
    """Rows of `width` tokens that go through the model at once: `wish`, or as many as memory allows, at least 1."""
    scores = config.num_hidden_layers * config.num_attention_heads * width * width
    return max(1, min(wish, MAX_PASS_SCORES // scores))
