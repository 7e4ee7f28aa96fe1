"""Many small tensors laid end to end in a few flat ones: one operator, or one collective, then serves all of them.

LoRA on q, k and v of 24 layers trains 144 matrices. With an update, a norm and a reduction for each of them, two thirds
of the compiled step's operators were the optimizer's; in a bucket there are as many as for one matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from itertools import pairwise

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

# Numbers in a bucket, 128 MiB in float32: most adapters fit into one. A larger parameter has one for itself, and is not
# copied.
BUCKET_SIZE = 2**25

_flatten = ops.MultitypeFuncGraph("flatten")
_write = ops.MultitypeFuncGraph("write")


@_flatten.register("Tensor")
def _flatten_tensor(tensor):  # type: ignore[no-untyped-def]
    return ops.reshape(ops.cast(tensor, ms.float32), (-1,))


@_write.register("Tensor", "Number", "Tensor")
def _write_tensor(flat, start, parameter):  # type: ignore[no-untyped-def]
    piece = ops.reshape(ops.slice(flat, (start,), (parameter.size,)), parameter.shape)
    return ops.assign(parameter, ops.cast(piece, parameter.dtype))


def plan_buckets(
    parameters: Sequence[Parameter], key: Callable[[Parameter], Hashable], limit: int = BUCKET_SIZE
) -> list[list[int]]:
    """Numbers of the parameters in each bucket; a function of their order, sizes and keys alone.

    Args:
        parameters: what is trained.
        key: parameters share a bucket only where this is the same.
        limit: numbers in a bucket, unless one parameter has more.
    """
    buckets: list[list[int]] = []
    open_buckets: dict[Hashable, tuple[list[int], int]] = {}
    for index, parameter in enumerate(parameters):
        bucket, filled = open_buckets.get(key(parameter), ([], limit))
        if filled + parameter.size > limit:
            bucket, filled = [], 0
            buckets.append(bucket)
        bucket.append(index)
        open_buckets[key(parameter)] = bucket, filled + parameter.size
    return buckets


class Buckets(nn.Cell):
    """Lays tensors in buckets and takes them out again, inside a graph.

    Args:
        parameters: give the shapes.
        key, limit: of `plan_buckets`.

    Attributes:
        parameters: in the order of the buckets, which is that of all tensors that are joined.
        bounds: for each bucket, the first of its parameters and the one after the last.
    """

    def __init__(
        self, parameters: Sequence[Parameter], key: Callable[[Parameter], Hashable], limit: int = BUCKET_SIZE
    ) -> None:
        super().__init__(auto_prefix=False)
        plan = plan_buckets(parameters, key, limit)
        self.parameters = ParameterTuple([parameters[index] for bucket in plan for index in bucket])
        self.bounds = tuple(pairwise(np.cumsum([0, *map(len, plan)]).tolist()))
        self.sizes = tuple(tuple(int(parameters[index].size) for index in bucket) for bucket in plan)
        self.starts = tuple((0, *np.cumsum(sizes[:-1]).tolist()) for sizes in self.sizes)
        self.map = ops.HyperMap()

    def join(self, tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Tensors in the order of `parameters` -> float32 (n,) for each bucket."""
        # No tuple that grows: the compiler keeps each of its stages, 0.5 GB for 144 tensors.
        flat = self.map(_flatten, tensors)
        joined = ()
        for start, stop in self.bounds:
            joined = (*joined, ops.concat(flat[start:stop], 0) if stop > start + 1 else flat[start])
        return joined

    def write(self, values: tuple[Tensor, ...]) -> None:
        """Put the buckets' numbers into the parameters."""
        for number, (start, stop) in enumerate(self.bounds):
            self.map(ops.partial(_write, values[number]), self.starts[number], self.parameters[start:stop])

    def zeros(self, prefix: str, shards: int = 1) -> ParameterTuple:
        """A float32 parameter for each bucket, or for one of its `shards` even parts, which is not trained itself."""
        return ParameterTuple(
            [
                Parameter(ops.zeros((-(-sum(sizes) // shards),), ms.float32), f"{prefix}.{number}", requires_grad=False)
                for number, sizes in enumerate(self.sizes)
            ]
        )

    def unpack(self, flat: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """The numbers of each bucket -> for each parameter's name its own, in its shape, on the host."""
        found = {}
        for values, (start, stop), sizes in zip(flat, self.bounds, self.sizes, strict=True):
            pieces = np.split(values[: sum(sizes)], np.cumsum(sizes)[:-1])
            for parameter, piece in zip(self.parameters[start:stop], pieces, strict=True):
                found[parameter.name] = piece.reshape(parameter.shape)
        return found

    def pack(self, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The way back of `unpack`."""
        names = [[parameter.name for parameter in self.parameters[start:stop]] for start, stop in self.bounds]
        return [np.concatenate([arrays[name].reshape(-1) for name in bucket]) for bucket in names]
