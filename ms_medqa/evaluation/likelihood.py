"""How likely a model finds known answers: teacher forcing over the label mask of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from ms_medqa.data.dataset import IGNORE_INDEX, Rows, build_rows
from ms_medqa.data.records import TokenRecords
from ms_medqa.evaluation.limits import rows_that_fit
from ms_medqa.generation.reading import bucket
from ms_medqa.generation.weights import snapshot, unchanged
from ms_medqa.models.decoder import CausalLM

# Rows up to this length share one shape; longer ones get the next power of two each.
COMMON_LENGTH = 512
SMALLEST_LENGTH = 64
# Logits are the largest tensor of an evaluation: this many numbers at once (128 MB in float32).
MAX_LOGITS = 2**25


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Sums over target tokens, each a float or an int.

    Attributes:
        loss_sum: negative log-likelihood in nats.
        correct: targets that were the model's likeliest token.
        tokens: number of targets.
    """

    loss_sum: float = 0.0
    correct: int = 0
    tokens: int = 0


class _Hidden(nn.Cell):
    def __init__(self, model: CausalLM) -> None:
        super().__init__(auto_prefix=False)
        self.lm = model

    @ms.jit
    def run(self, input_ids: Tensor, position_ids: Tensor, segment_ids: Tensor) -> Tensor:
        """int32 (B, L) each -> hidden states (B * L, H)."""
        return self.lm.hidden(input_ids, position_ids, segment_ids)


class _Score(nn.Cell):
    def __init__(self, model: CausalLM) -> None:
        super().__init__(auto_prefix=False)
        self.lm = model
        self.best = ops.ArgMaxWithValue(axis=1)

    @ms.jit
    def run(self, hidden: Tensor, places: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of each label and the likeliest token there.

        Args:
            hidden: (B * L, H).
            places: int32 (K,), rows of `hidden` that have a label.
            labels: int32 (K,).

        Returns:
            float32 (K,) and int32 (K,).
        """
        log_probabilities = ops.log_softmax(self.lm.head(ops.gather(hidden, places, 0)), -1)
        likeliest, _ = self.best(log_probabilities)
        chosen = ops.gather_d(log_probabilities, 1, ops.expand_dims(labels, 1))
        return ops.reshape(chosen, (-1,)), ops.cast(likeliest, ms.int32)


class Scorer:
    """Measures one model on tokenised records; what it has compiled serves again where it can."""

    def __init__(self, model: CausalLM) -> None:
        self._model = model
        self._hidden = _Hidden(model)
        self._score = _Score(model)
        self._weights = snapshot(model)
        most = max(32, MAX_LOGITS // model.config.vocab_size)
        # A power of two, at most one common row's worth of tokens.
        self._chunk = min(COMMON_LENGTH, 1 << (most.bit_length() - 1))

    def __call__(
        self, records: TokenRecords, batch_size: int, on_tokens: Callable[[int], object] = lambda count: None
    ) -> Likelihood:
        """Sum loss and hits over all targets of `records`.

        Args:
            records: with the label mask of training.
            batch_size: rows in one batch; the last batch is filled with empty rows.
            on_tokens: told the number of tokens done, for a progress bar.
        """
        if not unchanged(self._model, self._weights):
            self._hidden, self._score = _Hidden(self._model), _Score(self._model)
        lengths = records.lengths
        sizes = np.array([bucket(int(length), SMALLEST_LENGTH) for length in lengths])
        sizes[sizes <= COMMON_LENGTH] = sizes[sizes <= COMMON_LENGTH].max(initial=SMALLEST_LENGTH)
        total = Likelihood()
        for size in np.unique(sizes):
            rows = build_rows(records.select(np.flatnonzero(sizes == size)), int(size), packing=True)
            width = rows_that_fit(self._model.config, int(size), min(batch_size, len(rows)))
            for start in range(0, len(rows), width):
                indices = np.full(width, -1, dtype=np.int64)
                taken = np.arange(start, min(start + width, len(rows)))
                indices[: len(taken)] = taken
                total = _add(total, self._batch(rows, indices))
                on_tokens(int(rows.token_counts[taken].sum()))
        self._weights = snapshot(self._model)
        return total

    def _batch(self, rows: Rows, indices: np.ndarray) -> Likelihood:
        batch = rows.batch(indices)
        hidden = self._hidden.run(*(Tensor(batch[name]) for name in ("input_ids", "position_ids", "segment_ids")))
        labels = batch["labels"].reshape(-1)
        places = np.flatnonzero(labels != IGNORE_INDEX).astype(np.int32)
        total = Likelihood()
        for start in range(0, len(places), self._chunk):
            there = places[start : start + self._chunk]
            here, wanted = np.zeros(self._chunk, dtype=np.int32), np.zeros(self._chunk, dtype=np.int32)
            here[: len(there)], wanted[: len(there)] = there, labels[there]
            scores, likeliest = self._score.run(hidden, Tensor(here), Tensor(wanted))
            # The sum is taken in float64: a float32 sum of a large set loses its last digits.
            loss = -float(scores.asnumpy()[: len(there)].sum(dtype=np.float64))
            hits = int((likeliest.asnumpy()[: len(there)] == wanted[: len(there)]).sum())
            total = _add(total, Likelihood(loss, hits, len(there)))
        return total


def _add(first: Likelihood, second: Likelihood) -> Likelihood:
    return Likelihood(first.loss_sum + second.loss_sum, first.correct + second.correct, first.tokens + second.tokens)
