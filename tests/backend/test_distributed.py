"""Ranks: a process alone, ranks that drift apart, ranks that do not meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import pytest

from ms_medqa.backend import distributed
from ms_medqa.backend.distributed import World, check_same_start, check_same_weights, start, sum_over_ranks
from ms_medqa.config import RunError, UserError

T = TypeVar("T")


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
    check_same_start({"settings": 1}, world)


def test_ranks_that_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError("timeout")

    monkeypatch.setenv("MS_ROLE", "MS_WORKER")
    monkeypatch.setenv("RANK_SIZE", "4")
    monkeypatch.setattr("mindspore.communication.init", init)
    with pytest.raises(RunError, match="the 4 processes did not connect: timeout"):
        start()


@pytest.fixture
def ascend(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Process 3 of 8 of a start by rank table on an Ascend; what MindSpore is asked to do."""
    calls: list[str] = []
    for name in ("MS_ROLE", "OMPI_COMM_WORLD_RANK", "MINDSPORE_HCCL_CONFIG_PATH"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RANK_TABLE_FILE": "table.json", "RANK_ID": "3", "DEVICE_ID": "3", "RANK_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("mindspore.get_context", lambda name: {"device_target": "Ascend"}[name])
    monkeypatch.setattr("mindspore.communication.init", lambda: calls.append("init"))
    monkeypatch.setattr("mindspore.communication.get_rank", lambda: 3)
    monkeypatch.setattr("mindspore.communication.get_group_size", lambda: 8)
    monkeypatch.setattr("mindspore.set_auto_parallel_context", lambda **settings: calls.append("data parallel"))
    return calls


def test_a_start_by_rank_table_connects_before_anything_else(ascend: list[str]) -> None:
    assert start() == World(3, 8)
    assert ascend == ["init", "data parallel"]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RANK_ID", "", "RANK_TABLE_FILE is set, but RANK_ID is not: this process is one of 0 to 7"),
        ("RANK_ID", "8", "RANK_ID=8: with RANK_SIZE=8 it must be 0 to 7"),
        ("RANK_ID", "-1", "RANK_ID=-1: with RANK_SIZE=8 it must be 0 to 7"),
        ("RANK_TABLE_FILE", "", "RANK_SIZE=8 without msrun, but RANK_TABLE_FILE is not set: .*msrun"),
        ("RANK_SIZE", "", "RANK_TABLE_FILE and RANK_ID are set, but RANK_SIZE is not"),
        ("RANK_SIZE", "all", "RANK_SIZE=all: it must be the number of processes"),
    ],
)
def test_a_wrong_start_by_rank_table_names_the_variable(
    ascend: list[str], monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        start()
    assert ascend == []


def test_on_a_cpu_a_rank_table_starts_nothing(ascend: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mindspore.get_context", lambda name: "CPU")
    with pytest.raises(UserError, match=r"rank tables work on an Ascend only, this is the CPU: .*msrun"):
        start()
    assert ascend == []


def test_a_table_left_over_in_a_shell_makes_no_distributed_run(
    ascend: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RANK_SIZE")
    monkeypatch.delenv("RANK_ID")
    assert start() == World(0, 1)


@pytest.mark.parametrize("name", ["MS_ROLE", "OMPI_COMM_WORLD_RANK"])
def test_processes_of_msrun_and_openmpi_need_no_table(
    ascend: list[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "MS_WORKER")
    monkeypatch.delenv("RANK_TABLE_FILE")
    monkeypatch.setattr("mindspore.get_context", lambda name: "CPU")
    assert start() == World(3, 8)


def pretend_ranks(monkeypatch: pytest.MonkeyPatch, check: Callable[[T, World], None], given: list[T]) -> list[str]:
    """Run a check as every rank in turn, each with its own; what it said to each, nothing where it let pass."""
    sent: list[np.ndarray] = []
    monkeypatch.setattr(distributed, "sum_over_ranks", lambda values, world: (sent.append(values), values)[1])
    for own in given:
        with pytest.raises(RunError):  # the sum is not yet that of all ranks
            check(own, World(0, len(given)))
    total = np.sum(sent, axis=0, dtype=np.float32)
    monkeypatch.setattr(distributed, "sum_over_ranks", lambda values, world: total)
    said = [""] * len(given)
    for rank, own in enumerate(given):
        try:
            check(own, World(rank, len(given)))
        except RunError as error:
            said[rank] = str(error)
    return said


def weights_at_step_7(own: list[np.ndarray], world: World) -> None:
    check_same_weights(own, world, "at step 7")


@pytest.mark.parametrize("ranks", [2, 8, 256])
def test_ranks_with_the_same_weights_go_on(monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    weights = [np.arange(12, dtype=np.float32).reshape(3, 4).T, np.float16([1, 2])]
    assert pretend_ranks(monkeypatch, weights_at_step_7, [weights] * ranks) == [""] * ranks


def test_one_bit_in_one_weight_of_one_rank_stops_all(monkeypatch: pytest.MonkeyPatch) -> None:
    same = [np.ones((3, 4), np.float32), np.zeros(2, np.float32)]
    other = [same[0].copy(), same[1]]
    other[0][2, 3] = np.nextafter(np.float32(1), np.float32(2))
    for said in pretend_ranks(monkeypatch, weights_at_step_7, [same, other]):
        assert said == "the weights of the 2 ranks differ at step 7: they are not training together"


def test_a_host_with_other_data_is_named_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"base weights": "8f3a", "training data": "11", "settings": {"train.seed": 42, "data.max_length": 512}}
    assert pretend_ranks(monkeypatch, check_same_start, [same] * 8) == [""] * 8
    other = same | {"training data": "12"}
    for said in pretend_ranks(monkeypatch, check_same_start, [same, other, same]):
        assert said.startswith("the 3 ranks do not start with the same training data: every host needs")
    other = same | {"base weights": None, "settings": {"train.seed": 43, "data.max_length": 512}}
    for said in pretend_ranks(monkeypatch, check_same_start, [other, same]):
        assert said.startswith("the 2 ranks do not start with the same base weights, settings: ")


def test_ranks_that_were_never_connected_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "sum_over_ranks", lambda values, world: values)
    with pytest.raises(RunError, match="not training together"):
        check_same_weights([np.zeros(2, np.float32)], World(0, 2), "at the start")
