"""A rank table is checked before anything starts; an error names the field."""

from __future__ import annotations

import copy
import json
import threading
import time

import pytest
import tables

from ms_medqa.config import UserError
from ms_medqa.launch import rank_table
from ms_medqa.launch.rank_table import check_rank_table, load_rank_table

EIGHT, SIXTEEN = tables.EIGHT, tables.SIXTEEN


@pytest.fixture
def write(tmp_path):
    def write(table, change=lambda table: None):
        table = copy.deepcopy(table)
        change(table)
        path = tmp_path / "table.json"
        path.write_text(json.dumps(table))
        return path

    return write


def _device(number, **fields):
    return lambda table: table["server_list"][0]["device"][number].update(fields)


def test_a_right_table_gives_its_absolute_path(monkeypatch):
    assert check_rank_table(EIGHT, 8) == EIGHT
    monkeypatch.chdir(EIGHT.parent)
    assert check_rank_table(EIGHT.name, 8, node_num=1) == EIGHT


def test_servers_and_their_ranks_are_told():
    table = load_rank_table(SIXTEEN)
    assert table.servers == [("192.0.2.10", range(8)), ("192.0.2.11", range(8, 16))]
    assert table.sorted_servers


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda t: t.update(version="3.0"), "version: '3.0' is not one of"),
        (lambda t: t.update(version=1.0), "version: 1.0 is not one of"),
        (lambda t: t.update(status="failed"), "status: 'failed' is not 'completed'"),
        (lambda t: t.pop("status"), "status: None"),
        (lambda t: t.update(server_list=[]), "server_list"),
        (lambda t: t.update(server_list=[[]]), r"server_list\[0\]"),
        (lambda t: t.update(server_count="2"), "server_count: '2' is not '1'"),
        (lambda t: t.update(server_count=1), "server_count: 1 is not '1'"),
        (lambda t: t["server_list"][0].pop("device"), r"server_list\[0\].device"),
        (lambda t: t["server_list"][0].pop("server_id"), r"server_list\[0\].server_id: None"),
        (lambda t: t["server_list"][0].update(server_id="x" * 65), "1 to 64 characters"),
        (lambda t: t["server_list"][0]["device"].pop(), "server_list: it has 7 cards, but DEVICE_NUM is 8"),
        (_device(3, rank_id="0"), r"server_list\[0\].device\[3\].rank_id: '0' is also that of .*device\[0\]"),
        (_device(3, rank_id="9"), "rank_id: the ranks must be 0 to 7"),
        (_device(3, rank_id=3), r"device\[3\].rank_id: 3 is not a number in quotes"),
        (_device(3, rank_id="٣"), r"device\[3\].rank_id: .* is not a number in quotes"),
        (_device(3, device_ip="198.51.100.101"), r"device\[3\].device_ip: .* is also that of"),
        (_device(3, device_ip="198.51.100.301"), r"device\[3\].device_ip: .* is not an IP address"),
        (_device(3, device_ip=None), r"device\[3\].device_ip: None is not an IP address"),
        (_device(3, device_id="0"), r"device\[3\].device_id: '0' is also that of"),
    ],
)
def test_an_error_names_the_field(write, change, field):
    with pytest.raises(UserError, match=field) as error:
        check_rank_table(write(tables.load(EIGHT), change), 8)
    assert "\n" not in str(error.value)


def _mix(table):
    first, second = (server["device"] for server in table["server_list"])
    first[7]["rank_id"], second[0]["rank_id"] = "8", "7"


def _without_second(table):
    del table["server_list"][1]
    table["server_count"] = "1"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_mix, r"server_list\[0\].device: the ranks of a server must follow each other"),
        (_without_second, "server_list: it has 8 cards, but DEVICE_NUM is 16"),
        (lambda t: t["server_list"].pop(), "server_count: '2' is not '1'"),
        (lambda t: t["server_list"][1].update(server_id="192.0.2.10"), r"server_list\[1\].server_id: .* also that of"),
    ],
)
def test_servers_that_do_not_fit_together(write, change, field):
    with pytest.raises(UserError, match=field):
        check_rank_table(write(tables.load(SIXTEEN), change), 16, node_num=2)


def test_each_host_of_the_job_has_its_server_with_as_many_cards(write):
    check_rank_table(SIXTEEN, 16, node_num=2)
    with pytest.raises(UserError, match="server_list: it has 2 servers, but NODE_NUM is 1"):
        check_rank_table(SIXTEEN, 16, node_num=1)

    def move(table):
        first, second = (server["device"] for server in table["server_list"])
        first.append(second.pop(0) | {"device_id": "8"})

    with pytest.raises(UserError, match=r"server 192.0.2.10 has 9 cards: .* each has 8"):
        check_rank_table(write(tables.load(SIXTEEN), move), 16, node_num=2)


def test_ranks_against_the_order_of_server_id_are_a_note_and_no_error(write, capsys):
    def rename(table):
        table["server_list"][0]["server_id"] = "192.0.2.9"

    path = write(tables.load(SIXTEEN), rename)
    assert check_rank_table(path, 16) == path
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "192.0.2.9 (ranks 0-7), 192.0.2.11 (ranks 8-15)" in said


def test_a_table_of_superpods_is_read(write):
    assert len(load_rank_table(write(tables.super_pods())).cards) == 4


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_device(1, super_device_id=1), r"device\[1\].super_device_id: 1 is not a number in quotes"),
        (_device(1, super_device_id="0"), r"device\[1\].super_device_id: '0' is also that of"),
        (lambda t: t["server_list"][0]["device"][1].pop("super_device_id"), "super_device_id: None"),
        (lambda t: t["server_list"][0]["device"][1].pop("device_ip"), "device_ip: None"),
        (lambda t: t["super_pod_list"].pop(), "super_pod_list: server 'node_1' of server_list is in no SuperPoD"),
        (lambda t: t["super_pod_list"][0].pop("super_pod_id"), r"super_pod_list\[0\].super_pod_id"),
        (
            lambda t: t["super_pod_list"][0]["server_list"][0].update(server_id="node_9"),
            r"super_pod_list\[0\].server_list\[0\].server_id: 'node_9' is not in server_list",
        ),
    ],
)
def test_a_fault_of_superpods_names_the_field(write, change, field):
    with pytest.raises(UserError, match=field):
        load_rank_table(write(tables.super_pods(), change))


def test_cards_of_one_superpod_need_no_address(write):
    def one_pod(table):
        pods = table["super_pod_list"]
        pods[0]["server_list"] += pods.pop()["server_list"]
        for server in table["server_list"]:
            for device in server["device"]:
                del device["device_ip"]
                device["super_device_id"] = device["rank_id"]

    assert len(load_rank_table(write(tables.super_pods(), one_pod)).cards) == 4


def test_a_table_of_version_2_is_read_and_must_fit_the_job(write):
    path = write(tables.ranks())
    assert check_rank_table(path, 2, node_num=1) == path
    with pytest.raises(UserError, match="rank_count: it has 2 cards, but DEVICE_NUM is 4"):
        check_rank_table(path, 4)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda t: t.update(rank_count="2"), "rank_count: '2' is not a number without quotes"),
        (lambda t: t.update(rank_count=True), "rank_count: True is not a number"),
        (lambda t: t.update(rank_count=3), "rank_count: 3 is not 2"),
        (lambda t: t.update(rank_list={}), "rank_list: it must be a list"),
        (lambda t: t["rank_list"][1].update(rank_id="1"), r"rank_list\[1\].rank_id: '1' is not a number without"),
        (lambda t: t["rank_list"][1].update(rank_id=0), r"rank_list\[1\].rank_id: '0' is also that of"),
        (lambda t: t["rank_list"][1].update(rank_id=2), "rank_id: the ranks must be 0 to 1"),
        (lambda t: t["rank_list"][1].pop("device_id"), r"rank_list\[1\].device_id: None"),
        (lambda t: t["rank_list"][0].update(level_list=[]), r"rank_list\[0\].level_list"),
        (lambda t: t["rank_list"][0]["level_list"][0].pop("net_layer"), r"level_list\[0\].net_layer"),
        (lambda t: t["rank_list"][0]["level_list"][0].pop("rank_addr_list"), r"level_list\[0\].rank_addr_list"),
        (
            lambda t: t["rank_list"][0]["level_list"][0]["rank_addr_list"][0].pop("addr"),
            r"rank_addr_list\[0\].addr: None",
        ),
    ],
)
def test_a_fault_of_version_2_names_the_field(write, change, field):
    with pytest.raises(UserError, match=field):
        load_rank_table(write(tables.ranks(), change))


@pytest.mark.parametrize(("text", "message"), [("{", "line 1: not valid JSON"), ("[]", "must be a mapping")])
def test_a_file_that_is_no_table(tmp_path, text, message):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        check_rank_table(path, 8)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        check_rank_table(tmp_path / "none.json", 8)
    with pytest.raises(UserError, match="directory"):
        check_rank_table(tmp_path, 8)


def test_a_table_that_the_platform_is_still_writing_is_waited_for_and_that_is_said_once(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(rank_table, "_POLL_SECONDS", 0.01)
    path = tmp_path / "hccl.json"
    path.write_text('{"status": "initializing"}')
    whole = tmp_path / "whole.json"
    whole.write_bytes(EIGHT.read_bytes())
    # As a mounted ConfigMap changes: at once.
    timer = threading.Timer(0.2, lambda: whole.replace(path))
    timer.start()
    assert check_rank_table(path, 8, wait_seconds=30) == path
    timer.join()
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "status is 'initializing', waiting up to 30 s" in said


def test_waiting_has_an_end(tmp_path):
    path = tmp_path / "hccl.json"
    path.write_text('{"status": "initializing"}')
    began = time.monotonic()
    with pytest.raises(UserError, match="status: still 'initializing' after 0 s"):
        check_rank_table(path, 8, wait_seconds=0)
    assert time.monotonic() - began < 1
