"""A rank table is checked before anything starts; an error names the field."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from ms_medqa.config import UserError
from ms_medqa.launch.rank_table import check_rank_table

SAMPLE = Path(__file__).resolve().parents[2] / "rank_tables" / "rank_table_8pcs.json"


@pytest.fixture
def write(tmp_path):
    def write(change):
        table = copy.deepcopy(json.loads(SAMPLE.read_text()))
        change(table)
        path = tmp_path / "table.json"
        path.write_text(json.dumps(table))
        return path

    return write


def _device(number, **fields):
    return lambda table: table["server_list"][0]["device"][number].update(fields)


def test_the_shipped_sample_is_right_and_all_strings():
    assert check_rank_table(SAMPLE, 8) == SAMPLE
    for device in json.loads(SAMPLE.read_text())["server_list"][0]["device"]:
        assert all(isinstance(value, str) for value in device.values())
        assert device["device_ip"].startswith("198.51.100.")


def test_two_servers(write):
    def two(table):
        first = table["server_list"][0]
        second = copy.deepcopy(first)
        second["server_id"] = "192.0.2.11"
        for n, device in enumerate(second["device"]):
            device.update(device_ip=f"203.0.113.{n + 1}", rank_id=str(8 + n))
        table["server_list"].append(second)
        table["server_count"] = "2"

    assert check_rank_table(write(two), 16)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda t: t.update(version="3.0"), "version"),
        (lambda t: t.update(status="initializing"), "status: 'initializing', wait"),
        (lambda t: t.update(server_list=[]), "server_list"),
        (lambda t: t.update(server_count="2"), "server_count: '2' is not '1'"),
        (lambda t: t.update(server_count=1), "server_count: 1 is not '1'"),
        (lambda t: t["server_list"][0].pop("device"), r"server_list\[0\].device"),
        (lambda t: t["server_list"][0]["device"].pop(), "server_list: it has 7 cards, but DEVICE_NUM is 8"),
        (_device(3, rank_id="0"), r"server_list\[0\].device\[3\].rank_id: '0' is also that of .*device\[0\]"),
        (_device(3, rank_id="9"), "rank_id: the ranks must be 0 to 7"),
        (_device(3, rank_id=3), r"device\[3\].rank_id: 3 is not a number in quotes"),
        (_device(3, device_ip="198.51.100.101"), r"device\[3\].device_ip: .* is also that of"),
        (_device(3, device_ip="198.51.100.301"), r"device\[3\].device_ip: .* is not an IP address"),
        (_device(3, device_id="0"), r"device\[3\].device_id: '0' is also that of"),
    ],
)
def test_an_error_names_the_field(write, change, field):
    with pytest.raises(UserError, match=field):
        check_rank_table(write(change), 8)


@pytest.mark.parametrize(("text", "message"), [("{", "line 1: not valid JSON"), ("[]", "must be a mapping")])
def test_a_file_that_is_no_table(tmp_path, text, message):
    path = tmp_path / "table.json"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        check_rank_table(path, 8)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        check_rank_table(tmp_path / "none.json", 8)
