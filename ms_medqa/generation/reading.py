"""Prompts are read in pieces of few widths, so that few graphs are compiled and memory stays bounded."""

from __future__ import annotations

from ms_medqa.models.decoder import CausalLM

SMALLEST_PIECE = 32
# Tokens of prompts that are read between two steps: the answers that run wait no longer than this takes.
LARGEST_PIECE = 512
# Attention scores of a piece in one layer: 128 MiB of float32, of which a layer makes four or five.
MAX_SCORES = 2**25


def bucket(size: int, smallest: int = 1) -> int:
    """The next power of two from `smallest` up."""
    assert size > 0, size
    width = smallest
    while width < size:
        width *= 2
    return width


def piece_width(model: CausalLM, left: int, start: int, length: int) -> int:
    """Tokens that the graph for a prompt's next piece takes.

    Args:
        model: reads.
        left: tokens of the prompt that are still to be read.
        start: tokens that have been read.
        length: positions of the cache.
    """
    width = bucket(min(left, LARGEST_PIECE), SMALLEST_PIECE)
    heads = model.config.num_attention_heads
    while start + width > length or (
        width > SMALLEST_PIECE and heads * width * (width + length * (start > 0)) > MAX_SCORES
    ):
        width //= 2
    return width


def widths(model: CausalLM, later: bool, length: int, used: int) -> list[int]:
    """All that `piece_width` can be.

    Args:
        model: reads.
        later: for pieces that follow others, not for the first ones.
        length: positions of the cache.
        used: how many of them a prompt and its answer may take.
    """
    width = piece_width(model, LARGEST_PIECE, int(later), length)
    # Close to the cache's end, there is no room for the smallest.
    smallest = 1 if later and used > length - SMALLEST_PIECE else min(SMALLEST_PIECE, width)
    found = []
    while width >= smallest:
        found.append(width)
        width //= 2
    return found
