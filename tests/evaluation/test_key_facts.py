"""Key facts are found whatever their width of letters, and not inside longer numbers and words."""

from __future__ import annotations

import pytest

from ms_medqa.evaluation.key_facts import has_key_fact


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ("有机磷中毒的特效解毒药是阿托品。", "阿托品"),
        ("缺乏维生素 B1 会引起脚气病", "维生素b1"),
        ("按压频率为１００至１２０次/分", "100至120次/分"),
        ("急救电话是120，不是119。", "120"),
        ("正常体温约 37.2℃", "37.2"),
        ("Use N-acetyl cysteine", "n-acetylcysteine"),
        ("断奶在 1 月龄后，不是11月龄", "1月龄"),
        ("第一，5块；第二，15块", "5块"),
        ("共1.\n5块", "5块"),
        ("十二指肠闭锁", "十二指肠闭锁"),
        ("补充维生素D3", "维生素D"),
        ("血ALT升高", "ALT"),
        ("measure the ALT level", "alt"),
    ],
)
def test_key_fact_is_found(answer: str, key: str) -> None:
    assert has_key_fact(answer, key)


@pytest.mark.parametrize(
    ("answer", "key"),
    [
        ("解毒药是纳洛酮", "阿托品"),
        ("体温37.2℃", "2"),
        ("请拨打1200", "120"),
        ("共 5120 例", "120"),
        ("剂量为120.5", "120"),
        ("任何回答", ""),
        ("a+b", "a.b"),
        ("11月龄", "1月龄"),
        ("１２月龄", "2月龄"),
        ("15块", "5块"),
        ("17块", "7块"),
        ("1.5块", "5块"),
        ("14.5小时内", "4.5小时内"),
        ("30比25", "30比2"),
        ("维生素B12", "维生素B1"),
        ("三十天", "十天"),
        ("十五块", "五块"),
        ("第十二", "第十"),
        ("mental health", "ALT"),
        ("It is not known", "no"),
    ],
)
def test_key_fact_is_not_found(answer: str, key: str) -> None:
    assert not has_key_fact(answer, key)
