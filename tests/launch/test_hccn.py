"""Where the addresses of cards and of this server come from."""

from __future__ import annotations

import socket

import pytest

from ms_medqa.config import UserError
from ms_medqa.launch import hccn
from ms_medqa.launch.hccn import card_addresses, server_address


@pytest.fixture
def tool(tmp_path, monkeypatch):
    """A machine without /etc/hccn.conf, with an hccn_tool that says what the test wants."""
    monkeypatch.setattr(hccn, "HCCN_CONF", tmp_path / "none.conf")
    monkeypatch.setattr(hccn, "_HCCN_TOOL", str(tmp_path / "none"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    def write(body):
        path = tmp_path / "hccn_tool"
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)

    return write


def test_addresses_of_the_wanted_cards_are_read_from_the_file(tmp_path):
    path = tmp_path / "hccn.conf"
    path.write_text("address_10=192.0.2.10\n# address_0=192.0.2.99\n address_1 = 192.0.2.1 \nnetmask_1=255.255.255.0\n")
    assert card_addresses([1, 10], path) == {1: "192.0.2.1", 10: "192.0.2.10"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("address_1=192.0.2.1\n", "no line address_0="), ("address_0=192.0.2\n", "address_0: '192.0.2' is not an IP")],
)
def test_a_file_without_an_address_is_one_clear_line(tmp_path, text, message):
    path = tmp_path / "hccn.conf"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        card_addresses([0], path)


def test_a_file_that_was_named_must_be_there(tmp_path, tool):
    tool("echo ipaddr:192.0.2.1")
    with pytest.raises(UserError, match="No such file"):
        card_addresses([0], tmp_path / "mine.conf")


def test_without_a_file_the_tool_is_asked_for_each_card(tool):
    tool('[ "$1 $3 $4" = "-i -ip -g" ] && echo "ipaddr:192.0.2.$2"; echo "netmask:255.255.255.0"')
    assert card_addresses(range(2)) == {0: "192.0.2.0", 1: "192.0.2.1"}


def test_a_tool_that_knows_no_address_is_quoted(tool):
    tool("echo 'Cmd is not permitted' >&2; exit 1")
    with pytest.raises(UserError, match=r"`hccn_tool -i 0 -ip -g` tells no address: Cmd is not permitted: .*root"):
        card_addresses([0])


def test_with_neither_file_nor_tool_nothing_is_made_up(tool):
    with pytest.raises(UserError, match=r"neither .* nor hccn_tool"):
        card_addresses([0])


def test_a_name_that_stands_for_no_address_of_use_asks_for_one(monkeypatch):
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "192.0.2.10")
    assert server_address() == "192.0.2.10"
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.1.1")
    with pytest.raises(UserError, match=r"stands for 127\.0\.1\.1: .*--server-ip"):
        server_address()

    def unknown(name):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "gethostbyname", unknown)
    with pytest.raises(UserError, match=r"has no address \(Name or service not known\): .*--server-ip"):
        server_address()
