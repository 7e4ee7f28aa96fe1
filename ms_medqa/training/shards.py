"""Optimizer state shared out: each rank keeps and updates an even part (ZeRO stage 1, Rajbhandari et al. 2020)."""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn, ops

from ms_medqa.backend.distributed import World, gather_over_ranks


class Shards(nn.Cell):
    """Parts of flat tensors over the ranks, all of one length: the last one may be filled up with zeros.

    Args:
        world: the ranks; a single one keeps everything.
    """

    def __init__(self, world: World) -> None:
        super().__init__(auto_prefix=False)
        self.world = world
        self.rank, self.count = world.rank, world.size
        if self.count > 1:
            self.gather = ops.AllGather()

    def own(self, flat: Tensor) -> Tensor:
        """(n,) -> (ceil(n / ranks),): this rank's part."""
        if self.count == 1:
            return flat
        length = -(-flat.shape[0] // self.count)
        start = min(self.rank * length, flat.shape[0])
        stop = min(start + length, flat.shape[0])
        part = ops.slice(flat, (start,), (stop - start,)) if stop > start else flat[:0]
        missing = length - (stop - start)
        if missing == 0:
            return part
        zeros = ops.zeros((missing,), flat.dtype)
        return ops.concat((part, zeros), 0) if stop > start else zeros

    def whole(self, part: Tensor, size: int) -> Tensor:
        """The parts of all ranks -> (size,), the same on every rank."""
        return part if self.count == 1 else ops.slice(self.gather(part), (0,), (size,))

    def whole_array(self, part: np.ndarray) -> np.ndarray:
        """The same on the host, filled up at its end; all ranks must ask."""
        return gather_over_ranks(part, self.world)

    def own_array(self, flat: np.ndarray) -> np.ndarray:
        """This rank's part, on the host."""
        length = -(-len(flat) // self.count)
        filled = np.zeros(length * self.count, flat.dtype)
        filled[: len(flat)] = flat
        return filled[self.rank * length : (self.rank + 1) * length]
