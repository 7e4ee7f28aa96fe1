"""AdamW with bias correction (Loshchilov & Hutter 2019, algorithm 2), as a Cell inside the compiled step.

MindSpore's `nn.AdamWeightDecay` has no bias correction and `mint.optim.AdamW` no CPU kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

_update = ops.MultitypeFuncGraph("adamw_update")


@_update.register(
    *("Tensor", "Tensor", "Tensor", "Tensor", "Tensor", "Tensor"),
    *("Number", "Number", "Tensor", "Tensor", "Tensor", "Tensor"),
)
def _update_one(beta1, beta2, epsilon, lr, correction1, correction2, ratio, decay, parameter, m, v, gradient):  # type: ignore[no-untyped-def]
    m_next = beta1 * m + (1.0 - beta1) * gradient
    v_next = beta2 * v + (1.0 - beta2) * ops.square(gradient)
    # No division: for each, MindSpore's CPU kernel keeps a table of 16 bytes a number as long as the graph.
    direction = m_next * correction1 * ops.reciprocal(ops.sqrt(v_next * correction2) + epsilon)
    value = ops.cast(parameter, ms.float32)
    value = value - lr * ratio * (direction + decay * value)
    ops.assign(m, m_next)
    ops.assign(v, v_next)
    ops.assign(parameter, ops.cast(value, parameter.dtype))
    return True


class AdamW(nn.Cell):
    """Decoupled weight decay on matrices; norms and biases (1-D parameters) are not decayed.

    Args:
        parameters: what is trained.
        beta1, beta2, epsilon: as in the paper.
        weight_decay: decay, multiplied by the learning rate.
        no_decay: parameters with one of these texts in their names are not decayed either.
        lora_plus_ratio: the rate of each adapter's second matrix (`lora_b`), in that of all others: LoRA+ (Hayou, Ghosh
            and Yu 2024), which recommends about 16.

    Attributes:
        global_step: int32, optimizer steps done; a skipped step does not count.
    """

    def __init__(
        self,
        parameters: Sequence[Parameter],
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        weight_decay: float = 0.01,
        no_decay: Sequence[str] = (),
        lora_plus_ratio: float = 1.0,
    ) -> None:
        super().__init__(auto_prefix=False)
        self.parameters = ParameterTuple(parameters)
        self.m = self._zeros("adam_m")
        self.v = self._zeros("adam_v")
        self.global_step = Parameter(Tensor(0, ms.int32), name="global_step", requires_grad=False)
        self.beta1 = Tensor(beta1, ms.float32)
        self.beta2 = Tensor(beta2, ms.float32)
        self.epsilon = Tensor(epsilon, ms.float32)
        self.decay = tuple(
            0.0 if parameter.ndim == 1 or any(text in parameter.name for text in no_decay) else weight_decay
            for parameter in parameters
        )
        self.ratio = tuple(lora_plus_ratio if _is_second(parameter.name) else 1.0 for parameter in parameters)
        self.map = ops.HyperMap()

    def _zeros(self, prefix: str) -> ParameterTuple:
        states = [
            Parameter(ops.zeros(parameter.shape, ms.float32), name=f"{prefix}.{parameter.name}", requires_grad=False)
            for parameter in self.parameters
        ]
        return ParameterTuple(states)

    def construct(self, gradients: tuple[Tensor, ...], lr: Tensor) -> bool:
        """One update with float32 gradients."""
        ops.assign_add(self.global_step, Tensor(1, ms.int32))
        step = ops.cast(self.global_step, ms.float32)
        correction1 = 1.0 / (1.0 - ops.pow(self.beta1, step))
        correction2 = 1.0 / (1.0 - ops.pow(self.beta2, step))
        update = ops.partial(_update, self.beta1, self.beta2, self.epsilon, lr, correction1, correction2)
        return self.map(update, self.ratio, self.decay, self.parameters, self.m, self.v, gradients)


def _is_second(name: str) -> bool:
    return name.rsplit(".", 1)[-1] == "lora_b"
