"""Ranks of a data-parallel run. The only place that touches MindSpore's parallel context."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ms_medqa.config.errors import RunError, UserError


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0


def start() -> World:
    """Join the other processes of the run, if RANK_SIZE says that there are any.

    Must run after the device is set and before a training step is built: MindSpore looks at the parallel context only
    then, and without it every process trains for itself without a word.

    Raises:
        UserError: the environment is that of no start that MindSpore knows; the message names the variable.
        RunError: the processes did not find each other.
    """
    if (size := _world_size()) == 1:
        return World()
    import mindspore as ms
    from mindspore.communication import get_group_size, get_rank, init

    # msrun gives its processes a role, and MindSpore itself takes the ranks from OpenMPI.
    if "MS_ROLE" not in os.environ and "OMPI_COMM_WORLD_RANK" not in os.environ:
        _check_rank_table_start(size, ms.get_context("device_target"))
    try:
        init()
    except (RuntimeError, ValueError, TypeError) as error:
        raise RunError(f"the {size} processes did not connect: {error}") from error
    # Losses are divided by the global count before the reduction, so gradients are summed, not averaged. MindSpore's
    # broadcast of the start weights makes constants of a graph of all of them, in each rank's memory: 14 GB for a model
    # of 2 GB. Every rank reads or draws the same ones, and that is compared instead.
    ms.set_auto_parallel_context(
        parallel_mode=ms.ParallelMode.DATA_PARALLEL, gradients_mean=False, parameter_broadcast=False
    )
    return World(get_rank(), get_group_size())


def _world_size() -> int:
    text = os.environ.get("RANK_SIZE") or ""
    if not text:
        # A table left over in a shell does no harm; with a rank beside it, every process would train for itself.
        if os.environ.get("RANK_TABLE_FILE") and os.environ.get("RANK_ID"):
            raise UserError(
                "RANK_TABLE_FILE and RANK_ID are set, but RANK_SIZE is not", "it is the number of processes"
            )
        return 1
    if not text.isdecimal():
        raise UserError(f"RANK_SIZE={text}: it must be the number of processes, such as 8")
    return max(int(text), 1)


def _check_rank_table_start(size: int, device: str) -> None:
    """MindSpore connects processes that msrun has not started by a rank table alone, and on an Ascend alone."""
    msrun = "start it with run/run_distribute_train.sh or msrun, or unset RANK_SIZE"
    if device != "Ascend":
        raise UserError(
            f"RANK_SIZE={size} without msrun: rank tables work on an Ascend only, this is the {device}", msrun
        )
    if not (os.environ.get("RANK_TABLE_FILE") or os.environ.get("MINDSPORE_HCCL_CONFIG_PATH")):
        raise UserError(f"RANK_SIZE={size} without msrun, but RANK_TABLE_FILE is not set", msrun)
    rank = os.environ.get("RANK_ID") or ""
    if not rank:
        raise UserError("RANK_TABLE_FILE is set, but RANK_ID is not", f"this process is one of 0 to {size - 1}")
    if not rank.isdecimal() or int(rank) >= size:
        raise UserError(f"RANK_ID={rank}: with RANK_SIZE={size} it must be 0 to {size - 1}")


def sum_over_ranks(values: np.ndarray, world: World) -> np.ndarray:
    """Element-wise float32 sum over all ranks; the same on every rank."""
    if world.size == 1:
        return values
    from mindspore import Tensor, ops

    return ops.AllReduce()(Tensor(values.astype(np.float32))).asnumpy()


def gather_over_ranks(values: np.ndarray, world: World) -> np.ndarray:
    """The float32 arrays of all ranks one after the other, which must have one shape; the same on every rank."""
    if world.size == 1:
        return values
    from mindspore import Tensor, ops

    return ops.AllGather()(Tensor(values)).asnumpy()


def any_rank(flag: bool, world: World) -> bool:
    """Whether a flag is set on any rank; all ranks must ask at the same point, and get the same answer."""
    return bool(sum_over_ranks(np.array([float(flag)]), world)[0])


def check_same_start(parts: Mapping[str, object], world: World) -> None:
    """Stop a run whose ranks have not been given the same.

    Args:
        parts: what is compared by its `repr`; the same keys on all ranks.
        world: the ranks.

    Raises:
        RunError: a part differs, which is named.
    """
    digests = [hashlib.sha256(repr(part).encode()).digest() for part in parts.values()]
    other = [name for name, same in zip(parts, _same_on_all_ranks(digests, world), strict=True) if not same]
    if other:
        raise RunError(
            f"the {world.size} ranks do not start with the same {', '.join(other)}: every host needs the same files, "
            "configuration and versions"
        )


def check_same_weights(arrays: Iterable[np.ndarray], world: World, when: str) -> None:
    """Stop a run whose ranks no longer hold the same weights, to the bit.

    Raises:
        RunError: the weights differ; training would go on as separate runs.
    """
    if world.size == 1:
        return
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array))
    if not all(_same_on_all_ranks([digest.digest()], world)):
        raise RunError(f"the weights of the {world.size} ranks differ {when}: they are not training together")


def _same_on_all_ranks(digests: Sequence[bytes], world: World) -> list[bool]:
    """For each digest whether all ranks have it; none, where the ranks are not connected."""
    # 16-bit pieces: their float32 sums over up to 256 ranks are exact.
    own = np.stack([np.frombuffer(digest[:8], np.uint16) for digest in digests]).astype(np.float32)
    total = sum_over_ranks(np.concatenate([own, np.ones_like(own[:1])]), world)
    connected = bool((total[-1] == world.size).all())
    return [connected and np.array_equal(row, mine * world.size) for row, mine in zip(total[:-1], own, strict=True)]
