"""XML collections and plain text."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from ms_medqa.config.schema import DataSection
from ms_medqa.data.readers import Reading, read_records

PAIR = '<QAPair pid="{0}"><Question qid="0001-{0}" qtype="information">{1}</Question><Answer>{2}</Answer></QAPair>'
MEDQUAD = """<?xml version="1.0" encoding="UTF-8"?>
<Document id="0001" source="NHLBI" url="https://example.org/asthma">
<Focus>Asthma</Focus>
<FocusAnnotations><UMLS><CUIs><CUI>C0004096</CUI></CUIs></UMLS></FocusAnnotations>
<QAPairs>
{pairs}
</QAPairs>
</Document>
"""


def read(path: Path, content: str | bytes) -> tuple[str, list[Reading]]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    layout, readings = read_records(path, DataSection(), path.name)
    return layout, list(readings)


def medquad(*pairs: tuple[str, str]) -> str:
    return MEDQUAD.format(pairs="\n".join(PAIR.format(i, *pair) for i, pair in enumerate(pairs, start=1)))


def test_medquad(tmp_path: Path) -> None:
    content = medquad(("What is asthma?", "A disease of the\n airways &amp; lungs."), ("Who is at risk?", ""))
    for name, data in (("a.xml", content.encode()), ("a.xml.gz", gzip.compress(content.encode()))):
        layout, readings = read(tmp_path / name, data)
        assert layout.startswith("XML")
        assert [r.error for r in readings] == [None, None]
        assert readings[0].record.id == "0001-1"
        assert readings[0].record.answer == "A disease of the\n airways & lungs."
        assert readings[0].raw.value["Focus"] == "Asthma"
        assert readings[0].raw.value["qtype"] == "information"
        assert [r.raw.line for r in readings] == [6, 8]


def test_other_elements_that_repeat(tmp_path: Path) -> None:
    rows = "".join(f'<row Id="{i}" question="q{i}" answer="a &lt; b"/>' for i in range(3))
    readings = read(tmp_path / "a.xml", f"<data><rows>{rows}</rows></data>")[1]
    assert [r.record.id for r in readings] == ["0", "1", "2"]
    assert readings[0].record.answer == "a < b"
    text = "<set>" + "<doc><text><p>The heart.</p><p>It has <b>four</b> chambers.</p></text></doc>" * 2 + "</set>"
    assert read(tmp_path / "a.xml", text)[1][0].record.text == "The heart.\n\nIt has four chambers."
    one = "<faq><item><question>q</question><answer>a</answer><tag>x</tag><tag>y</tag></item></faq>"
    (reading,) = read(tmp_path / "a.xml", one)[1]
    assert reading.raw.value == {"question": "q", "answer": "a", "tag": ["x", "y"]}


def test_names_of_html_and_control_characters_are_no_fault(tmp_path: Path) -> None:
    readings = read(tmp_path / "a.xml", medquad(("q1", "38&nbsp;&deg;C"), ("q2", "a\x0bb")))[1]
    assert [r.raw.value["Answer"] for r in readings] == ["38\xa0°C", "a\ufffdb"]


def test_a_chinese_file_in_gbk_whatever_it_declares(tmp_path: Path) -> None:
    content = medquad(("什么是哮喘？", "气道的慢性炎症。")).replace("UTF-8", "GBK").encode("gbk")
    layout, readings = read(tmp_path / "a.xml", content)
    assert layout == "XML, GB18030"
    assert readings[0].record.question == "什么是哮喘？"


def test_a_wrong_byte_costs_its_record(tmp_path: Path) -> None:
    content = medquad(*((f"问题{i}", "回答X" if i == 2 else "回答") for i in range(5))).encode().replace(b"X", b"\xff")
    readings = read(tmp_path / "a.xml", content)[1]
    assert [r.error and r.error[0] for r in readings] == [None, None, "bad_encoding", None, None]


@pytest.mark.parametrize("end", [400, -30])
def test_a_file_that_is_cut_off_gives_what_is_whole(tmp_path: Path, end: int) -> None:
    content = medquad(*((f"q{i}", "a") for i in range(50)))
    readings = read(tmp_path / "a.xml", content[:end])[1]
    *good, last = readings
    assert [r.error for r in good] == [None] * len(good)
    assert len(good) == content[:end].count("</QAPair>")
    assert last.error[0] == "broken_record"
    assert last.error[1].startswith("XML, line ")


BOMB = """<!DOCTYPE d [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>
<d><r><question>&b;</question><answer>a</answer></r></d>"""
OUTSIDE = """<!DOCTYPE d [<!ENTITY x SYSTEM "{path}">]><d><r><question>q</question><answer>&x;</answer></r></d>"""


def test_entities_of_the_file_are_refused(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    for content in (BOMB, OUTSIDE.format(path=secret.as_uri())):
        (reading,) = read(tmp_path / "a.xml", content)[1]
        assert "declares entities, which are refused" in reading.error[1]
    deep = "<a>" * 100_000
    assert "nested too deeply" in read(tmp_path / "a.xml", deep)[1][-1].error[1]


def test_plain_text(tmp_path: Path) -> None:
    text = "The heart has\r\nfour chambers.\r\n\r\n \r\nThe lungs breathe.\r\n"
    layout, readings = read(tmp_path / "a.txt", text)
    assert layout == "plain text"
    assert [r.record.text for r in readings] == ["The heart has\nfour chambers.", "The lungs breathe."]
    assert [(r.raw.line, r.record.id) for r in readings] == [(1, "a-1"), (5, "a-2")]
    layout, (reading,) = read(tmp_path / "a.md", text)
    assert layout == "Markdown"
    assert reading.record.text.endswith("The lungs breathe.")
    assert read(tmp_path / "b.txt.gz", gzip.compress("心脏。\n\n肺。".encode("gbk")))[0] == "plain text, GB18030, gzip"


def test_a_text_without_blank_lines_is_cut_into_pieces(tmp_path: Path) -> None:
    line = "心脏有四个腔。\n"
    readings = read(tmp_path / "a.txt", line * 400_000)[1]
    assert 2 < len(readings) < 10
    assert sum(r.record.text.count("心脏") for r in readings) == 400_000


def test_a_medquad_document_without_pairs_holds_no_record(tmp_path: Path) -> None:
    document = "<Document><Focus>{}</Focus><FocusAnnotations><UMLS/></FocusAnnotations>{}</Document>"
    empty = document.format("Anemia", "<QAPairs>\n</QAPairs>")
    assert read(tmp_path / "empty.xml", empty.encode())[1] == []
    assert read(tmp_path / "empty.xml", empty.lower().encode())[1] == []
    pair = "<QAPair><Question>What is anemia?</Question><Answer>Too little hemoglobin in the blood.</Answer></QAPair>"
    whole = document.format("Anemia", f"<QAPairs>{pair}</QAPairs>")
    assert len(read(tmp_path / "whole.xml", whole.encode())[1]) == 1
    # Documents in one file, the first megabyte of which has no pair; tags of either case.
    for text in (f"<C>{empty * 12_000}{whole}</C>", f"<C>{empty * 12_000}{whole}</C>".lower()):
        (reading,) = read(tmp_path / "many.xml", text.encode())[1]
        assert reading.record.question.lower() == "what is anemia?"


@pytest.mark.parametrize("packed", [False, True])
def test_json_that_is_called_a_text_is_json(tmp_path: Path, packed: bool) -> None:
    record = json.dumps({"question": "什么是贫血？", "answer": "血红蛋白低于正常。"}, ensure_ascii=False)
    name = "a.txt.gz" if packed else "a.txt"
    for text, layout in ((f"{record}\n" * 20, "JSON Lines"), (f"[{record},\n{record}]", "JSON array")):
        found, readings = read(tmp_path / name, gzip.compress(text.encode()) if packed else text.encode())
        assert found.startswith(layout)
        assert {reading.record.question for reading in readings} == {"什么是贫血？"}
    for text in (
        "{贫血}是什么？\n血红蛋白低于正常。",
        "[1] 血红蛋白低于正常。",
        "{}\n{}",
        f"{record}\n血红蛋白低于正常。",
        f"[{record}",
        f"[{record} 是一条记录的写法。",
    ):
        assert read(tmp_path / "b.txt", text.encode())[0] == "plain text"
    assert read(tmp_path / "b.md", f"{record}\n".encode())[0] == "Markdown"
