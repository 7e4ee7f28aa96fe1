"""Learning rate over optimizer steps, computed inside the compiled step."""

from __future__ import annotations

import math
from typing import Literal

import mindspore as ms
from mindspore import Tensor, nn, ops

Decay = Literal["cosine", "linear", "constant"]


class Schedule(nn.Cell):
    """Linear rise, then a fall, or none.

    Step s (from 0) of the first `warmup` steps has rate peak * (s + 1) / warmup. After them, with p the share of the
    other steps that is done at the end of step s, so that the last step has p = 1:

    - `cosine`: minimum + (peak - minimum) * (1 + cos(pi * p)) / 2 (Loshchilov & Hutter 2017, eq. 5)
    - `linear`: minimum + (peak - minimum) * (1 - p)
    - `constant`: peak

    Args:
        decay: how it falls.
        peak: highest rate.
        minimum: rate of the last step of a fall.
        warmup: steps of the rise; 0 for none.
        total: steps of the run.
    """

    def __init__(self, decay: Decay, peak: float, minimum: float, warmup: int, total: int) -> None:
        super().__init__()
        self.decay = decay
        self.peak = peak
        self.minimum = min(minimum, peak)
        self.warmup = float(warmup)
        self.rise = float(max(warmup, 1))
        self.fall = float(max(total - warmup, 1))

    def construct(self, step: Tensor) -> Tensor:
        """int32 scalar -> float32 scalar."""
        done = ops.cast(step, ms.float32) + 1.0
        rising = self.peak * done / self.rise
        return ops.select(ops.less_equal(done, self.warmup), rising, self._after(done))

    def _after(self, done: Tensor) -> Tensor:
        progress = ops.clamp((done - self.warmup) / self.fall, 0.0, 1.0)
        if self.decay == "cosine":
            return self.minimum + (self.peak - self.minimum) * 0.5 * (1.0 + ops.cos(progress * math.pi))
        if self.decay == "linear":
            return self.minimum + (self.peak - self.minimum) * (1.0 - progress)
        return self.peak + 0.0 * progress
