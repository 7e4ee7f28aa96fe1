"""The training loss: the sum of token losses over a global batch, divided by the number of its trained tokens."""

from __future__ import annotations

import math

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_medqa.models.decoder import CausalLM


class TokenLoss(nn.Cell):
    """Cross entropy of the next token, summed over labelled positions and divided by a given count.

    Summing first and dividing by the count of the whole global batch makes the gradient independent of how that
    batch is cut into micro-batches and ranks: the parts simply add up.

    Only positions with a label meet the vocabulary matrix. Their number differs from batch to batch, so their list is
    filled up to a fixed length. The kernel that averages over all entries is 8 times faster on a CPU than the function
    that takes weights; so an entry that only fills gets a zero hidden state: its logits are all zero, its loss is
    exactly log(vocab), which is subtracted, and no gradient passes through it, neither to the hidden states nor to
    the vocabulary matrix.
    """

    def __init__(self, model: CausalLM) -> None:
        # Otherwise every parameter of the model would be renamed to `model.<its name>`.
        super().__init__(auto_prefix=False)
        self.model = model
        self.filler_loss = math.log(model.config.vocab_size)
        self.mean_loss = ops.SparseSoftmaxCrossEntropyWithLogits()

    def construct(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        segment_ids: Tensor,
        label_places: Tensor,
        labels: Tensor,
        label_count: Tensor,
    ) -> Tensor:
        """Loss of a micro-batch.

        Args:
            input_ids, position_ids, segment_ids: int32 (batch, L); segment 0 is padding.
            label_places: int32 (K,), positions in the flattened batch that have a label.
            labels: int32 (K,), the next token there, or -100 for an entry that only fills the list.
            label_count: float32 scalar to divide by.

        Returns:
            float32 scalar.
        """
        labelled = ops.cast(ops.greater_equal(labels, 0), ms.float32)
        hidden = self.model.hidden(input_ids, position_ids, segment_ids)
        hidden = ops.gather(hidden, label_places, 0)
        hidden = hidden * ops.cast(ops.reshape(labelled, (-1, 1)), hidden.dtype)
        logits = self.model.head(hidden)
        entries = labels.shape[0]
        total = self.mean_loss(logits, ops.maximum(labels, 0)) * entries
        total = total - (entries - labelled.sum()) * self.filler_loss
        return total / label_count
