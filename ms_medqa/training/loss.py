"""The training loss: the sum of token losses over a global batch, divided by the number of its trained tokens."""

from __future__ import annotations

import math

import mindspore as ms
from mindspore import Tensor, nn, ops

from ms_medqa.models.decoder import CausalLM

# Bytes of float32 logits that are there at a time, but at least so many rows: each block reads the vocabulary matrix
# anew, and fewer would wait for it.
_BLOCK_BYTES, _BLOCK_ROWS = 64 * 2**20, 128


def block_rows(vocabulary: int) -> int:
    """Rows of logits that are there at a time."""
    return max(_BLOCK_ROWS, _BLOCK_BYTES // (4 * vocabulary))


class VocabularyLoss(nn.Cell):
    """Summed cross entropy over a vocabulary matrix, and its gradient with it, one block of rows after the other.

    The gradient of a row's logits needs nothing but this row's logits, so it is taken at once: logits of a block are
    dropped before the next block's are made, and nothing of the size rows x vocabulary waits for the backward pass.

    Args:
        trained: whether the matrix needs a gradient, too.
    """

    def __init__(self, trained: bool) -> None:
        super().__init__()
        self.trained = trained
        self.to_vocabulary = ops.MatMul(transpose_b=True)
        self.to_hidden = ops.MatMul()
        self.to_weight = ops.MatMul(transpose_a=True)
        self.softmax = ops.Softmax()
        self.times_log = ops.Xlogy()
        self.pick, self.rows, self.less = ops.GatherD(), ops.Gather(), ops.TensorScatterSub()

    def construct(
        self, hidden: Tensor, weight: Tensor, labels: Tensor, factor: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Loss and gradients.

        Args:
            hidden: (K, H).
            weight: (vocab, H).
            labels: int32 (K,), none below 0.
            factor: float32 scalar, multiplies the sum.

        Returns:
            float32 scalar; its gradients to `hidden`, and to `weight` where that is trained.
        """
        entries, vocabulary = hidden.shape[0], weight.shape[0]
        size = block_rows(vocabulary)
        total, to_hidden, to_weight = ops.zeros((), ms.float32), (), hidden
        for number in range(-(-entries // size)):
            start = number * size
            rows = hidden[start : start + size]
            if number > 0:
                # Otherwise the blocks would be computed side by side.
                rows = ops.depend(rows, to_hidden[number - 1])
            known = ops.reshape(labels[start : start + size], (-1, 1))
            shares = self.softmax(ops.cast(self.to_vocabulary(rows, weight), ms.float32))
            # Infinite where the label's share is below 1e-38, as MindSpore's own loss is. Not `ops.log`: its last bit
            # depends on how threads happen to share the numbers out.
            share = self.pick(shares, 1, known)
            total = total - self.times_log(ops.ones_like(share), share).sum()
            if hidden.dtype == ms.float32 and not self.trained:
                # shares - 1 at the label, times the matrix, without a copy of the shares.
                own = self.rows(weight, ops.reshape(known, (-1,)), 0)
                to_hidden = (*to_hidden, (self.to_hidden(shares, weight) - own) * factor)
                continue
            places = ops.concat((ops.reshape(ops.arange(rows.shape[0]), (-1, 1)), known), 1)
            gradient = self.less(shares, places, ops.ones((rows.shape[0],), ms.float32))
            # Before the cast: what is left out of float16 without the loss scale would be lost.
            gradient = ops.cast(gradient * factor, hidden.dtype)
            to_hidden = (*to_hidden, self.to_hidden(gradient, weight))
            if self.trained:
                part = self.to_weight(gradient, rows)
                to_weight = part if number == 0 else to_weight + part
        return total * factor, to_hidden[0] if len(to_hidden) == 1 else ops.concat(to_hidden, 0), to_weight

    def bprop(
        self,
        hidden: Tensor,
        weight: Tensor,
        labels: Tensor,
        factor: Tensor,
        out: tuple[Tensor, Tensor, Tensor],
        dout: tuple[Tensor, Tensor, Tensor],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Both gradients times what comes from above."""
        above = dout[0]
        to_hidden = ops.cast(out[1] * above, out[1].dtype)
        to_weight = ops.cast(out[2] * above, out[2].dtype) if self.trained else ops.zeros_like(weight)
        return to_hidden, to_weight, ops.zeros_like(labels), ops.zeros_like(factor)


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
        # A smoothed target, or an adapter on the head, is left to automatic differentiation.
        head = model.head_parameter
        self.by_blocks = smoothing == 0 and head is not None
        self.vocabulary_loss = VocabularyLoss(head is not None and head.requires_grad)

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
        hidden = self.model.hidden(input_ids, position_ids, segment_ids)
        return self.of_hidden(hidden, label_places, labels, label_count)

    def of_hidden(self, hidden: Tensor, label_places: Tensor, labels: Tensor, label_count: Tensor) -> Tensor:
        """The same from the last hidden states (batch * L, H)."""
        hidden, labelled = self.labelled_hidden(hidden, label_places, labels)
        if not self.by_blocks:
            return self.total(self.model.head(hidden), labels, labelled) / label_count
        factor = ops.reciprocal(label_count)
        matrix = self.model.head_matrix(hidden.dtype)
        total = self.vocabulary_loss(hidden, matrix, ops.maximum(labels, 0), factor)[0]
        return total - self.of_filler(labelled) * factor

    def labelled_hidden(self, hidden: Tensor, label_places: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(K, H) hidden states, all zero for an entry that only fills, and float32 (K,), 1 where it does not."""
        labelled = ops.cast(ops.greater_equal(labels, 0), ms.float32)
        hidden = ops.gather(hidden, label_places, 0)
        return hidden * ops.cast(ops.reshape(labelled, (-1, 1)), hidden.dtype), labelled

    def of_filler(self, labelled: Tensor) -> Tensor:
        """float32 scalar: what the entries that only fill have added to a sum of losses."""
        return (labelled.shape[0] - labelled.sum()) * self.filler_loss

    def total(self, logits: Tensor, labels: Tensor, labelled: Tensor) -> Tensor:
        """float32 scalar: the sum of the token losses."""
        known = ops.maximum(labels, 0)
        total = self.mean_loss(logits, known) * labels.shape[0] - self.of_filler(labelled)
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
        hidden = self.model.hidden(input_ids, position_ids, segment_ids)
        hidden, labelled = self.labelled_hidden(hidden, label_places, labels)
        entries, size = hidden.shape[0], block_rows(self.model.config.vocab_size)
        total, right = ops.zeros((), ms.float32), ops.zeros((), ms.float32)
        for number in range(-(-entries // size)):
            block = slice(number * size, min((number + 1) * size, entries))
            # Otherwise the blocks would be computed side by side.
            logits = self.model.head(ops.depend(hidden[block], total))
            known = labels[block]
            total = total + self.total(logits, known, labelled[block])
            right = right + ops.cast(ops.equal(ops.cast(ops.argmax(logits, 1), ms.int32), known), ms.float32).sum()
        return total, right
