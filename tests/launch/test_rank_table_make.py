"""Rank tables are made of the cards' addresses, and merged in the order of server_id."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import tables

from ms_medqa.cli.main import main
from ms_medqa.config import UserError
from ms_medqa.launch.rank_table import checked, load_rank_table
from ms_medqa.launch.rank_table_make import SuperPod, file_name, merge, parse_device_num, server_table, to_text, write


@pytest.mark.parametrize(
    ("text", "cards"),
    [
        ("8", range(8)),
        ("1", range(1)),
        ("[0,4)", range(4)),
        ("[4,8)", range(4, 8)),
        (" [ 0 , 16 ) ", range(16)),
    ],
)
def test_the_cards_are_a_number_or_the_half_open_range_of_other_tools(text, cards):
    assert parse_device_num(text) == cards


@pytest.mark.parametrize("text", ["0", "-1", "all", "[0,8]", "[4,2)", "[0,0)", "0,1", "٨", ""])
def test_anything_else_is_refused(text):
    with pytest.raises(UserError, match="--device-num"):
        parse_device_num(text)


def test_values_are_strings_and_ranks_count_from_0_whatever_the_cards_are(tmp_path):
    table = server_table("192.0.2.10", {4: "198.51.100.1", 5: "198.51.100.2"})
    assert table["server_list"][0]["device"] == [
        {"device_id": "4", "device_ip": "198.51.100.1", "rank_id": "0"},
        {"device_id": "5", "device_ip": "198.51.100.2", "rank_id": "1"},
    ]
    assert file_name(table) == "hccl_2p_45_192.0.2.10.json"
    assert write(checked(tmp_path / "new" / "a.json", table)) == "written"
    assert load_rank_table(tmp_path / "new" / "a.json").servers == [("192.0.2.10", range(2))]


def test_another_content_is_replaced_and_that_is_told(tmp_path):
    one, two = (server_table("192.0.2.10", {0: f"198.51.100.{n}"}) for n in (1, 2))
    path = tmp_path / "a.json"
    assert [write(checked(path, table)) for table in (one, one, two)] == ["written", "unchanged", "replaced"]
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_superpods_server_says_what_version_1_2_wants():
    table = server_table("node_0", {0: "198.51.100.1", 1: "198.51.100.2"}, SuperPod("7", ("40", "41"), "192.0.2.10"))
    checked(Path("a.json"), table)
    assert table["version"] == "1.2"
    assert [device["super_device_id"] for device in table["server_list"][0]["device"]] == ["40", "41"]
    assert table["server_list"][0]["host_ip"] == "192.0.2.10"
    assert table["super_pod_list"] == [{"super_pod_id": "7", "server_list": [{"server_id": "node_0"}]}]
    with pytest.raises(UserError, match="--super-device-ids: 1 numbers for 2 cards"):
        server_table("node_0", {0: "198.51.100.1", 1: "198.51.100.2"}, SuperPod("7", ("40",)))


def _tables(tmp_path, *documents):
    return [checked(tmp_path / f"{n}.json", document) for n, document in enumerate(documents)]


def test_merged_ranks_follow_server_id_and_not_the_order_of_the_files(tmp_path):
    both = _tables(
        tmp_path,
        server_table("192.0.2.9", {0: "198.51.100.1", 1: "198.51.100.2"}),
        server_table("192.0.2.10", {0: "198.51.100.3", 1: "198.51.100.4"}),
    )
    merged = merge(both)
    assert merged == merge(both[::-1])
    table = checked(tmp_path / "m.json", merged)
    # Dictionary order: a text, not a number.
    assert table.servers == [("192.0.2.10", range(2)), ("192.0.2.9", range(2, 4))]
    assert file_name(merged) == "hccl_2s_4p.json"


def test_a_file_has_a_line_for_each_card():
    text = to_text(server_table("192.0.2.10", {0: "198.51.100.1"}))
    assert '        {"device_id": "0", "device_ip": "198.51.100.1", "rank_id": "0"}\n' in text


def test_merged_superpods_keep_their_servers(tmp_path):
    documents = [
        server_table(f"node_{n}", {0: f"198.51.100.{n}"}, SuperPod(pod, (str(n),)))
        for n, pod in enumerate(["a", "b", "a"])
    ]
    merged = merge(_tables(tmp_path, *documents))
    checked(tmp_path / "m.json", merged)
    members = {pod["super_pod_id"]: [s["server_id"] for s in pod["server_list"]] for pod in merged["super_pod_list"]}
    assert members == {"a": ["node_0", "node_2"], "b": ["node_1"]}


def test_what_cannot_be_merged_is_told(tmp_path):
    one = server_table("node_0", {0: "198.51.100.1"})
    pod = server_table("node_1", {0: "198.51.100.2"}, SuperPod("0", ("0",)))
    with pytest.raises(UserError, match=r"versions 1\.0, 1\.2"):
        merge(_tables(tmp_path, one, pod))
    with pytest.raises(UserError, match=r"versions 2\.0"):
        merge(_tables(tmp_path, tables.ranks()))
    with pytest.raises(UserError, match=r"server node_0 is both in .*0\.json and in .*1\.json"):
        merge(_tables(tmp_path, one, one))


@pytest.mark.parametrize(("name", "cards"), [("2pcs", 2), ("8pcs", 8), ("16pcs", 16)])
def test_the_samples_are_right_and_have_addresses_of_no_machine(name, cards):
    path = tables.FOLDER / f"rank_table_{name}.json"
    table = load_rank_table(path)
    assert len(table.cards) == cards
    assert table.sorted_servers
    for server in tables.load(path)["server_list"]:
        assert server["server_id"].startswith("192.0.2.")
        for device in server["device"]:
            assert all(isinstance(value, str) for value in device.values())
            assert device["device_ip"].startswith(("198.51.100.", "203.0.113."))


def test_the_samples_are_what_the_commands_of_their_page_make(tmp_path, monkeypatch, capsys):
    for path in tables.FOLDER.glob("*.conf"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)
    page = (tables.FOLDER / "README.md").read_text(encoding="utf-8")
    commands = [shlex.split(text)[1:] for text in re.findall(r"`(ms-medqa rank-table [^`]+)`", page)]
    assert len(commands) == 4
    for command in commands:
        assert main(command) == 0, capsys.readouterr().err
    for path in tables.FOLDER.glob("*.json"):
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
