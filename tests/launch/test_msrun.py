"""`run_distribute_train.sh DEVICE_NUM [CONFIG] [RANK_TABLE_FILE] [key=value…]`: what becomes of the arguments."""

from __future__ import annotations

import os

import pytest
from tables import EIGHT, SIXTEEN

from ms_medqa.launch import msrun
from ms_medqa.launch.msrun import WORKER, main
from ms_medqa.launch.nodes import Nodes


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What would have been started."""
    calls = []
    monkeypatch.chdir(tmp_path)
    for name in ("DEVICE_TARGET", "NODE_NUM", "CLUSTER_TIME_OUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(msrun, "run_workers", lambda *arguments: calls.append(arguments) or 0)
    monkeypatch.setattr(os, "execv", lambda path, arguments: calls.append(arguments))
    return calls


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "my config.yaml"
    path.write_text("output_dir: runs/a\n")
    return path


def test_config_overrides_and_options_reach_the_train_command(started, config, tmp_path):
    assert main(["2", str(config), "train.epochs=1", "--resume", "output_dir=runs/b c"]) == 0
    script, command, device_num, log_dir, rank_table, nodes = started[0]
    assert script == WORKER
    assert command == ["train", str(config), "--resume", "train.epochs=1", "output_dir=runs/b c"]
    assert device_num == 2
    assert log_dir == tmp_path / "runs" / "b c" / "msrun_log"
    assert rank_table is None
    assert nodes == Nodes()


def test_an_override_may_stand_in_place_of_the_config(started, monkeypatch, config):
    monkeypatch.setattr(msrun, "DEFAULT_CONFIG", config)
    assert main(["4", "train.epochs=1"]) == 0
    assert started[0][1] == ["train", str(config), "train.epochs=1"]


def test_the_rank_table_is_checked_and_passed_on(started, config, tmp_path, monkeypatch, capsys):
    assert main(["8", str(config), str(EIGHT)]) == 0
    assert started[0][4] == EIGHT
    assert main(["4", str(config), str(EIGHT)]) == 2
    assert "8 cards, but DEVICE_NUM is 4" in capsys.readouterr().err
    (tmp_path / "t.json").write_text('{"status": "initializing"}')
    monkeypatch.setenv("CLUSTER_TIME_OUT", "0")
    assert main(["8", str(config), "t.json"]) == 2
    assert "status: still 'initializing' after 0 s" in capsys.readouterr().err
    assert len(started) == 1


def _second_host(monkeypatch, **changes):
    variables = {"NODE_NUM": "2", "NODE_RANK": "1", "MASTER_ADDR": "192.0.2.10", "MASTER_PORT": "8200"} | changes
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_the_environment_makes_this_host_one_of_several(started, config, monkeypatch, capsys):
    _second_host(monkeypatch)
    assert main(["16", str(config), str(SIXTEEN)]) == 0
    assert started[0][2] == 16
    assert started[0][5] == Nodes(2, 1, "192.0.2.10", 8200)
    assert "starting 8 workers of 16, this is host 1 of 2, logs in " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "arguments", "part"),
    [
        ({}, ["9"], "DEVICE_NUM 9: it cannot be divided by NODE_NUM=2"),
        ({}, ["1"], "DEVICE_NUM 1: it cannot be divided by NODE_NUM=2"),
        ({"NODE_RANK": "2"}, ["16"], "NODE_RANK=2"),
        ({"NODE_RANK": "0"}, ["16"], "MASTER_ADDR=192.0.2.10 is no address of this host"),
        ({"MASTER_ADDR": ""}, ["16"], "MASTER_ADDR is not set"),
        ({}, ["8", "my config.yaml", str(EIGHT)], "server_list: it has 1 servers, but NODE_NUM is 2"),
        ({"NODE_NUM": "1"}, ["16", "my config.yaml", str(SIXTEEN)], "it has 2 servers, but NODE_NUM is 1"),
    ],
)
def test_hosts_that_do_not_fit_together_start_nothing(started, config, monkeypatch, capsys, changes, arguments, part):
    _second_host(monkeypatch, **changes)
    assert main([*arguments[:1], *(arguments[1:] or [str(config)])]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert part in err
    assert started == []


def test_device_target_of_the_environment_becomes_an_override(started, config, monkeypatch, capsys):
    monkeypatch.setenv("DEVICE_TARGET", "CPU")
    assert main(["2", str(config)]) == 0
    assert started[0][1][-1] == "runtime.device=CPU"
    assert main(["2", str(config), "runtime.device=Ascend"]) == 0
    assert started[1][1][-1] == "runtime.device=Ascend"
    monkeypatch.setenv("DEVICE_TARGET", "TPU")
    assert main(["2", str(config)]) == 2
    assert "CPU, GPU, Ascend" in capsys.readouterr().err


def test_one_device_needs_no_msrun(started, config):
    main(["1", str(config), "train.epochs=1"])
    assert started[0][1:] == [str(WORKER), "train", str(config), "train.epochs=1"]


def test_an_output_folder_that_cannot_be_made_is_one_line(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(["2", str(config), "output_dir=file/below", "runtime.device=CPU"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("run_distribute_train.sh: error: ")
    assert "file/below" in err
    assert main(["2", str(config), "output_dir=file/below", "runtime.device=CPU", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["0"], "DEVICE_NUM '0'"),
        (["all"], "DEVICE_NUM 'all'"),
        (["train.epochs=1"], "usage:"),
        (["2", "none.yaml"], "none.yaml: no such file"),
        (["2", "my config.yaml", "train.epoch=1"], "train.epochs"),
        (["2", "my config.yaml", "none.json"], "none.json: no such file"),
        (["2", "my config.yaml", "none.json", "more"], "usage:"),
    ],
)
def test_a_users_fault_is_one_line_and_starts_nothing(started, config, capsys, arguments, part):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("run_distribute_train.sh: error: ")
    assert part in err
    assert started == []
