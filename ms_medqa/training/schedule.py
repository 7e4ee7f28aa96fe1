"""Learning rate over optimizer steps, computed inside the compiled step."""

from __future__ import annotations

import math

import mindspore as ms
from mindspore import Tensor, nn, ops


class WarmupCosine(nn.Cell):
    """Linear rise, then half a cosine (Loshchilov & Hutter 2017, eq. 5).

    Step s (from 0) of the first `warmup` steps has rate peak * (s + 1) / warmup; the last step has `minimum`.

    Args:
        peak: highest rate.
        minimum: rate of the last step.
        warmup: steps of the rise; 0 for none.
        total: steps of the run.
    """

    def __init__(self, peak: float, minimum: float, warmup: int, total: int) -> None:
        super().__init__()
        self.peak = peak
        self.minimum = min(minimum, peak)
        self.warmup = float(warmup)
        self.rise = float(max(warmup, 1))
        self.fall = float(max(total - warmup, 1))

    def construct(self, step: Tensor) -> Tensor:
        """int32 scalar -> float32 scalar."""
        done = ops.cast(step, ms.float32) + 1.0
        rising = self.peak * done / self.rise
        progress = ops.clamp((done - self.warmup) / self.fall, 0.0, 1.0)
        falling = self.minimum + (self.peak - self.minimum) * 0.5 * (1.0 + ops.cos(progress * math.pi))
        return ops.select(ops.less_equal(done, self.warmup), rising, falling)
