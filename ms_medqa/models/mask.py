"""What is added to attention scores: which token sees which, and how distance counts."""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ms_medqa.backend import ops as backend_ops
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.positions import alibi_slopes

# Added to float32 scores alone. Far below any score, also those in the tens of thousands that large key biases make, so
# that none of it is left; yet finite, because masks are made by multiplying it with 0 and 1.
MASKED = -1e30


class AttentionMask(nn.Cell):
    """Masks of a decoder, one for each size of window that its layers have.

    Attributes:
        of_layer: for each layer, the number of its mask.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        windows = [config.window(layer) for layer in range(config.num_hidden_layers)]
        self.windows = tuple(sorted(set(windows)))
        self.of_layer = tuple(self.windows.index(window) for window in windows)
        self.kv_heads = config.num_key_value_heads
        self.group = config.num_attention_heads // config.num_key_value_heads
        # One mask serves all heads, unless each addition would cost more than the copies.
        self.copies = config.num_attention_heads if backend_ops.costly_broadcast() else 1
        self.alibi = config.positions == "alibi"
        slopes = alibi_slopes(config.num_attention_heads).reshape(1, self.kv_heads, self.group, 1)
        self.slopes = Tensor(slopes)

    def of_sequences(self, segment_ids: Tensor) -> tuple[Tensor, ...]:
        """Causal within a segment: a token sees earlier tokens of its own number.

        Args:
            segment_ids: int32 (batch, L).

        Returns:
            A mask for each window, float32, broadcastable to (heads, batch, L, L).
        """
        length = segment_ids.shape[1]
        # Inside a segment, tokens lie as far apart as their positions.
        behind = np.arange(length, dtype=np.float32)[:, None] - np.arange(length, dtype=np.float32)[None]
        same = ops.equal(ops.expand_dims(segment_ids, 2), ops.expand_dims(segment_ids, 1))
        same = ops.cast(same, ms.float32)
        masks = ()
        for window in self.windows:
            reach = window if window > 0 else length
            seen = Tensor(((behind >= 0) * (behind < reach)).astype(np.float32))
            mask = ops.tile(ops.expand_dims((1.0 - same * seen) * MASKED, 0), (self.copies, 1, 1, 1))
            if self.alibi:
                mask = mask - ops.reshape(self.slopes, (-1, 1, 1, 1)) * Tensor(behind[None, None])
            masks = (*masks, mask)
        return masks

    def of_trees(self, trees: Tensor, branches: Tensor, positions: Tensor) -> tuple[Tensor, ...]:
        """Causal within a trunk and each of the branches that follow it: a branch sees nothing of the others.

        Args:
            trees: int32 (L,), a number for each tree.
            branches: int32 (L,), 0 in the trunk, a number above for each branch.
            positions: int32 (L,); those of each branch go on from its trunk's.

        Returns:
            A mask for each window, float32, broadcastable to (heads, 1, L, L).
        """

        def pairs(numbers: Tensor) -> tuple[Tensor, Tensor]:
            return ops.expand_dims(numbers, 1), ops.expand_dims(numbers, 0)

        branch, other = pairs(branches)
        own = ops.logical_and(ops.equal(*pairs(trees)), ops.logical_or(ops.equal(branch, other), ops.equal(other, 0)))
        behind = ops.cast(ops.sub(*pairs(positions)), ms.float32)
        own = ops.cast(own, ms.float32) * ops.cast(ops.greater_equal(behind, 0.0), ms.float32)
        masks = ()
        for window in self.windows:
            seen = own * ops.cast(ops.less(behind, float(window)), ms.float32) if window > 0 else own
            mask = ops.tile(ops.reshape((1.0 - seen) * MASKED, (1, 1, *behind.shape)), (self.copies, 1, 1, 1))
            if self.alibi:
                mask = mask - ops.reshape(self.slopes, (-1, 1, 1, 1)) * behind
            masks = (*masks, mask)
        return masks

    def of_step(self, positions: Tensor, slots: Tensor) -> tuple[Tensor, ...]:
        """One query a sequence over a cache whose slots are positions.

        Args:
            positions: int32 (batch,), where the query stands.
            slots: int32 (1, T), 0 to T - 1.

        Returns:
            A mask for each window, float32, broadcastable to (batch, kv_heads, group, T).
        """
        behind = ops.cast(ops.expand_dims(positions, 1) - slots, ms.float32)
        masks = ()
        for window in self.windows:
            seen = ops.cast(ops.greater_equal(behind, 0.0), ms.float32)
            if window > 0:
                seen = seen * ops.cast(ops.less(behind, float(window)), ms.float32)
            mask = ops.reshape((1.0 - seen) * MASKED, (behind.shape[0], 1, 1, behind.shape[1]))
            if self.alibi:
                mask = mask - self.slopes * ops.reshape(behind, (behind.shape[0], 1, 1, behind.shape[1]))
            masks = (*masks, mask)
        return masks
