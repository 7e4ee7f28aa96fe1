"""One training step as one compiled graph.

The order, the only one in this framework: accumulate -> reduce once -> unscale in float32 -> overflow on the reduced
gradients -> clip by global norm -> update. An overflow in any micro-batch on any rank makes the reduced gradients
non-finite everywhere, so every rank discards the same window.
"""

from __future__ import annotations

import mindspore as ms
from mindspore import Parameter, Tensor, nn, ops

from ms_medqa.backend.ops import on_ascend, square_sum_cell
from ms_medqa.training.loss import TokenLoss
from ms_medqa.training.optimizer import AdamW
from ms_medqa.training.recompute import RecomputedGradients


class TrainStep(nn.TrainOneStepWithLossScaleCell):
    """Forward, backward and, on a window's last micro-batch, the update.

    Must be built after the parallel context is set (`backend.distributed.start`): only then does the parent know of the
    other ranks. Gradients are summed over them, in the optimizer's buckets: the loss is already divided by the global
    count.

    Args:
        loss: the network; its last input is the global batch's label count.
        optimizer: holds the trained parameters.
        schedule: Cell from optimizer step to learning rate.
        accumulation: micro-batches in a window.
        max_grad_norm: gradients are scaled down to this global norm.
        scale_sense: `nn.DynamicLossScaleUpdateCell`, or a float32 scalar Tensor for a fixed scale.
        recomputed: so many of the first layers are computed anew for the backward pass.
    """

    def __init__(
        self,
        loss: TokenLoss,
        optimizer: AdamW,
        schedule: nn.Cell,
        accumulation: int = 1,
        max_grad_norm: float = 1.0,
        scale_sense: nn.Cell | Tensor | None = None,
        recomputed: int = 0,
    ) -> None:
        super().__init__(loss, optimizer, Tensor(1.0, ms.float32) if scale_sense is None else scale_sense)
        self.schedule = schedule
        self.accumulation = accumulation
        self.max_grad_norm = max_grad_norm
        # The parent's check asks for the NPU's status registers on everything that is no GPU.
        self.ascend = on_ascend()
        self.square_sum = square_sum_cell()
        if recomputed:
            self.loss_and_gradients = RecomputedGradients(loss, self.weights, recomputed)
        else:
            self.loss_and_gradients = ms.value_and_grad(loss, None, self.weights)
        self.buckets = optimizer.buckets
        if accumulation > 1:
            self.totals = self.buckets.zeros("accumulated")
        self.zero = Parameter(Tensor(0.0, ms.float32), name="zero", requires_grad=False)
        self.loss_total = Parameter(Tensor(0.0, ms.float32), name="loss_total", requires_grad=False)
        if self.is_distributed:
            self.sum_over_ranks = ops.AllReduce()

    def start_overflow_check(self, pre_cond, compute_input):  # type: ignore[no-untyped-def]
        """Clear the NPU's status registers; other devices have none."""
        if self.ascend:
            return super().start_overflow_check(pre_cond, compute_input)
        return True, compute_input

    def get_overflow_status(self, status, compute_output):  # type: ignore[no-untyped-def]
        """Whether a gradient is not finite; the NPU's own check on an Ascend (a 910A saturates instead)."""
        if self.ascend:
            return super().get_overflow_status(status, compute_output)
        return ops.logical_not(ops.isfinite(self._square_norm(compute_output)))

    def _square_norm(self, gradients):  # type: ignore[no-untyped-def]
        total = 0.0
        for gradient in gradients:
            total = total + self.square_sum(gradient)
        return total

    def construct(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        segment_ids: Tensor,
        label_places: Tensor,
        labels: Tensor,
        label_count: Tensor,
        last: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Take one micro-batch.

        Args:
            input_ids, position_ids, segment_ids: int32 (batch, L).
            label_places, labels: int32 (K,), see `TokenLoss`.
            label_count: float32 scalar, labels in the whole global batch (all micro-batches, all ranks).
            last: bool scalar, whether the window ends here.

        Returns:
            Scalars (loss of the global batch, overflow, loss scale, learning rate, gradient norm before clipping);
            they mean something only where `last` is true.
        """
        scale = ops.depend(self.scale_sense, input_ids)
        status = True
        if self.accumulation == 1:
            # In a longer window the registers must keep what an earlier micro-batch left; reading clears them.
            status, scale = self.start_overflow_check(input_ids, scale)
        # Not `loss * scale`: inside the loss, gradients of float16 are scaled before they are rounded.
        loss, gradients = self.loss_and_gradients(
            input_ids, position_ids, segment_ids, label_places, labels, label_count / scale
        )
        loss = loss / scale
        gradients = self.buckets.join(gradients)
        if self.accumulation == 1:
            return self._finish(status, loss, gradients, scale)
        # The sums are used as they come back: a parameter read again after its write may be seen as it was before.
        totals = ()
        for number, total in enumerate(self.totals):
            totals = (*totals, ops.assign_add(total, gradients[number]))
        loss = self.loss_total + loss
        ops.assign(self.loss_total, loss)
        overflow, lr, norm = Tensor(False), Tensor(0.0, ms.float32), Tensor(0.0, ms.float32)
        if last:
            loss, overflow, scale, lr, norm = self._finish(status, loss, totals, scale)
            for total in self.totals:
                # Not `zeros_like`: the compiler would make a constant of it, as large as the parameter.
                ops.assign(total, ops.depend(ops.broadcast_to(self.zero, total.shape), loss))
            ops.assign(self.loss_total, Tensor(0.0, ms.float32))
        return loss, overflow, scale, lr, norm

    def _finish(self, status, loss, gradients, scale):  # type: ignore[no-untyped-def]
        if self.is_distributed:
            loss = self.sum_over_ranks(loss)
            gradients = self._summed(gradients)
        gradients = self._times(gradients, ops.reciprocal(scale))
        overflow = self.get_overflow_status(status, gradients)
        overflow = self.process_loss_scale(overflow)
        norm = ops.sqrt(self._square_norm(gradients))
        clip = ops.minimum(self.max_grad_norm / (norm + 1e-6), Tensor(1.0, ms.float32))
        gradients = self._times(gradients, clip)
        lr = self.schedule(self.optimizer.global_step)
        if not overflow:
            loss = ops.depend(loss, self.optimizer(gradients, lr))
        return loss, overflow, scale, lr, norm

    def _summed(self, tensors):  # type: ignore[no-untyped-def]
        results = ()
        for tensor in tensors:
            results = (*results, self.sum_over_ranks(tensor))
        return results

    def _times(self, tensors, factor):  # type: ignore[no-untyped-def]
        results = ()
        for tensor in tensors:
            results = (*results, tensor * factor)
        return results
