"""CSV as people write it: any delimiter and quoting, and a broken row costs only itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from ms_medqa.config.schema import Columns, DataSection
from ms_medqa.data.readers import Reading, read_records


def read(path: Path, content: str) -> tuple[str, list[Reading]]:
    path.write_bytes(content.encode())
    layout, readings = read_records(path, DataSection(), path.name)
    return layout, list(readings)


def pairs(readings: list[Reading]) -> list[tuple[str, str]]:
    assert [reading.error for reading in readings] == [None] * len(readings)
    return [(reading.record.question, reading.record.answer) for reading in readings]


@pytest.mark.parametrize(("mark", "layout"), [(",", "CSV"), ("\t", "TSV"), (";", "CSV (semicolons)"),
                                              ("|", "CSV (bars)"), (":", "CSV (colons)")])  # fmt: skip
@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_delimiters(tmp_path: Path, mark: str, layout: str, name: str) -> None:
    rows = ["question,answer,note", "什么是高血压？,血压持续升高。,", '"头痛,怎么办？","休息，\n喝水",x'] * 1
    text = "\r\n".join(row.replace(",", mark) for row in rows)
    found, readings = read(tmp_path / name, text)
    assert found == layout
    assert pairs(readings) == [("什么是高血压？", "血压持续升高。"), (f"头痛{mark}怎么办？", "休息，\n喝水")]


def test_marks_inside_texts_do_not_mislead(tmp_path: Path) -> None:
    rows = [f"{i};a, b, c: d | e, f\tg" for i in range(30)]
    layout, readings = read(tmp_path / "a.csv", "question;answer\n" + "\n".join(rows))
    assert layout == "CSV (semicolons)"
    assert pairs(readings)[7] == ("7", "a, b, c: d | e, f\tg")


def test_one_column_needs_no_quotes(tmp_path: Path) -> None:
    layout, readings = read(tmp_path / "a.csv", "text\nHands, feet, and head.\nRest: drink, sleep.\n")
    assert layout == "CSV (one column)"
    assert [reading.record.text for reading in readings] == ["Hands, feet, and head.", "Rest: drink, sleep."]


def test_single_quotes_and_backslashes(tmp_path: Path) -> None:
    single = "'question','answer'\n'What helps, at once?','Rest, it''s simple.'\n'Is it flu?','Perhaps.'\n"
    assert pairs(read(tmp_path / "a.csv", single)[1])[0] == ("What helps, at once?", "Rest, it's simple.")
    apostrophes = "question,answer\nWhat's flu?,It's a virus.\n'Tis what?,Don't know\n"
    assert pairs(read(tmp_path / "a.csv", apostrophes)[1])[1] == ("'Tis what?", "Don't know")
    escaped = 'question,answer\n"What is \\"flu\\", doctor?","A virus."\n"q2","a"\n'
    assert pairs(read(tmp_path / "a.csv", escaped)[1])[0] == ('What is "flu", doctor?', "A virus.")


def test_the_line_by_which_excel_names_the_delimiter(tmp_path: Path) -> None:
    layout, readings = read(tmp_path / "a.csv", "sep=;\r\nquestion;answer\r\nq1, or q2;a\r\n")
    assert layout == "CSV (semicolons)"
    assert pairs(readings) == [("q1, or q2", "a")]
    assert readings[0].raw.line == 3


def test_lines_of_old_macs(tmp_path: Path) -> None:
    assert pairs(read(tmp_path / "a.csv", "question,answer\rq1,a\rq2,b")[1]) == [("q1", "a"), ("q2", "b")]


def test_an_unclosed_quote_costs_its_record(tmp_path: Path) -> None:
    rows = [f"q{i},a" for i in range(6)]
    rows[2] = 'q2,"a'
    readings = read(tmp_path / "a.csv", "question,answer\n" + "\n".join(rows))[1]
    assert [r.record.question if r.record else None for r in readings] == ["q0", "q1", None, "q3", "q4", "q5"]
    assert [r.raw.line for r in readings] == list(range(2, 8))
    assert readings[2].raw.value == rows[2]
    assert readings[2].error[1].startswith("a quote that opens here is never closed")


def test_an_unclosed_quote_before_mere_text_takes_the_text(tmp_path: Path) -> None:
    text = 'question,answer\nq0,a\nq1,"a text of\nmany lines\nthat ends with the file\n'
    readings = read(tmp_path / "a.csv", text)[1]
    assert [r.error and r.error[0] for r in readings] == [None, "broken_record"]
    assert readings[1].raw.value.endswith("ends with the file")


def test_a_quote_that_closes_in_the_next_row_costs_its_record(tmp_path: Path) -> None:
    readings = read(tmp_path / "a.csv", 'question,answer\nq1,"a\nq2,"b"\nq3,c\n')[1]
    assert [r.record.question if r.record else None for r in readings] == [None, "q2", "q3"]


def test_the_shared_table_with_tabs(tmp_path: Path, shared_data: Path) -> None:
    for name, count in (("disease", 1586), ("disease_catalog", 238)):
        layout, readings = read_records(
            shared_data / f"icd10_zh/{name}.csv", DataSection(columns=Columns(question="x")), "x"
        )
        values = [reading.raw.value for reading in readings]
        assert layout == "TSV"
        assert len(values) == count
        assert len({tuple(value) for value in values}) == 1
