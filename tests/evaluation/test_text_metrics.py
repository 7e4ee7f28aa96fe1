"""Metrics of generated answers against the field's libraries called directly, and against values worked out by hand."""

from __future__ import annotations

import random
import subprocess
import sys
import time

import numpy as np
import pytest

from ms_medqa.data.segment import segment
from ms_medqa.evaluation.figures import Figure
from ms_medqa.evaluation.intervals import interval
from ms_medqa.evaluation.text_metrics import (
    Rouge,
    bleu_figure,
    char_f1,
    exact_match,
    lcs_length,
    repeated_ngrams,
    rouge,
    rouge_signature,
    token_f1,
)

CHINESE = [
    ("高血压患者应当低盐饮食。每天坚持运动！", "高血压患者要低盐、低脂饮食，每天运动，并按医嘱服药。"),
    ("有机磷中毒的解毒药是阿托品和碘解磷定", "阿托品。"),
    ("可以，但要控制量。可以，但要控制量。可以，但要控制量。", "可以吃水果，但要控制量，优先选择低升糖指数的水果。"),
    ("The incubation period is 2 to 14 days.", "潜伏期为2至14天。"),
    ("体温38.5℃，口服布洛芬0.2 g……必要时复诊？好", "体温高于38.5℃时口服布洛芬 0.2g；必要时复诊。"),
    ("完全无关", "体温低于36℃"),
]
ENGLISH = [
    ("The patient should take aspirin daily.", "Patients should take low-dose aspirin once daily, with food."),
    ("Metformin", "Metformin is the first-line drug for type 2 diabetes."),
    ("rest rest rest rest and fluids", "Rest, and drink fluids."),
    ("120/80 mmHg", "Normal blood pressure is below 120/80 mmHg."),
    ("阿托品", "Atropine"),
]
NO_WORDS = ["", " \n", "。", "……", "...", "?!"]
REFERENCES = ["高血压患者应当低盐饮食。", "Take aspirin daily.", "Принимать аспирин", "38.5", "。"]


def test_rouge_of_chinese_is_rouge_chinese_over_jieba_words() -> None:
    library = pytest.importorskip("rouge_chinese").Rouge()
    for answer, reference in CHINESE:
        theirs = library.get_scores(" ".join(segment(answer)), " ".join(segment(reference)))[0]
        ours = rouge(answer, reference)
        assert [ours.rouge_1, ours.rouge_2, ours.rouge_l] == pytest.approx(
            [theirs[name]["f"] for name in ("rouge-1", "rouge-2", "rouge-l")], abs=1e-7
        )


def test_rouge_of_english_is_rouge_score() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rouge1", "rouge2", "rougeL"])
    for answer, reference in ENGLISH:
        theirs = scorer.score(reference, answer)
        ours = rouge(answer, reference)
        found = [ours.rouge_1, ours.rouge_2, ours.rouge_l]
        assert found == pytest.approx([score.fmeasure for score in theirs.values()])


def test_rouge_knows_the_words_of_other_languages() -> None:
    found = rouge("Принимать аспирин утром", "Принимать аспирин ежедневно")
    assert (found.rouge_1, found.rouge_2, found.rouge_l) == pytest.approx((2 / 3, 1 / 2, 2 / 3))
    assert rouge("発熱があります", "発熱があります").rouge_l == 1


@pytest.mark.parametrize("nothing", NO_WORDS)
@pytest.mark.parametrize("reference", REFERENCES)
def test_an_answer_without_words_scores_nothing(nothing: str, reference: str) -> None:
    if nothing != reference:
        found = rouge(nothing, reference)
        assert found.rouge_2 == 0
        # A full stop is a word to rouge-chinese.
        assert nothing == "。" or found == Rouge(0, 0, 0)
    assert token_f1(nothing, reference) == 0
    assert not exact_match(nothing, reference)
    # Nor does a reference without words fail.
    assert token_f1(reference, nothing) == 0
    assert not exact_match(reference, nothing)
    rouge(reference, nothing)
    char_f1(reference, nothing)


@pytest.mark.parametrize("alphabet", ["高血压患者应当低盐饮食每天坚持运动并按医嘱服药，。", "take rest and fluids . "])
def test_texts_of_ten_thousand_characters_take_no_time(alphabet: str) -> None:
    source = random.Random(0)
    answer, reference = ("".join(source.choices(alphabet, k=10_000)) for _ in range(2))
    rouge(answer[:50], reference[:50])
    started = time.perf_counter()
    found = rouge(answer, reference)
    token_f1(answer, reference)
    bleu_figure([answer], [reference])
    assert time.perf_counter() - started < 5
    assert 0 < found.rouge_l < 1


def test_longest_common_subsequence_is_that_of_the_table() -> None:
    source = random.Random(1)
    for size in (0, 1, 5, 40, 130):
        first, second = source.choices("abcd", k=size), source.choices("abcde", k=size + source.randrange(20))
        table = np.zeros((len(first) + 1, len(second) + 1), int)
        for i, a in enumerate(first):
            for j, b in enumerate(second):
                table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
        assert lcs_length(first, second) == lcs_length(second, first) == table[-1, -1]


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("阿托品", "阿托品。"),
        ("ＡＬＴ升高！", "alt 升高"),
        (" Take Aspirin,\nnow ", "take aspirin now."),
        ("omega 3", "Omega-3"),
        ("剂量：１．５ mg", "剂量 1.5mg"),
        ("HIV\u2212 (Rh－)", "hiv- rh-"),
        ("５０％", "50 %"),
        ("omega\u22123", "omega 3"),
        ("T值≤\u22122.5", "T值≤-2.5"),
    ],
)
def test_exact_match_does_not_mind_how_it_is_written(answer: str, reference: str) -> None:
    assert exact_match(answer, reference)
    assert exact_match(reference, answer)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("15 mg", "1.5 mg"),
        ("每天12次", "每天1-2次"),
        ("T值≤2.5", "T值≤-2.5"),
        ("12080", "120/80"),
        ("HBsAg(-)", "HBsAg(+)"),
        ("HBsAg(-)", "HBsAg"),
        ("Rh-", "Rh+"),
        ("Rh-", "Rh"),
        ("HIV-，建议复查", "HIV，建议复查"),
        ("CD4+", "CD4"),
        ("5%", "5"),
        ("5%", "5‰"),
        ("阿托品注射", "阿托品"),
    ],
)
def test_exact_match_minds_what_it_says(answer: str, reference: str) -> None:
    assert not exact_match(answer, reference)
    assert not exact_match(reference, answer)


def test_char_f1_by_hand() -> None:
    # 多喝水 is in 多喝水多休息: 3 characters of 3 and of 6.
    assert char_f1("多 喝\n水", "多喝水多休息") == pytest.approx(2 * 1 * 0.5 / 1.5)
    assert char_f1("AABB", "ab") == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert char_f1("发热", "退烧") == 0
    assert char_f1("", "") == 0


def test_token_f1_by_hand() -> None:
    # aspirin, daily of 4 words and of 3.
    assert token_f1("Take Aspirin daily, please!", "aspirin, once daily") == pytest.approx(2 / (4 / 2 + 3 / 2))
    # A word said twice counts once where the reference has it once.
    assert token_f1("rest rest", "Rest") == pytest.approx(2 * 0.5 * 1 / 1.5)
    assert token_f1("hepatitis B", "Hepatitis A") == 0.5
    assert token_f1("1.5 mg", "15 mg") == 0.5
    words = set(segment("高血压患者应当低盐饮食"))
    assert token_f1("高血压，患者。", "高血压患者应当低盐饮食") == pytest.approx(2 * 2 / (2 + len(words)))
    # The same words of a Chinese text, with its punctuation and without.
    assert token_f1("饮食低盐，高血压患者应当", "高血压患者应当低盐饮食。") == 1


def test_the_signature_tells_libraries_versions_and_how_many_items_each_has_measured() -> None:
    from importlib.metadata import version

    chinese = f"rouge-chinese {version('rouge-chinese')} over jieba {version('jieba')} words, "
    chinese += "ROUGE-1/2 over distinct n-grams: 2 items"
    english = f"rouge-score {version('rouge-score')} without stemming: 1 item"
    other = f"rouge-score {version('rouge-score')} over words of all letters, without stemming: 1 item"
    texts = ["高血压患者应当低盐饮食。", "Take aspirin daily.", "发热", "Принимать аспирин"]
    assert rouge_signature(texts) == "; ".join([chinese, english, other])
    assert rouge_signature(texts[1:2]) == english
    assert rouge_signature([]) == ""


def test_repeated_ngrams_are_those_that_were_there_before() -> None:
    # Nothing that could have been said again.
    assert repeated_ngrams([1, 2, 3]) is None
    assert repeated_ngrams([]) is None
    assert repeated_ngrams([1, 2, 3, 4]) == 0
    assert repeated_ngrams([1, 2, 3, 4, 5]) == 0
    # 1111 five times, four of them again.
    assert repeated_ngrams([1] * 8) == pytest.approx(4 / 5)
    assert repeated_ngrams(list("abcdabcd")) == pytest.approx(1 / 5)
    assert repeated_ngrams(list("abab"), n=2) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("pairs", "tokenize"),
    [
        (CHINESE, "zh"),
        (ENGLISH[:4], "13a"),
        (CHINESE + ENGLISH, "zh"),
        # Without any hit at 3 or 4 words, without any at all, too short for 4 words, longer and shorter than asked for.
        ([("take aspirin twice a week", "do take aspirin")], "13a"),
        ([("a b c d e f", "u v w x y z")], "13a"),
        ([("take aspirin", "take aspirin")], "13a"),
        ([("", "take aspirin now and then")], "13a"),
        ([("take aspirin now and then", "")], "13a"),
        ([("", "高血压"), ("高血压患者", "高血压患者应当低盐饮食")], "zh"),
        ([("one two three four five", "one two three four"), ("", "six seven eight nine ten")], "13a"),
    ],
)
def test_bleu_is_that_of_sacrebleu(pairs: list[tuple[str, str]], tokenize: str) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    answers, references = [answer for answer, _ in pairs], [reference for _, reference in pairs]
    figure, signature = bleu_figure(answers, references)
    theirs = sacrebleu.corpus_bleu(answers, [references], tokenize=tokenize)
    assert figure.value == pytest.approx(theirs.score, abs=1e-9, rel=1e-12)
    assert (figure.name, figure.n) == ("bleu_4", len(pairs))
    metric = sacrebleu.BLEU(tokenize=tokenize)
    metric.corpus_score(answers, [references])
    assert signature == str(metric.get_signature())
    assert f"|tok:{tokenize}|smooth:exp|" in signature


def test_bleu_of_samples_is_that_of_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    figure, _ = bleu_figure(*zip(*CHINESE, strict=True))
    samples = np.random.default_rng(0).integers(len(CHINESE), size=(50, len(CHINESE)))
    found = figure.of(figure.stats[samples].sum(axis=1))
    for sample, ours in zip(samples, found, strict=True):
        answers, references = zip(*(CHINESE[place] for place in sample), strict=True)
        assert ours == pytest.approx(sacrebleu.corpus_bleu(answers, [references], tokenize="zh").score, abs=1e-9)
    low, high = interval(figure)
    assert low < figure.value < high


def test_bleu_of_no_answers_has_a_signature_and_no_value() -> None:
    figure, signature = bleu_figure([], [])
    assert isinstance(figure, Figure)
    assert figure.n == 0
    assert np.isnan(figure.value)
    assert signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")


def test_libraries_are_loaded_only_where_they_are_used() -> None:
    code = (
        "import sys; from ms_medqa.evaluation.text_metrics import char_f1, exact_match; char_f1('a', 'b');"
        "assert not {'sacrebleu', 'rouge_score', 'rouge_chinese', 'jieba', 'nltk'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
