"""The hosts of a run, as the environment tells them; an error names the variable."""

from __future__ import annotations

import socket

import pytest

from ms_medqa.config import UserError
from ms_medqa.launch import nodes
from ms_medqa.launch.nodes import Nodes

_TWO = {"NODE_NUM": "2", "NODE_RANK": "1", "MASTER_ADDR": "192.0.2.10"}


@pytest.mark.parametrize("environment", [{}, {"NODE_NUM": ""}, _TWO | {"NODE_NUM": "1", "MASTER_PORT": "29500"}])
def test_one_host_needs_nothing_and_takes_a_free_port(environment):
    alone = Nodes.from_environment(environment)
    assert alone == Nodes()
    assert alone.master_port is None
    assert alone.ranks(8) == range(8)
    alone.check_master()


def test_each_host_has_its_share_of_the_ranks():
    second = Nodes.from_environment(_TWO)
    assert second == Nodes(2, 1, "192.0.2.10", 8118, 600)
    assert second.share(16) == 8
    assert second.ranks(16) == range(8, 16)
    assert Nodes.from_environment(_TWO | {"MASTER_PORT": "29500", "CLUSTER_TIME_OUT": "-1"}).master_port == 29500


def test_cards_that_cannot_be_dealt_out_evenly_are_refused():
    with pytest.raises(UserError, match=r"DEVICE_NUM 9: it cannot be divided by NODE_NUM=2: .*all hosts"):
        Nodes.from_environment(_TWO).share(9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"NODE_NUM": "two"}, "NODE_NUM=two: it must be a number"),
        ({"NODE_NUM": "0"}, "NODE_NUM=0: it must be at least 1"),
        ({"NODE_RANK": ""}, "NODE_NUM=2, but NODE_RANK is not set"),
        ({"NODE_RANK": "2"}, "NODE_RANK=2: with NODE_NUM=2 it must be below 2"),
        ({"NODE_RANK": "-1"}, "NODE_RANK=-1: it must be at least 0"),
        ({"MASTER_ADDR": ""}, "NODE_NUM=2, but MASTER_ADDR is not set"),
        ({"MASTER_PORT": "80"}, "MASTER_PORT=80: it must be 1024 to 65535"),
        ({"CLUSTER_TIME_OUT": "1h"}, "CLUSTER_TIME_OUT=1h: it must be a number"),
    ],
)
def test_an_error_names_the_variable(changes, message):
    with pytest.raises(UserError, match=message):
        Nodes.from_environment(_TWO | changes)


def test_host_0_must_have_the_masters_address():
    with pytest.raises(UserError, match=r"MASTER_ADDR=192\.0\.2\.10 is no address of this host, but NODE_RANK=0"):
        Nodes(2, 0, "192.0.2.10", 8118).check_master()
    # Another host has it not, of course.
    Nodes(2, 1, "192.0.2.10", 8118).check_master()


def test_a_port_that_another_program_has_is_told():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        with pytest.raises(UserError, match=f"MASTER_PORT={port}: another program listens there"):
            Nodes(2, 0, "127.0.0.1", port).check_master()
    Nodes(2, 0, "127.0.0.1", port).check_master()


def test_other_hosts_wait_for_the_masters_name_and_host_0_does_not(monkeypatch, capsys):
    answers = iter([None, None, [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.10", 8118))]])

    def resolve(*arguments, **options):
        if (answer := next(answers, None)) is None:
            raise socket.gaierror(-2, "Name or service not known")
        return answer

    monkeypatch.setattr(nodes, "_POLL_SECONDS", 0.0)
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    Nodes(2, 1, "job-0", 8118).check_master()
    assert capsys.readouterr().out == "MASTER_ADDR=job-0 has no address yet, waiting\n"
    for rank, time_out in ((0, 600), (1, 0)):
        with pytest.raises(UserError, match="MASTER_ADDR=job-0: Name or service not known"):
            Nodes(2, rank, "job-0", 8118, time_out).check_master()
