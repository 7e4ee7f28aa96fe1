"""`ms-medqa convert` of many files: what becomes of those of no use, and how many are named."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from conversions import Convert, lines, qa, read, write


def test_one_of_several_files_without_answers_is_counted_and_said(convert: Convert, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "a.jsonl", [{"question": f"第 {i} 个问题是什么", "chapter": "x"} for i in range(1200)])
    write(folder / "b.jsonl", [qa(i) for i in range(5)])
    said = convert(folder)
    assert "a.jsonl: all 1,200 records are rejected (unknown columns: question, chapter)" in said
    files = read(convert.output / "report.json")["files"]
    assert [(file["read"], file["kept"], file["rejected"]) for file in files] == [
        (1200, 0, {"unknown_columns": 1200}),
        (5, 5, {}),
    ]
    assert len(lines(convert.output / "rejected.jsonl")) == 1200
    write(folder / "b.jsonl", [{"a": "b"}])
    assert "a.jsonl line 1: unknown columns: question, chapter" in convert(folder, status=2)


def test_of_many_files_the_first_are_named(convert: Convert, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(30):
        write(folder / f"{i:02}.jsonl", [qa(i)])
        write(folder / f"{i + 50}.jsonl", [{"question": "第几个问题是什么"}])
    said = convert(folder)
    assert said.count("JSON Lines") == 20
    assert "… and 40 more files: 40 records" in said
    assert said.count("records are rejected (unknown columns: question)") == 5
    assert "… and 25 more files of no use" in said
    assert len(read(convert.output / "report.json")["files"]) == 60


def test_a_file_without_records_among_others_is_said_and_no_more(convert: Convert, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    contents = {
        "a.json": "[]",
        "b.csv": "question,answer\n",
        "c.xml": "<Document><Focus>Anemia</Focus><Annotations><UMLS/></Annotations><QAPairs>\n</QAPairs></Document>",
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
        assert f"error: no record in {folder / name}" in convert(folder / name, status=2)
    said = convert(folder, status=2)
    assert f"no record in {folder / 'a.json'}, {folder / 'b.csv'}, {folder / 'c.xml'}" in said
    codes = write(tmp_path / "codes.jsonl", [{"code": "D50"}])
    assert "unknown columns: code" in convert(folder, codes, status=2)

    write(folder / "d.jsonl", [qa(i) for i in range(10)])
    said = convert(folder)
    assert all(f"warning: {folder / name}: no record in it" in said for name in contents)
    assert [file["read"] for file in read(convert.output / "report.json")["files"]] == [0, 0, 0, 10]


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a.jsonl.gz"])
def test_an_empty_file_stops_nothing_unless_it_is_the_only_one(convert: Convert, tmp_path: Path, name: str) -> None:
    empty, whole = tmp_path / name, write(tmp_path / "whole.jsonl", [qa(i) for i in range(10)])
    empty.write_bytes({"a.json": b"", "a.csv": b"\xef\xbb\xbf\n", "a.jsonl.gz": gzip.compress(b"")}[name])
    assert f"error: {empty}: the file is empty" in convert(empty, status=2)
    assert f"warning: {empty}: no record in it" in convert(empty, whole)
    assert [file["read"] for file in read(convert.output / "report.json")["files"]] == [0, 10]
    other = write(tmp_path / "other.jsonl", [])
    assert f"no record in {empty}, {other}" in convert(empty, other, status=2)


def test_an_error_names_few_of_many_files(convert: Convert, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(30):
        (folder / f"{i:02}.json").write_text("[]")
    said = convert(folder, status=2)
    assert f"{folder / '04.json'}, 25 more files" in said
    assert str(folder / "05.json") not in said.splitlines()[-1]
