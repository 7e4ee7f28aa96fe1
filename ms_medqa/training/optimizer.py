"""AdamW with bias correction (Loshchilov & Hutter 2019, algorithm 2), as a Cell inside the compiled step.

MindSpore's `nn.AdamWeightDecay` has no bias correction and `mint.optim.AdamW` no CPU kernel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from ms_medqa.backend.distributed import World
from ms_medqa.models.loading import assign
from ms_medqa.training.buckets import Buckets
from ms_medqa.training.shards import Shards


class AdamW(nn.Cell):
    """Decoupled weight decay on matrices; norms and biases (1-D parameters) are not decayed.

    Args:
        parameters: what is trained.
        beta1, beta2, epsilon: as in the paper.
        weight_decay: decay, multiplied by the learning rate.
        no_decay: parameters with one of these texts in their names are not decayed either.
        lora_plus_ratio: the rate of each adapter's second matrix (`lora_b`), in that of all others: LoRA+ (Hayou, Ghosh
            and Yu 2024), which recommends about 16.
        world: the ranks among which the moments are shared out; by default each keeps all of them.

    Attributes:
        buckets: how gradients and moments lie: parameters of one decay and one rate share buckets.
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
        world: World | None = None,
    ) -> None:
        super().__init__(auto_prefix=False)

        def decay_of(parameter: Parameter) -> float:
            return 0.0 if parameter.ndim == 1 or any(text in parameter.name for text in no_decay) else weight_decay

        def ratio_of(parameter: Parameter) -> float:
            return lora_plus_ratio if _is_second(parameter.name) else 1.0

        self.buckets = Buckets(parameters, lambda parameter: (decay_of(parameter), ratio_of(parameter)))
        self.parameters = self.buckets.parameters
        self.decay = tuple(decay_of(self.parameters[start]) for start, _ in self.buckets.bounds)
        self.ratio = tuple(ratio_of(self.parameters[start]) for start, _ in self.buckets.bounds)
        self.shards = Shards(world or World())
        self.m = self.buckets.zeros("adam_m", self.shards.count)
        self.v = self.buckets.zeros("adam_v", self.shards.count)
        self.global_step = Parameter(Tensor(0, ms.int32), name="global_step", requires_grad=False)
        self.beta1 = Tensor(beta1, ms.float32)
        self.beta2 = Tensor(beta2, ms.float32)
        self.epsilon = Tensor(epsilon, ms.float32)

    def construct(self, gradients: tuple[Tensor, ...], lr: Tensor) -> bool:
        """One update with float32 gradients, laid in `buckets`."""
        ops.assign_add(self.global_step, Tensor(1, ms.int32))
        step = ops.cast(self.global_step, ms.float32)
        correction1 = 1.0 / (1.0 - ops.pow(self.beta1, step))
        correction2 = 1.0 / (1.0 - ops.pow(self.beta2, step))
        values = ()
        for number, whole in enumerate(self.buckets.join(self.parameters)):
            value, gradient = self.shards.own(whole), self.shards.own(gradients[number])
            m, v = self.m[number], self.v[number]
            m_next = self.beta1 * m + (1.0 - self.beta1) * gradient
            v_next = self.beta2 * v + (1.0 - self.beta2) * ops.square(gradient)
            # No division: for each, MindSpore's CPU kernel keeps a table of 16 bytes a number as long as the graph.
            direction = m_next * correction1 * ops.reciprocal(ops.sqrt(v_next * correction2) + self.epsilon)
            value = value - lr * self.ratio[number] * (direction + self.decay[number] * value)
            values = (*values, self.shards.whole(value, whole.shape[0]))
            ops.assign(m, m_next)
            ops.assign(v, v_next)
        self.buckets.write(values)
        return True

    def state(self) -> dict[str, np.ndarray]:
        """Moments by parameter, `adam_m.NAME` and `adam_v.NAME`, and `global_step`.

        Where moments are shared out, all ranks must ask.
        """
        found = {"global_step": self.global_step.asnumpy()}
        for prefix, moments in (("adam_m", self.m), ("adam_v", self.v)):
            arrays = self.buckets.unpack([self.shards.whole_array(moment.asnumpy()) for moment in moments])
            found |= {f"{prefix}.{name}": array for name, array in arrays.items()}
        return found

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over what `state` gave."""
        assign(self.global_step, state["global_step"])
        for prefix, moments in (("adam_m", self.m), ("adam_v", self.v)):
            arrays = self.buckets.pack({name.removeprefix(f"{prefix}."): array for name, array in state.items()})
            for moment, values in zip(moments, arrays, strict=True):
                assign(moment, self.shards.own_array(values))


def _is_second(name: str) -> bool:
    return name.rsplit(".", 1)[-1] == "lora_b"
