"""Graphs that one answer leaves for the next process: the answers are those without, whatever lies in the folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from ms_medqa.backend.few_rows_library import library

ROOT = Path(__file__).resolve().parents[2]
# Longer than what is read as part of a step.
QUESTION = "头痛怎么办？" * 14


def ask(graphs: Path | str) -> str:
    """The answer of a process of its own, which must have nothing to say about graphs."""
    command = [sys.executable, "-m", "ms_medqa.cli.main", "ask", "--model", str(tiny.folder()), "--greedy"]
    levels = ("GLOG_v", "MS_SUBMODULE_LOG_v")
    environment = {name: value for name, value in os.environ.items() if name not in levels}
    done = subprocess.run(
        [*command, "--max-new-tokens", "6", QUESTION],
        env=environment | {"PYTHONPATH": str(ROOT), "MS_MEDQA_GRAPHS": str(graphs)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "graph" not in done.stderr
    assert "[ERROR]" not in done.stderr
    return done.stdout


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Bytes and time of each file."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder that one process has filled, and its answer."""
    folder = tmp_path_factory.mktemp("graphs")
    answer = ask(folder)
    return folder, answer


def test_a_second_process_compiles_nothing_and_answers_the_same(filled: tuple[Path, str], tmp_path: Path) -> None:
    folder, answer = filled
    copy = Path(shutil.copytree(folder, tmp_path / "graphs"))
    before = contents(copy)
    # Start, layer and head of a prompt; a step, which without the kernel is embedding, layers and head.
    assert len([name for name in before if name.endswith("entry.json")]) == (6 if library() is None else 4)
    assert ask(copy) == answer
    assert contents(copy) == before


def test_what_is_missing_is_compiled_and_all_else_is_taken(filled: tuple[Path, str], tmp_path: Path) -> None:
    """MindSpore by itself takes nothing more once it has found one graph missing."""
    folder, answer = filled
    copy = Path(shutil.copytree(folder, tmp_path / "graphs"))
    [start] = copy.rglob("PromptReader.begin-*")
    before = contents(copy)
    shutil.rmtree(start)
    assert ask(copy) == answer
    after = contents(copy)
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {
        name for name in after if name.startswith(str(start.relative_to(copy)))
    }


def test_damaged_graphs_are_compiled_anew(filled: tuple[Path, str], tmp_path: Path) -> None:
    folder, answer = filled
    copy = Path(shutil.copytree(folder, tmp_path / "graphs"))
    graphs = sorted(copy.rglob("*.mindir"))
    for graph in graphs[:3]:
        graph.chmod(0o600)
        graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
    for mark in sorted(copy.rglob("entry.json"))[3:]:
        mark.write_text("{", encoding="utf-8")
    assert ask(copy) == answer
    assert {name: data for name, (data, _) in contents(copy).items() if name.endswith("json")}.keys() == {
        name for name in contents(folder) if name.endswith("json")
    }
    assert all(graph.stat().st_size == (folder / graph.relative_to(copy)).stat().st_size for graph in graphs)


def test_no_folder_can_be_made_there(filled: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert ask(tmp_path / "file" / "graphs") == filled[1]


def test_off_keeps_none(filled: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert ask("off") == filled[1]
    assert not (tmp_path / "cache").exists()
