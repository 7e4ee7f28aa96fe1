"""Progress and lines on the terminal."""

from __future__ import annotations

import pytest

from ms_medqa.config import console


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when told to."""
    import tqdm.std

    now = [1000.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: now[0])
    return now


def test_short_work_shows_no_bar(capsys):
    assert list(console.progress(range(5), desc="reading", unit="record")) == [0, 1, 2, 3, 4]
    assert capsys.readouterr().err == ""


def test_long_work_in_a_log_file_writes_whole_lines_at_intervals(capsys, clock):
    for _ in console.progress(range(60), desc="reading", unit="record"):
        clock[0] += 1
    text = capsys.readouterr().err
    lines = text.splitlines()
    assert "\r" not in text
    assert 4 <= len(lines) <= 8
    assert all(line.startswith("reading:") for line in lines)
    # Half-way through, half of the time is left.
    half = next(line for line in lines if " 50%" in line)
    assert "30/60 [00:30<00:30" in half
    assert "60/60" in lines[-1]


def test_a_bar_inside_another_leaves_no_cursor_moves_in_a_log(capsys, clock):
    for _ in console.progress(range(3), desc="training", unit="step"):
        clock[0] += 20
        for _ in console.progress(range(3), desc="validation", unit="batch"):
            clock[0] += 20
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith(("training:", "validation:")) for line in lines)
    assert {line.split(":")[0] for line in lines} == {"training", "validation"}


def test_other_ranks_are_silent(capsys, clock, monkeypatch):
    monkeypatch.setenv("RANK_ID", "1")
    console.say("hello")
    for _ in console.progress(range(60), desc="reading", unit="record"):
        clock[0] += 1
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("rank", [None, "0"])
def test_rank_0_speaks(capsys, monkeypatch, rank):
    monkeypatch.delenv("RANK_ID", raising=False)
    if rank is not None:
        monkeypatch.setenv("RANK_ID", rank)
    console.say("高血压")
    assert capsys.readouterr().out == "高血压\n"
