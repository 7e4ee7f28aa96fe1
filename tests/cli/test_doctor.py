"""`ms-medqa doctor`: table, findings, exit status."""

from __future__ import annotations

import pytest

from ms_medqa.cli.main import main
from ms_medqa.launch import environment
from ms_medqa.launch.environment import Facts, gather


@pytest.fixture
def facts_are(monkeypatch):
    def install(facts):
        monkeypatch.setattr(environment, "gather", lambda: facts)

    return install


def test_this_machine_is_sound(capsys):
    assert main(["doctor"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "graph mode" in out
    assert out.endswith("nothing is broken\n")


def test_something_broken_is_told_with_its_fix_and_fails(capsys, facts_are):
    facts_are(Facts(versions={"mindspore": "2.10.0", "numpy": "2.1.0"}, path_python="python"))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "broken: NumPy 2.1.0" in out
    assert "fix: pip install 'numpy<2'" in out
    assert out.endswith("1 broken: see the fix below each line\n")


def test_a_warning_does_not_fail(capsys, facts_are):
    facts_are(Facts(versions={"mindspore": "2.10.0", "numpy": "1.26.4"}, encoding="ascii", path_python="python"))
    assert main(["doctor"]) == 0
    assert "warning: standard output is ascii" in capsys.readouterr().out


def test_the_cards_table_of_npu_smi_is_shown(capsys, facts_are):
    facts_are(Facts(npu_info="| 0  910B | OK |\n", path_python="python"))
    main(["doctor"])
    assert "| 0  910B | OK |" in capsys.readouterr().out


def test_a_rank_left_over_in_the_shell_does_not_silence_it(capsys, facts_are, monkeypatch):
    monkeypatch.setenv("RANK_ID", "3")
    facts_are(Facts(environment={"RANK_ID": "3"}, path_python="python"))
    assert main(["doctor"]) == 0
    assert "fix: unset RANK_ID" in capsys.readouterr().out


def test_no_file_is_left_in_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    gather()
    assert list(tmp_path.iterdir()) == []
