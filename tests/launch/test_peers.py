"""A host of several notices that the others have gone, and says where to look."""

from __future__ import annotations

import socket

import pytest

from ms_medqa.launch import peers
from ms_medqa.launch.nodes import ALONE, Nodes
from ms_medqa.launch.peers import Peers


@pytest.fixture
def scheduler(monkeypatch):
    """Something that listens, and is asked at every look."""
    monkeypatch.setattr(peers, "_PROBE_SECONDS", 0.0)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        yield sock


def _nodes(scheduler, rank):
    return Nodes(2, rank, *scheduler.getsockname())


def test_a_scheduler_that_has_answered_and_is_silent_is_lost(scheduler):
    watched = Peers(_nodes(scheduler, 1), lost_seconds=0.0)
    patient = Peers(_nodes(scheduler, 1))
    assert not watched.lost
    assert not patient.lost
    scheduler.close()
    assert watched.lost
    assert not patient.lost


def test_a_scheduler_that_is_not_there_yet_is_waited_for_by_mindspore_itself(scheduler):
    watched = Peers(_nodes(scheduler, 1), lost_seconds=0.0)
    scheduler.close()
    assert not watched.lost


def test_a_run_on_one_host_asks_nobody(tmp_path):
    assert not Peers(ALONE, lost_seconds=0.0).lost
    assert Peers(ALONE).failed_first(tmp_path, 8) is None


def test_a_scheduler_that_has_ended_means_that_host_0_has_failed(scheduler, tmp_path):
    other = Peers(_nodes(scheduler, 1))
    assert not other.lost
    assert other.failed_first(tmp_path, 8) is None
    scheduler.close()
    assert "see what the launcher on host 0 said" in other.failed_first(tmp_path, 8)


def test_a_host_0_that_was_never_there_is_told_with_its_address(scheduler, tmp_path):
    alone = Peers(_nodes(scheduler, 1))
    scheduler.close()
    assert not alone.lost
    said = alone.failed_first(tmp_path, 8)
    assert said.startswith(
        f"host 0 has never answered at MASTER_ADDR=127.0.0.1, MASTER_PORT={alone._nodes.master_port}"
    )


@pytest.mark.parametrize(("silent", "said"), [(5, "worker 5 on host 1 had gone silent"), (1, None)])
def test_host_0_reads_in_the_schedulers_log_which_worker_was_silent(scheduler, tmp_path, silent, said):
    first = Peers(_nodes(scheduler, 0))
    assert first.failed_first(tmp_path, 8) is None
    (tmp_path / "scheduler.log").write_text(f"[ERROR] The node: {silent} is timed out. It may exit with exception.\n")
    found = first.failed_first(tmp_path, 8)
    assert found is None if said is None else said in found
