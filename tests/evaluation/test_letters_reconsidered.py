"""Option letters in answers that go through the options, are cut off, take something back, or are marked up."""

from __future__ import annotations

import pytest

from ms_medqa.evaluation.letters import parse_letters

EN = ("Insulin", "Metformin", "Glyburide", "Acarbose")
ZH = ("胰岛素", "二甲双胍", "格列本脲", "阿卡波糖")


@pytest.mark.parametrize(
    "answer",
    [
        "Option A: Insulin is used in type 1 diabetes, where the beta cells are destroyed and the pancreas makes no",
        "A. Insulin is used for type 1 diabetes.\nB. Metf",
        "A. Insulin is used for type 1 diabetes.\nB. ",
    ],
)
def test_an_answer_that_was_cut_off_while_it_went_through_the_options_has_chosen_nothing(answer: str) -> None:
    assert parse_letters(answer, EN, finished=False) is None


@pytest.mark.parametrize(
    ("answer", "letter"), [("B", "B"), ("B. Metformin", "B"), ("The answer is B. It lowers the production of", "B")]
)
def test_what_was_said_before_the_cut_counts(answer: str, letter: str) -> None:
    assert parse_letters(answer, EN, finished=False) == letter


@pytest.mark.parametrize(
    "answer",
    [
        "A. 胰岛素适用于1型糖尿病，因此不符合题意。",
        "A. 胰岛素一般不作为2型糖尿病的首选，",
        "勿选A",
        "别选A",
        "1型糖尿病的答案是A，而本题为2型。",
    ],
)
def test_an_option_that_is_turned_down_is_not_chosen(answer: str) -> None:
    assert parse_letters(answer, ZH) is None


@pytest.mark.parametrize(
    "answer",
    [
        "A. Insulin can cause hypoglycemia, so it is not first-line",
        "The second best answer is A.",
        "A common mistake is to say the answer is A.",
    ],
)
def test_nor_in_english(answer: str) -> None:
    assert parse_letters(answer, EN) is None


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("答案是A。不对，应该是B。", "B"),
        ("答案是B。等等，重新考虑，应为C", "C"),
        ("答案是A。更正：B", "B"),
        ("答案不是A，而是B。", "B"),
        ("The answer is B. Hmm, on second thought, it should be A.", "A"),
    ],
)
def test_the_last_word_counts(answer: str, letter: str) -> None:
    assert parse_letters(answer, ZH) == letter


@pytest.mark.parametrize(
    "answer",
    [
        "### Answer\nB",
        "### Answer\n\n**B. Metformin**",
        '{"answer": "B"}',
        '```json\n{"answer": "B"}\n```',
        "<answer>B</answer>",
        "Metformin (B)",
        "Metformin is the correct answer.",
        "The most appropriate next step in management is **B. Metformin**.",
        "The correct response is B.",
        "Thus, B",
        "So B.",
        "Select B.",
        "It's B.",
        "B<|im_end|>",
    ],
)
def test_marked_up_and_short_forms(answer: str) -> None:
    assert parse_letters(answer, EN) == "B"


@pytest.mark.parametrize(
    "answer", ["### 答案\nB", "答案是二甲双胍（B）", "最可能的诊断是B. 二甲双胍", "B 二甲双胍", "B项符合题意"]
)
def test_and_in_chinese(answer: str) -> None:
    assert parse_letters(answer, ZH) == "B"


@pytest.mark.parametrize("answer", ["A、B、D三项正确", "正确的有A、B、D"])
def test_several_that_are_right(answer: str) -> None:
    assert parse_letters(answer, ZH, several=True) == "ABD"
