"""A file's encoding is found from its bytes, and a wrong byte costs only its record."""

from __future__ import annotations

import codecs
import json
from pathlib import Path

import pytest

from ms_medqa.config.schema import DataSection
from ms_medqa.data.encoding import detect
from ms_medqa.data.readers import Reading, read_records

QUESTIONS = [("什么是高血压？", "血压持续升高。"), ("头痛怎么办？", "休息，\n必要时就诊。")] * 20
BOMS = {"utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}
WORDS = {"utf-16-le": ", UTF-16 LE", "utf-16-be": ", UTF-16 BE", "gbk": ", GB18030", "gb18030": ", GB18030"}


def read(path: Path) -> tuple[str, list[Reading]]:
    layout, readings = read_records(path, DataSection(), path.name)
    return layout, list(readings)


@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "gbk", "gb18030"])
@pytest.mark.parametrize("layout", ["JSON Lines", "JSON array", "CSV"])
def test_every_layout_in_every_encoding(tmp_path: Path, layout: str, encoding: str, bom: bool) -> None:
    records = [{"question": question, "answer": answer} for question, answer in QUESTIONS]
    name, text = {
        "JSON Lines": ("a.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\r\n" for r in records)),
        "JSON array": ("a.json", json.dumps(records, ensure_ascii=False)),
        "CSV": ("a.csv", "question,answer\r\n" + "".join(f'{q},"{a}"\r\n' for q, a in QUESTIONS)),
    }[layout]
    path = tmp_path / name
    path.write_bytes((BOMS.get(encoding, b"") if bom else b"") + text.encode(encoding))
    said, readings = read(path)
    assert said == layout + WORDS.get(encoding, "")
    assert [(r.record.question, r.record.answer) for r in readings] == QUESTIONS
    assert readings[-1].raw.position == path.stat().st_size


def test_chinese_that_begins_late_is_seen(tmp_path: Path) -> None:
    lines = [json.dumps({"question": "q", "answer": "a" * 1000})] * 3000 + ['{"question": "头痛", "answer": "休息"}']
    path = tmp_path / "a.jsonl"
    path.write_bytes("\n".join(lines).encode("gbk"))
    assert read(path)[1][-1].record.question == "头痛"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
@pytest.mark.parametrize("encoding", ["utf-8", "gb18030"])
def test_a_wrong_byte_costs_its_record(tmp_path: Path, name: str, encoding: str) -> None:
    def record(question: str) -> str:
        return {
            "a.jsonl": '{"question": "%s", "answer": "休息"}\n',
            "a.json": ' {"question": "%s", "answer": "休息"},\n',
            "a.csv": "%s,休息\n",
        }[name] % question

    start, end = {"a.jsonl": ("", ""), "a.json": ("[\n", "]"), "a.csv": ("question,answer\n", "")}[name]
    good = [record(f"问题{i}") for i in range(6)]
    before = (start + good[0] + good[1]).encode(encoding)
    wrong = record("头痛X").encode(encoding).replace(b"X", b"\xff")
    path = tmp_path / name
    path.write_bytes(before + wrong + ("".join(good[2:]) + end).encode(encoding))
    readings = read(path)[1]
    assert [r.error and r.error[0] for r in readings] == [None, None, "bad_encoding", None, None, None, None]
    assert readings[2].error[1].endswith(f"at byte {len(before) + wrong.index(0xFF):,} (0xff)")
    assert "头痛\ufffd" in readings[2].raw.value
    assert "".join(r.record.question for r in readings if r.record) == "".join(f"问题{i}" for i in range(6))


def test_a_genuine_replacement_character_is_text(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"question": "头\ufffd痛", "answer": "休息"}', encoding="utf-8")
    assert read(path)[1][0].record.question == "头\ufffd痛"


def test_a_file_that_ends_inside_a_character_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("question,answer\n休息,休息\nq,息".encode()[:-1])
    readings = read(path)[1]
    assert [r.error and r.error[0] for r in readings] == [None, "bad_encoding"]
    assert "ends in the middle of a character" in readings[1].error[1]


def test_single_wrong_bytes_do_not_make_another_encoding() -> None:
    # Latin letters with a stray byte of another encoding are no Chinese.
    assert detect([("Fièvre élevée, œdème. " * 9).encode() + b"caf\xe9 "]).name == "utf-8"
    assert detect([b"plain ASCII"]).name == "utf-8"
    assert detect(["体温37℃，咳嗽".encode("gb18030")]).name == "gb18030"
    assert detect([b"a\0b plain text with a zero byte"]).name == "utf-8"


def test_characters_are_whole_across_blocks(tmp_path: Path) -> None:
    # Far longer than what is read at once, with characters of two, three and four bytes at every offset.
    answer = "é高𠮷a，" * 60_000
    for encoding in ("utf-8", "gb18030", "utf-16-le"):
        path = tmp_path / f"{encoding}.json"
        path.write_bytes(json.dumps([{"question": "q", "answer": answer}], ensure_ascii=False).encode(encoding))
        assert read(path)[1][0].record.answer == answer
