"""Tensors end to end in buckets."""

from __future__ import annotations

import numpy as np
import pytest
from mindspore import Parameter, Tensor

from ms_medqa.backend.distributed import World
from ms_medqa.training.buckets import Buckets
from ms_medqa.training.shards import Shards

pytestmark = pytest.mark.usefixtures("graph_mode")

SIZES = [(2, 3), (4,), (3, 2), (50,), (1, 1), (5,)]


def parameters() -> list[Parameter]:
    return [Parameter(Tensor(np.full(shape, n, np.float32)), name=f"p{n}") for n, shape in enumerate(SIZES)]


def buckets(limit: int) -> Buckets:
    """Matrices and vectors apart, as weight decay wants them."""
    return Buckets(parameters(), lambda parameter: parameter.ndim, limit)


@pytest.mark.parametrize(
    ("limit", "names"),
    [
        (100, ["p0 p2 p4", "p1 p3 p5"]),
        (12, ["p0 p2", "p1", "p3", "p4", "p5"]),
        (1, ["p0", "p1", "p2", "p3", "p4", "p5"]),
    ],
)
def test_like_parameters_share_a_bucket_while_there_is_room(limit: int, names: list[str]) -> None:
    found = buckets(limit)
    laid = [" ".join(p.name for p in found.parameters[start:stop]) for start, stop in found.bounds]
    assert laid == names


@pytest.mark.parametrize("limit", [100, 12, 1])
def test_what_is_joined_can_be_written_back(limit: int) -> None:
    cell = buckets(limit)
    values = cell.join(tuple(cell.parameters))
    for flat, sizes in zip(values, cell.sizes, strict=True):
        assert flat.shape == (sum(sizes),)
    cell.write(tuple(value + 10.0 for value in values))
    for n, parameter in enumerate(sorted(cell.parameters, key=lambda p: p.name)):
        assert np.array_equal(parameter.asnumpy(), np.full(SIZES[n], n + 10, np.float32))


@pytest.mark.parametrize("limit", [100, 12])
def test_numbers_of_each_parameter_by_name_on_the_host(limit: int) -> None:
    cell = buckets(limit)
    arrays = {f"p{n}": np.random.default_rng(n).random(shape, np.float32) for n, shape in enumerate(SIZES)}
    kept = cell.zeros("kept")
    assert not any(parameter.requires_grad for parameter in kept)
    flat = cell.pack(arrays)
    assert [values.shape for values in flat] == [parameter.shape for parameter in kept]
    found = cell.unpack(flat)
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_parts_of_the_ranks_are_of_one_length_and_make_the_whole(ranks: int) -> None:
    """Seven numbers over eight ranks leave one of them with nothing but filling."""
    flat = np.arange(1, 8, dtype=np.float32)
    parts = []
    for rank in range(ranks):
        shards = Shards(World())
        shards.rank, shards.count = rank, ranks
        parts.append(shards.own(Tensor(flat)).asnumpy())
        assert np.array_equal(parts[-1], shards.own_array(flat))
    assert {part.shape for part in parts} == {(-(-7 // ranks),)}
    assert np.array_equal(np.concatenate(parts)[:7], flat)
    assert not np.concatenate(parts)[7:].any()
