"""What may be named as input: files, folders and patterns, each with a weight."""

from __future__ import annotations

from pathlib import Path

import pytest

from ms_medqa.config import UserError
from ms_medqa.data.inputs import expand_inputs, stem_of, suffix_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    names = ["b.json", "a.jsonl.gz", "sub/a.csv", "sub/deep/c.xlsx", ".hidden.json", ".git/x.json", "~$c.xlsx",
             "LICENSE", "README.md", "notes.md", "picture.png"]  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "empty").mkdir()
    return tmp_path


def names(*inputs: str | Path) -> list[str]:
    return [file.name for file in expand_inputs(inputs)]


def test_a_folder_is_read_with_all_in_it(folder: Path) -> None:
    assert names(folder) == ["a.jsonl.gz", "b.json", "notes.md", "a.csv", "c.xlsx"]
    # A file that is named is read whatever it is called.
    assert names(folder / "README.md", folder / "sub") == ["README.md", "a.csv", "c.xlsx"]


def test_patterns(folder: Path) -> None:
    assert names(f"{folder}/*.json") == ["b.json"]
    assert names(f"{folder}/**/*.csv", f"{folder}/s*b/d*") == ["a.csv", "c.xlsx"]
    assert names(f"{folder}/*") == ["README.md", "a.jsonl.gz", "b.json", "notes.md", "a.csv", "c.xlsx"]
    (folder / "c[1].json").write_text("x")
    assert names(f"{folder}/c[1].json") == ["c[1].json"]


def test_weights(folder: Path) -> None:
    found = expand_inputs([f"{folder}/b.json@0.5", f"{folder}/sub@2", folder / "notes.md"])
    assert [(file.path.name, file.weight) for file in found] == [
        ("b.json", 0.5),
        ("a.csv", 2.0),
        ("c.xlsx", 2.0),
        ("notes.md", 1.0),
    ]
    (folder / "b.json@0.5").write_text("x")
    assert expand_inputs([f"{folder}/b.json@0.5"])[0].path == folder / "b.json@0.5"


def test_short_names_tell_files_apart(folder: Path) -> None:
    (folder / "sub/b.json").write_text("x")
    (folder / "sub/deep/b.json").write_text("x")
    assert names(f"{folder}/**/b.json") == [f"{folder.name}/b.json", "sub/b.json", "deep/b.json"]


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ([], "no input file"),
        (["*.parquet"], "nothing matches this pattern"),
        (["*.png"], "no file of a known kind matches this pattern: known are .json"),
        (["empty"], "no file of a known kind in this folder"),
        (["b.json@0"], "a weight must be above 0"),
        (["b.json@nan"], "a weight must be above 0"),
        (["b.json@much"], "the weight 'much' is no number"),
        (["b.json", "*.json"], "named 2 times"),
    ],
)
def test_faults(folder: Path, inputs: list[str], said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=said.replace("*", r"\*")):
        expand_inputs(inputs)


def test_an_absent_file_is_left_to_the_reader(folder: Path) -> None:
    assert expand_inputs([folder / "none.json"])[0].path == folder / "none.json"


def test_kinds_by_name() -> None:
    assert (suffix_of(Path("x/A.JSONL.gz")), stem_of(Path("x/A.JSONL.gz"))) == (".jsonl", "A")
    assert (suffix_of(Path("a.b.csv")), stem_of(Path("a.b.csv"))) == (".csv", "a.b")
