"""What an evaluation reads: files of all kinds, groups of exam questions, and records that are none."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.config import UserError
from ms_medqa.config.files import sha256_file
from ms_medqa.config.schema import Columns, DataSection
from ms_medqa.data import manifest
from ms_medqa.data.example import Example
from ms_medqa.evaluation.items import Items, read_items

EXAMPLES = [
    Example("a", "头痛怎么办", "多休息，多喝水。", key="多休息"),
    Example("b", "糖尿病患者可以吃水果吗？", "可以，但要控制量。", context="水果含糖。"),
    Example("c", "还要注意什么", "规律运动。", history=(("高血压怎么办", "低盐饮食。"),), key="运动"),
]
OPTIONS = {"opa": "休息", "opb": "补铁", "opc": "手术", "opd": "输血"}


def write(path: Path, records: Iterable[Any]) -> Path:
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")
    return path


def records(items: Items) -> list[Any]:
    return [item.record for item in items.items]


def test_a_part_and_its_folder_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = write(tmp_path / "test.jsonl", (example.to_dict() for example in EXAMPLES))
    for path in (file, tmp_path):
        items = read_items(path)
        assert not items.skipped
        assert [one.to_dict() | {"source": ""} for one in records(items)] == [
            one.to_dict() | {"source": ""} for one in EXAMPLES
        ]
        assert (items.read, items.sha256) == (3, sha256_file(file))


def test_of_a_file_that_names_its_parts_the_test_part_is_asked(tmp_path: Path) -> None:
    parts = ["train", "test", None, "val", "test"]
    asked = [{"id": f"{n}", "question": f"第{n}天？", "answer": "休息"} for n in range(len(parts))]
    rows = [row | ({"split": part} if part else {}) for row, part in zip(asked, parts, strict=True)]
    items = read_items(write(tmp_path / "all.jsonl", rows))
    # Behind the others, so that the first two records are for testing.
    assert [(item.id, item.place) for item in items.items] == [("1", 0), ("2", 1), ("4", 2)]
    assert [(one.id, one.place, one.reason) for one in items.skipped] == [
        ("0", 3, "the record belongs to the part train"),
        ("3", 4, "the record belongs to the part val"),
    ]
    # Of a file without a test part all is asked.
    assert len(read_items(write(tmp_path / "train.jsonl", [row | {"split": "train"} for row in asked])).items) == 5


def test_what_is_no_record_is_told_with_its_line(tmp_path: Path) -> None:
    raw = tmp_path / "raw.json"
    raw.write_text('{"instruction": "头痛", "input": "", "output": "休息"}\n{"broken\n{"text": "x"}\n', "utf-8")
    items = read_items(raw)
    assert [(one.id, one.record.to_dict().get("text")) for one in items.items] == [("raw-1", None), ("raw-3", "x")]
    assert [(one.id, one.reason.split(":")[0]) for one in items.skipped] == [("raw-2", "line 2")]
    assert items.read == 3
    (tmp_path / "other.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"unknown columns: a, b"):
        read_items(tmp_path / "other.csv")


def test_raw_files_are_understood_as_convert_understands_them(tmp_path: Path) -> None:
    # A 0 far behind tells that options are counted from 0.
    rows = [{"question": f"贫血 {i} 怎么办？", **OPTIONS, "cop": 0 if i == 9 else 1} for i in range(10)]
    assert {one.label for one in records(read_items(write(tmp_path / "raw.jsonl", rows)))[:9]} == {"B"}
    table = tmp_path / "table.csv"
    table.write_text("frage,antwort\n头痛怎么办？,休息 ½ 天\n", encoding="utf-8")
    columns = Columns(question="frage", answer="antwort")
    [example] = records(read_items(table, DataSection(columns=columns, nfkc=True)))
    assert example.answer == "休息 1⁄2 天"
    # Those names are the raw file's; what was converted from it has its own.
    for name in ("test.jsonl", manifest.FILE_NAME):
        (tmp_path / name).write_text(json.dumps(example.to_dict(), ensure_ascii=False), encoding="utf-8")
    assert records(read_items(tmp_path, DataSection(columns=columns, shape="alpaca")))[0].question == "头痛怎么办?"


def test_subjects_are_found_or_named_or_are_those_of_files(tmp_path: Path) -> None:
    question = {"question": "贫血怎么办？", **OPTIONS, "cop": 2}
    rows = [question | {"subject_name": "内科学", "year": 2020}, question | {"year": 2021}, question | {"year": " "}]
    file = write(tmp_path / "exam.jsonl", rows)
    assert [item.group for item in read_items(file).items] == ["内科学", None, None]
    assert [item.group for item in read_items(file, group_by="year").items] == ["2020", "2021", None]
    with pytest.raises(UserError, match=r"eval.group_by = 'topic'"):
        read_items(file, group_by="topic")
    folder = tmp_path / "ceval"
    folder.mkdir()
    for name in ("physician_val", "basic_medicine_val"):
        header = "id,question,A,B,C,D,answer\n"
        (folder / f"{name}.csv").write_text(f"{header}0,贫血怎么办？,休息,补铁,手术,输血,B\n", encoding="utf-8")
    assert [item.group for item in read_items(folder).items] == ["basic_medicine", "physician"]


def test_no_file_and_no_record(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="absent"):
        read_items(tmp_path / "absent.jsonl")
    (tmp_path / "broken.jsonl").write_text('{"broken', encoding="utf-8")
    with pytest.raises(UserError, match=r"broken.jsonl"):
        read_items(tmp_path / "broken.jsonl")
