"""The figures of an evaluation against values worked out by hand and against the field's library."""

from __future__ import annotations

import math

import pytest

from ms_medqa.config import RunError
from ms_medqa.evaluation.metrics import has_key_fact, lcs_length, perplexity, rouge_l, words


def test_perplexity_is_that_of_a_uniform_guess() -> None:
    # Each of 10 tokens had probability 1/8.
    assert perplexity(10 * math.log(8), 10) == pytest.approx(8)


def test_a_loss_that_is_not_finite_stops_the_run() -> None:
    with pytest.raises(RunError, match="not finite"):
        perplexity(float("nan"), 3)
    with pytest.raises(RunError, match="not finite"):
        perplexity(float("inf"), 3)


@pytest.mark.parametrize(
    ("first", "second", "length"),
    [("ABCBDAB", "BDCABA", 4), ("", "ABC", 0), ("ABC", "", 0), ("ABC", "ABC", 3), ("ABC", "DEF", 0), ("AAB", "AB", 2)],
)
def test_longest_common_subsequence(first: str, second: str, length: int) -> None:
    assert lcs_length(first, second) == length
    assert lcs_length(second, first) == length


def test_words_leave_out_white_space_but_keep_text() -> None:
    text = "高血压 患者\n应当\t低盐 饮食，BMI 24.0。"
    assert "".join(words(text)) == "".join(text.split())
    assert "高血压" in words(text)


def test_rouge_l_by_hand() -> None:
    answer, reference = "多喝水", "多喝水多休息"
    p, r = 1.0, len(words(answer)) / len(words(reference))
    assert rouge_l(answer, reference) == pytest.approx(2 * p * r / (p + r))
    assert rouge_l(reference, reference) == 1.0
    assert rouge_l("", reference) == 0.0
    assert rouge_l(answer, " \n") == 0.0
    assert rouge_l("苹果", "医院") == 0.0


def test_rouge_l_equals_the_library() -> None:
    rouge = pytest.importorskip("rouge_chinese").Rouge(metrics=["rouge-l"])
    pairs = [
        ("高血压患者应当低盐饮食。每天坚持运动！", "高血压患者要低盐、低脂饮食，每天运动，并按医嘱服药。"),
        ("有机磷中毒的解毒药是阿托品和碘解磷定", "阿托品。"),
        (
            "糖尿病可以吃水果吗？可以，但要控制量。可以，但要控制量。",
            "可以吃水果，但要控制量，优先选择低升糖指数的水果。",
        ),
        ("The incubation period is 2 to 14 days.", "潜伏期为2至14天 (incubation period)."),
        ("完全无关", "体温低于36℃"),
    ]
    for answer, reference in pairs:
        theirs = rouge.get_scores(" ".join(words(answer)), " ".join(words(reference)))[0]["rouge-l"]["f"]
        assert rouge_l(answer, reference) == pytest.approx(theirs, abs=1e-6)


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
