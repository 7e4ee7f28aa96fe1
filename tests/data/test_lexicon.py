"""Names of a lexicon are counted, and nothing is dropped for want of one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ms_medqa.config import UserError
from ms_medqa.config.schema import DataSection
from ms_medqa.data.clean import Cleaner, Kept
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.rules.lexicon import Coverage, Lexicon
from ms_medqa.data.tokenizer import Tokenizer


def names(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_a_name_a_line_or_a_column_of_names(tmp_path: Path) -> None:
    lexicon = Lexicon(
        [
            names(tmp_path / "a.txt", "糖尿病\n\n癌\nAspirin\r\n"),
            names(tmp_path / "b.csv", "code\tdisease\nA00\t霍乱\nA01\t伤寒\n"),
            names(tmp_path / "c.csv", "药品名称,剂型\n布洛芬,片剂\n", "gb18030"),
            names(tmp_path / "d.tsv", "A03.9\t细菌性痢疾\nA04\t其他细菌性肠道感染\n"),
        ]
    )
    assert lexicon.names == ["糖尿病", "Aspirin", "霍乱", "伤寒", "布洛芬", "细菌性痢疾", "其他细菌性肠道感染"]


def test_the_longest_name_counts_and_words_are_whole(tmp_path: Path) -> None:
    lexicon = Lexicon([names(tmp_path / "a.txt", "糖尿病\n2型糖尿病\nHIV\n布洛芬\n尿病史\n")])

    def found(*texts: str) -> list[str]:
        return [lexicon.names[i] for i in lexicon.find(texts)]

    assert found("２型糖尿病史和糖尿病") == ["糖尿病", "2型糖尿病"]
    assert found("2型糖尿病史") == ["2型糖尿病"]
    assert found("hiv感染", "ＨＩＶ") == ["HIV"]
    assert found("archive", "hivs", "感冒") == []
    assert found("吃布洛芬", "布洛芬") == ["布洛芬"]
    assert found("布洛") == []


def test_coverage_is_a_figure_and_drops_nothing(tmp_path: Path, tiny_tokenizer_folder: Path) -> None:
    tokenizer = Tokenizer.load(tiny_tokenizer_folder)
    path = names(tmp_path / "a.txt", "感冒\n布洛芬\n霍乱\n")
    records = [
        Example("1", "感冒了怎么办？", "多休息，多喝水。"),
        Example("2", "怎么退热？", "按说明书服用。", context="布洛芬可以退热。"),
        Example("3", "怎样洗手？", "用肥皂和流水。"),
    ]
    cleaner = Cleaner(DataSection(lexicon=[str(path)]), tokenizer, Prompt.named("medqa", tokenizer))
    coverage = Coverage()
    for kept in cleaner.judge(records):
        assert isinstance(kept, Kept)
        coverage.add(kept.terms)
    assert cleaner.lexicon is not None
    assert coverage.to_dict(len(cleaner.lexicon.names)) == {"entries": 3, "seen": 2, "records": 2, "share": 0.6667}
    assert Coverage().to_dict(0) == {"entries": 0, "seen": 0, "records": 0, "share": 0.0}


def test_a_faulty_lexicon_is_an_error(tmp_path: Path) -> None:
    for path, content in (("a.txt", b""), ("b.txt", b"\xff\xff\xff"), ("c.csv", b"a\0b"), ("d.txt", "癌\n".encode())):
        (tmp_path / path).write_bytes(content)
        with pytest.raises(UserError, match=path):
            Lexicon([tmp_path / path])
    with pytest.raises(UserError, match="no such file"):
        Lexicon([tmp_path / "none.txt"])
    same = tmp_path / "e.txt"
    same.write_text("感冒\n", encoding="utf-8")
    assert Lexicon([same, same]).names == ["感冒"]


def test_icd_names_are_found_in_real_questions(shared_data: Path) -> None:
    lexicon = Lexicon([shared_data / "icd10_zh" / "disease.csv"])
    assert len(lexicon.names) > 1000
    assert lexicon.find(["霍乱怎样预防？"]) == (lexicon.names.index("霍乱"),)
