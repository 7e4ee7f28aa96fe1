"""A start by rank table: the table is checked before a process reads a model or waits for the others."""

from __future__ import annotations

import pytest
from tables import EIGHT

from ms_medqa.cli.main import main
from ms_medqa.config import UserError
from ms_medqa.launch.rank_table_start import check_rank_table_start

_START = {"RANK_TABLE_FILE": str(EIGHT), "RANK_ID": "3", "DEVICE_ID": "3", "RANK_SIZE": "8"}


def test_a_table_of_as_many_cards_as_processes_is_right():
    check_rank_table_start(_START)


def test_a_table_of_other_cards_is_refused():
    with pytest.raises(UserError, match="it has 8 cards, but DEVICE_NUM is 4"):
        check_rank_table_start(_START | {"RANK_SIZE": "4"})


@pytest.mark.parametrize("changes", [{"MS_ROLE": "MS_WORKER"}, {"RANK_SIZE": ""}, {"RANK_SIZE": "1"}])
def test_other_processes_are_left_alone(changes):
    check_rank_table_start(_START | {"RANK_TABLE_FILE": "none.json"} | changes)


def test_a_table_that_is_not_complete_is_waited_for_in_bounds(tmp_path):
    path = tmp_path / "hccl.json"
    path.write_text('{"status": "initializing"}')
    with pytest.raises(UserError, match="still 'initializing' after 0 s"):
        check_rank_table_start(_START | {"RANK_TABLE_FILE": str(path), "CLUSTER_TIME_OUT": "0"})


def test_train_checks_the_table_and_says_where_tables_work(tmp_path, monkeypatch, capsys):
    for name, value in (_START | {"RANK_SIZE": "4"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MS_ROLE", raising=False)
    config = tmp_path / "empty.yaml"
    config.write_text("")
    assert main(["train", str(config)]) == 2
    assert "server_list: it has 8 cards" in capsys.readouterr().err
    monkeypatch.setenv("RANK_SIZE", "8")
    assert main(["train", str(config), "--dry-run", "model.path=medqa-tiny", "runtime.device=CPU"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "rank tables work on an Ascend only, this is the CPU" in err
