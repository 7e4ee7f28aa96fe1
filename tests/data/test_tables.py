"""Workbooks and Parquet files give the records of their rows."""

from __future__ import annotations

import datetime
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.config import UserError
from ms_medqa.config.schema import DataSection
from ms_medqa.data.readers import Reading, read_records


def read(path: Path) -> tuple[str, list[Reading]]:
    layout, readings = read_records(path, DataSection(), path.name)
    return layout, list(readings)


def workbook(path: Path, **sheets: list[list[Any]]) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def table(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def test_every_sheet_with_a_header_is_read(tmp_path: Path) -> None:
    path = workbook(
        tmp_path / "a.xlsx",
        内科=[
            ["常见问题"],
            ["question", "answer", None, "编号"],
            ["什么是\n高血压？", "血压升高。", None, 1],
            [],
            ["q2", 5],
        ],
        空=[],
        外科=[["问题", "答案"], ["骨折怎么办？", "固定。"], ["多", "一", "格"]],
    )
    layout, readings = read(path)
    assert layout == "XLSX (3 sheets)"
    assert [r.error and r.error[0] for r in readings] == [None, None, None, "broken_record"]
    assert [r.record.id for r in readings[:3]] == ["a-内科-3", "a-内科-5", "a-外科-2"]
    assert [r.raw.line for r in readings] == [3, 5, 2, 3]
    assert (readings[0].record.question, readings[1].record.answer) == ("什么是\n高血压？", "5")
    assert readings[3].error[1] == "3 cells, but the header has 2"


def test_cells_can_be_written_down_as_json(tmp_path: Path) -> None:
    day = datetime.datetime(2024, 5, 1, 8, 30)
    path = workbook(tmp_path / "a.xlsx", s=[["question", "answer", "day"], ["q", 1.5, day]])
    (reading,) = read(path)[1]
    assert reading.record.id == "a-2"
    assert json.loads(json.dumps(reading.raw.value)) == {"question": "q", "answer": 1.5, "day": "2024-05-01T08:30:00"}


def test_a_workbook_under_another_name_and_packed(tmp_path: Path) -> None:
    path = workbook(tmp_path / "a.xlsx", s=[["question", "answer"], ["q", "a"]])
    content = path.read_bytes()
    (tmp_path / "b.csv").write_bytes(content)
    (tmp_path / "c.xlsx.gz").write_bytes(gzip.compress(content))
    assert len(read(tmp_path / "b.csv")[1]) == 1
    assert read(tmp_path / "c.xlsx.gz")[1][0].record.id == "c-2"
    (tmp_path / "d.xlsx").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="not a whole XLSX file"):
        read(tmp_path / "d.xlsx")
    workbook(path, s=[["question", "Question"], ["q", "a"]])
    with pytest.raises(UserError, match="row 1: the header names 'question' 2 times"):
        read(path)


def test_parquet_is_read_in_batches(tmp_path: Path) -> None:
    count = 3000
    path = table(
        tmp_path / "a.parquet",
        {
            "question": [f"q{i}" for i in range(count)],
            "answer": [None if i == 1 else "a" for i in range(count)],
            "history": [[["x", "y"]] if i == 0 else [] for i in range(count)],
            "day": [datetime.date(2024, 5, 1)] * count,
            "picture": [b"\xff\xd8"] * count,
        },
        row_group_size=700,
    )
    layout, readings = read(path)
    assert layout == "Parquet"
    assert [r.record.id for r in readings] == [f"a-{i}" for i in range(1, count + 1)]
    assert readings[0].record.history == (("x", "y"),)
    assert readings[1].record.answer == ""
    assert readings[2].raw.value["day"] == "2024-05-01"
    assert readings[2].raw.value["picture"] == "<2 bytes>"
    assert readings[-1].raw.position == path.stat().st_size
    (tmp_path / "b.parquet.gz").write_bytes(gzip.compress(path.read_bytes()))
    assert len(read(tmp_path / "b.parquet.gz")[1]) == count


def test_parquet_text_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    import pyarrow

    wrong = pyarrow.array([b"q0", "高血压".encode("gbk"), b"q2"]).view(pyarrow.string())
    readings = read(table(tmp_path / "a.parquet", {"question": wrong, "answer": ["a", "b", "c"]}))[1]
    assert [r.error and r.error[0] for r in readings] == [None, "bad_encoding", None]
    assert "column 'question'" in readings[1].error[1]
    assert readings[1].raw.value["answer"] == "b"


def test_a_parquet_file_with_damaged_rows_gives_the_others(tmp_path: Path) -> None:
    columns = {"question": [f"q{i}" for i in range(2000)], "answer": [f"answer {i}" for i in range(2000)]}
    path = table(tmp_path / "a.parquet", columns, row_group_size=1000, compression="zstd", use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[100:300] = bytes(200)
    path.write_bytes(content)
    readings = read(path)[1]
    assert readings[0].error[0] == "broken_record"
    assert "1,000 rows from here cannot be read" in readings[0].error[1]
    assert [r.record.question for r in readings[1:]] == columns["question"][1000:]
