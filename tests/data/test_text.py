"""The normalisation rule, and that every text of a record goes through it."""

from __future__ import annotations

import time
import unicodedata

import pytest

from ms_medqa.config.schema import Columns
from ms_medqa.data.formats import parse_record
from ms_medqa.data.text import normalize, to_nfkc


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        ("头痛\r\n发热\r咳嗽\u2028乏力", "头痛\n发热\n咳嗽\n乏力"),
        ("第一页\x0c第二页\x85第三页", "第一页\n第二页\n第三页"),
        ("37.5\xa0℃\u2009以上\u3000就医", "37.5 ℃ 以上 就医"),
        ("\ufeff阿\u200b司\u2060匹\xad林\x00\x1b", "阿司匹林"),
        ("abc\u202edef\u202c", "abcdef"),
        ("一行 \t\n二行\u3000\n", "一行\n二行"),
        ("甲\n \n\xa0\n\n乙", "甲\n\n乙"),
        ("表\t格", "表\t格"),
        # Doses, units and signs are what they were.
        ("½片，5µg，10²，Ⅲ期，①饭后，ＡＢＣ", "½片，5µg，10²，Ⅲ期，①饭后，ＡＢＣ"),
        # A joiner is spelling in Persian and Hindi and holds an emoji together; between other letters it is residue.
        ("می\u200cخواهم क्\u200dष 👩\u200d⚕️", "می\u200cخواهم क्\u200dष 👩\u200d⚕️"),
        ("高\u200c血\u200d压 a\u200db", "高血压 ab"),
        (" \u200b\n", ""),
    ],
)
def test_what_is_changed_and_what_is_kept(raw: str, kept: str) -> None:
    assert normalize(raw) == kept
    assert normalize(kept) == kept


def test_nfkc_only_when_asked() -> None:
    assert normalize("５µｇ，½片", nfkc=True) == "5μg,1⁄2片"
    record = {"question": "５片？", "answer": "½片"}
    plain, _ = parse_record(record, Columns(), name="x", source="")
    folded, _ = parse_record(record, Columns(), name="x", source="", nfkc=True)
    assert (plain.question, plain.answer, folded.question, folded.answer) == ("５片？", "½片", "5片?", "1⁄2片")


def test_a_long_run_of_spaces_takes_no_time() -> None:
    started = time.perf_counter()
    assert normalize("甲" + " " * 1_000_000 + "乙\n" + "\n" * 1_000_000 + "丙").endswith("乙\n\n丙")
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    "record",
    [
        {"question": "感\u200b冒？", "answer": "休\u200b息", "context": "病\u200b毒", "system": "医\u200b生"},
        {"instruction": "感\u200b冒？", "output": "休\u200b息", "context": "病\u200b毒", "system": "医\u200b生"},
        {
            "messages": [
                {"role": role, "content": text}
                for role, text in (("system", "医\u200b生"), ("user", "感\u200b冒？"), ("assistant", "休\u200b息"))
            ],
            "context": "病\u200b毒",
        },
    ],
)
def test_every_text_of_a_record_is_normalised(record: dict[str, object]) -> None:
    example, _ = parse_record(record, Columns(), name="x", source="")
    assert (example.question, example.answer) == ("感冒？", "休息")
    assert (example.context, example.system) == ("病毒", "医生")


def test_nfkc_is_unicodes() -> None:
    # Each mark alone, and before marks that combine with it: Unicode has characters for =, < and > with a stroke.
    marks, joining = "，？；：（）！＝＜＞ｅガｶ각", ("", "\u0338", "\u0301", "\u3099", "ﾞ", "\u11a8")
    texts = [f"糖尿病{mark}{mark}{more}吃什么{mark}" for mark in marks for more in joining]
    assert [to_nfkc(text) for text in texts] == [unicodedata.normalize("NFKC", text) for text in texts]
    every = "".join(map(chr, (*range(0xD800), *range(0xE000, 0x30000))))
    assert to_nfkc(every) == unicodedata.normalize("NFKC", every)
