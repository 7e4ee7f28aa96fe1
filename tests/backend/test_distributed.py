"""Ranks: a process alone, ranks that drift apart, ranks that do not meet."""

from __future__ import annotations

import numpy as np
import pytest

from ms_medqa.backend import distributed
from ms_medqa.backend.distributed import World, check_same_weights, start, sum_over_ranks
from ms_medqa.config import RunError


@pytest.mark.parametrize("size", [None, "", "1"])
def test_a_process_alone(monkeypatch: pytest.MonkeyPatch, size: str | None) -> None:
    monkeypatch.delenv("RANK_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("RANK_SIZE", size)
    world = start()
    assert world == World(0, 1)
    assert world.is_main
    values = np.array([1.5, -2.0])
    assert np.array_equal(sum_over_ranks(values, world), values)
    check_same_weights([values], world, "now")


def test_ranks_that_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError("timeout")

    monkeypatch.setenv("RANK_SIZE", "4")
    monkeypatch.setattr("mindspore.communication.init", init)
    with pytest.raises(RunError, match="the 4 processes did not connect: timeout"):
        start()


def pretend_ranks(monkeypatch: pytest.MonkeyPatch, weights: list[list[np.ndarray]]) -> list[bool]:
    """Run the check as every rank in turn; True where it stopped that rank."""
    sent: list[np.ndarray] = []
    monkeypatch.setattr(distributed, "sum_over_ranks", lambda values, world: (sent.append(values), values)[1])
    for own in weights:
        with pytest.raises(RunError):  # the sum is not yet that of all ranks
            check_same_weights(own, World(0, len(weights)), "first")
    total = np.sum(sent, axis=0, dtype=np.float32)
    monkeypatch.setattr(distributed, "sum_over_ranks", lambda values, world: total)
    said = [""] * len(weights)
    for rank, own in enumerate(weights):
        try:
            check_same_weights(own, World(rank, len(weights)), "at step 7")
        except RunError as error:
            said[rank] = str(error)
    assert all(f"the weights of the {len(weights)} ranks differ at step 7" in text for text in said if text)
    return [bool(text) for text in said]


@pytest.mark.parametrize("ranks", [2, 8, 256])
def test_ranks_with_the_same_weights_go_on(monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    weights = [np.arange(12, dtype=np.float32).reshape(3, 4).T, np.float16([1, 2])]
    assert pretend_ranks(monkeypatch, [weights] * ranks) == [False] * ranks


def test_one_bit_in_one_weight_of_one_rank_stops_all(monkeypatch: pytest.MonkeyPatch) -> None:
    same = [np.ones((3, 4), np.float32), np.zeros(2, np.float32)]
    other = [same[0].copy(), same[1]]
    other[0][2, 3] = np.nextafter(np.float32(1), np.float32(2))
    assert pretend_ranks(monkeypatch, [same, other]) == [True, True]


def test_ranks_that_were_never_connected_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "sum_over_ranks", lambda values, world: values)
    with pytest.raises(RunError, match="not training together"):
        check_same_weights([np.zeros(2, np.float32)], World(0, 2), "at the start")
