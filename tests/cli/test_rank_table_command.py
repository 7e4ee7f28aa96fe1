"""`ms-medqa rank-table`: make, merge and check rank tables."""

from __future__ import annotations

import json

import pytest

from ms_medqa.cli.main import main


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "hccn.conf").write_text("".join(f"address_{n}=198.51.100.{n + 1}\n" for n in range(8)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _make(*arguments):
    return main(["rank-table", "--hccn-conf", "hccn.conf", "--server-ip", "192.0.2.10", *arguments])


def test_a_table_gets_the_known_name_and_its_ranks_are_told(folder, capsys):
    assert _make("--device-num", "8") == 0
    assert (folder / "hccl_8p_01234567_192.0.2.10.json").is_file()
    assert "written\n  192.0.2.10: ranks 0 to 7\n" in capsys.readouterr().out
    assert _make("--device-num", "[4,8)", "--output", "tables/") == 0
    assert (folder / "tables" / "hccl_4p_4567_192.0.2.10.json").is_file()


def test_what_becomes_of_a_file_that_is_there_is_told(capsys):
    for cards, what in (("2", "written"), ("2", "unchanged"), ("1", "replaced, something else was in it")):
        assert _make("--device-num", cards, "--output", "a.json") == 0
        assert f"a.json: {what}\n" in capsys.readouterr().out


def test_a_table_with_a_fault_is_not_written(folder, capsys):
    (folder / "hccn.conf").write_text("address_0=198.51.100.1\naddress_1=198.51.100.1\n")
    assert _make("--device-num", "2") == 2
    assert "device_ip: '198.51.100.1' is also that of" in capsys.readouterr().err
    assert [path.name for path in folder.iterdir()] == ["hccn.conf"]


def test_tables_are_merged(folder, capsys):
    assert _make("--device-num", "2", "--output", "a.json") == 0
    table = json.loads((folder / "a.json").read_text().replace("192.0.2.10", "192.0.2.11").replace("198.51", "203.0"))
    (folder / "b.json").write_text(json.dumps(table))
    capsys.readouterr()
    assert main(["rank-table", "--merge", "b.json", "a.json"]) == 0
    assert (folder / "hccl_2s_4p.json").is_file()
    assert "  192.0.2.10: ranks 0 to 1\n  192.0.2.11: ranks 2 to 3\n" in capsys.readouterr().out


def test_a_check_says_what_a_table_is_or_what_is_wrong(folder, capsys):
    assert _make("--device-num", "2", "--output", "a.json") == 0
    assert main(["rank-table", "--check", "a.json", "--device-num", "2"]) == 0
    assert "version 1.0, 2 cards, nothing is wrong" in capsys.readouterr().out
    assert main(["rank-table", "--check", "a.json", "--device-num", "8"]) == 2
    assert "it has 2 cards, but DEVICE_NUM is 8" in capsys.readouterr().err
    (folder / "a.json").write_text('{"status": "initializing"}')
    assert main(["rank-table", "--check", "a.json", "--wait", "0"]) == 2
    assert "still 'initializing'" in capsys.readouterr().err


def test_version_1_2_asks_for_what_only_the_user_knows(folder, capsys):
    assert _make("--device-num", "2", "--version", "1.2") == 2
    assert "version 1.2 needs --super-pod-id" in capsys.readouterr().err
    assert _make("--device-num", "2", "--version", "1.2", "--super-pod-id", "0") == 2
    assert "version 1.2 needs --super-device-ids" in capsys.readouterr().err
    options = ["--super-pod-id", "0", "--super-device-ids", "6,7", "--host-ip", "192.0.2.10", "--output", "a.json"]
    assert _make("--device-num", "2", "--version", "1.2", *options) == 0
    assert json.loads((folder / "a.json").read_text())["version"] == "1.2"


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "--device-num N, --merge FILE FILE… or --check FILE"),
        (["--device-num", "9"], "no line address_8="),
        (["--device-num", "2", "--super-pod-id", "0"], "--version 1.0 does not take --super-pod-id"),
        (["--device-num", "2", "--check", "a.json", "--output", "b.json"], "--check does not take --server-ip"),
        (["--merge", "a.json", "--check", "b.json"], "not allowed with"),
    ],
)
def test_a_users_fault_is_one_line_and_writes_nothing(folder, capsys, arguments, part):
    assert _make(*arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert part in err
    assert [path.name for path in folder.iterdir()] == ["hccn.conf"]
