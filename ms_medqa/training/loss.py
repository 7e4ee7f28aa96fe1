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

    Args:
        model: gives the logits.
        smoothing: label smoothing e (Szegedy et al. 2016, section 7): the target gives 1 - e to the label, and e to all
            tokens evenly. As transformers counts it, the loss is then (1 - e) * nll + e * mean over the vocabulary.
    """

    def __init__(self, model: CausalLM, smoothing: float = 0.0) -> None:
        # Otherwise every parameter of the model would be renamed to `model.<its name>`.
        super().__init__(auto_prefix=False)
        self.model = model
        self.smoothing = smoothing
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
        logits, labelled = self.labelled_logits(input_ids, position_ids, segment_ids, label_places, labels)
        return self.total(logits, labels, labelled) / label_count

    def labelled_logits(
        self, input_ids: Tensor, position_ids: Tensor, segment_ids: Tensor, label_places: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """float32 (K, vocab) logits, all zero for an entry that only fills, and float32 (K,), 1 where it does not."""
        labelled = ops.cast(ops.greater_equal(labels, 0), ms.float32)
        hidden = self.model.hidden(input_ids, position_ids, segment_ids)
        hidden = ops.gather(hidden, label_places, 0)
        hidden = hidden * ops.cast(ops.reshape(labelled, (-1, 1)), hidden.dtype)
        return self.model.head(hidden), labelled

    def total(self, logits: Tensor, labels: Tensor, labelled: Tensor) -> Tensor:
        """float32 scalar: the sum of the token losses."""
        entries = labels.shape[0]
        known = ops.maximum(labels, 0)
        total = self.mean_loss(logits, known) * entries
        total = total - (entries - labelled.sum()) * self.filler_loss
        if self.smoothing > 0:
            # The mean loss over the vocabulary less the label's: log-sum-exp drops out, and zero logits add nothing.
            own = ops.gather_d(logits, 1, ops.reshape(known, (-1, 1)))
            total = total + self.smoothing * (own.sum() - ops.mean(logits, 1).sum())
        return total


class TokenScores(TokenLoss):
    """For validation, over a batch's labels: the sum of their losses, and how many the model takes for likeliest."""

    def construct(
        self, input_ids: Tensor, position_ids: Tensor, segment_ids: Tensor, label_places: Tensor, labels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Two float32 scalars; arguments as of `TokenLoss`."""
        logits, labelled = self.labelled_logits(input_ids, position_ids, segment_ids, label_places, labels)
        right = ops.cast(ops.equal(ops.cast(ops.argmax(logits, 1), ms.int32), labels), ms.float32)
        return self.total(logits, labels, labelled), right.sum()
