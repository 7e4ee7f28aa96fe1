"""Personal numbers and addresses are replaced, doses, codes and counts are not. All numbers here are made up."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from ms_medqa.config.schema import DataSection
from ms_medqa.data.clean import Cleaner
from ms_medqa.data.example import Example, PlainText
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.rules.redact import is_identity_number, redact, redact_value
from ms_medqa.data.tokenizer import Tokenizer

# The example of GB 11643-1999, and the same person's number in the old form.
IDENTITY, OLD_IDENTITY = "11010519491231002X", "110105491231002"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("联系13800138000。", "联系[电话]。"),
        ("138 0013 8000", "[电话]"),
        ("+86 138-0013-8000", "[电话]"),
        ("１３８００１３８０００", "[电话]"),
        ("(0571)87654321", "[电话]"),
        ("科室 010-62345678转801", "科室 [电话]"),
        ("电话：62345678", "电话：[电话]"),
        ("微信wx13800138000", "微信wx[电话]"),
        ("400-123-4567", "[电话]"),
        (f"我是{IDENTITY}", "我是[身份证号]"),
        (f"我是{IDENTITY.lower()}，", "我是[身份证号]，"),
        (OLD_IDENTITY, "[身份证号]"),
        ("身份证号：110105194912310021", "身份证号：[身份证号]"),
        ("写信到 zhang.san@hospital.com.cn", "写信到 [邮箱]"),
        ("病历号：A123456，", "病历号：[病历号]，"),
        ("住院号（ID）：0012345", "住院号（ID）：[病历号]"),
        ("门诊号为20231234", "门诊号为[病历号]"),
        ("MRN: 4567890", "MRN: [病历号]"),
    ],
)
def test_personal_data_is_replaced_by_its_kind(text: str, expected: str) -> None:
    counts: Counter[str] = Counter()
    assert redact(text, counts) == expected
    assert counts.total() == 1
    assert redact(expected, Counter()) == expected


@pytest.mark.parametrize(
    "text",
    [
        "每次 0.25-0.5 g，每日 3 次，连用 14-21 天",
        "1500-2000-2500 ml",
        "ICD-10 J45.901、E11.900x001、A00-B99",
        "白细胞 15000000000/L",
        "HBV DNA 13500000000 copies/ml",
        "13800138000 个细胞",
        "血小板 350000000000",
        "血压 120/80 mmHg，急救电话 120，热线：12320",
        "2020-01-01 12:00",
        "PMID: 12345678，NCT01234567，CAS 50-78-2，ISBN 978-7-117-12345-6",
        "rs12979860，ChiCTR2000029308",
        "检查号码牌，病历号见首页",
        "王@李",
        "110105194912310021",  # the check digit is wrong
        "991231199901010000",
    ],
)
def test_medical_numbers_stay(text: str) -> None:
    counts: Counter[str] = Counter()
    assert redact(text, counts) == text
    assert not counts


def test_identity_numbers_are_checked() -> None:
    assert is_identity_number(IDENTITY)
    assert sum(is_identity_number(IDENTITY[:-1] + last) for last in "0123456789X") == 1
    assert is_identity_number(OLD_IDENTITY)
    assert not is_identity_number("110105491331002"), "there is no 13th month"
    assert not is_identity_number("110105490230002"), "there is no 30th of February"
    assert not is_identity_number("990105491231002"), "there is no such province"


def test_every_field_is_redacted_and_counted(tiny_tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.load(tiny_tokenizer_folder)
    prompt = Prompt.named("medqa", tokenizer)
    record = Example(
        "1",
        "我的电话13800138000，血压高怎么办？",
        "请到门诊复查血压，也可写信 a@b.com 询问。",
        context="病历号：A123456",
        system="热线 010-62345678",
        history=((f"我是{IDENTITY}", "好的，13800138000"),),
        key="13800138000",
    )
    kept = Cleaner(DataSection(redact=True), tokenizer, prompt).judge([record])[0]
    assert kept.record == Example(
        "1",
        "我的电话[电话]，血压高怎么办？",
        "请到门诊复查血压，也可写信 [邮箱] 询问。",
        context="病历号：[病历号]",
        system="热线 [电话]",
        history=(("我是[身份证号]", "好的，[电话]"),),
        key="[电话]",
    )
    assert {note.reason: note.count for note in kept.notes} == {
        "redacted_email": 1,
        "redacted_identity": 1,
        "redacted_phone": 4,
        "redacted_record": 1,
    }
    text = PlainText("2", "电话 13800138000")
    assert Cleaner(DataSection(redact=True), tokenizer, prompt).judge([text])[0].record.text == "电话 [电话]"
    assert Cleaner(DataSection(), tokenizer, prompt).judge([record])[0].record == record


def test_a_raw_record_is_redacted_as_a_whole() -> None:
    raw = {"a": ["13800138000", {"b": "x@y.org"}], "n": 13800138000}
    assert redact_value(raw) == {"a": ["[电话]", {"b": "[邮箱]"}], "n": 13800138000}


@pytest.mark.parametrize("piece", ["0", "1-", "a.", "138", "(0", "电话", "电话 1 ", "病历号 ", "@a", "身份证 1"])
def test_no_text_takes_long(piece: str) -> None:
    start = time.process_time()
    redact(piece * 20_000 + "@", Counter())
    assert time.process_time() - start < 2
