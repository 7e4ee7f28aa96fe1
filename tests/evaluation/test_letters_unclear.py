"""Nothing is read into an answer that does not clearly choose, however long it is."""

from __future__ import annotations

import random
import time

import pytest

from ms_medqa.evaluation.letters import parse_letters

DRUGS = ["Insulin", "Metformin", "Aspirin", "Glipizide", "None of the above"]
ZH = ["胰岛素", "二甲双胍", "阿司匹林", "格列吡嗪", "以上都不是"]
REPEATED = [
    *(
        "a ",
        "A ",
        "A, ",
        "A、",
        "AB",
        "((((",
        "'A' ",
        "A''''",
        "A. ",
        "A. Insulin\n",
        "A. Insulin ",
        "B\n",
        "B. x\n",
        "-",
    ),
    *(
        "answer is ",
        "answer:\n",
        "the answer is A, ",
        "the answer is A. ",
        "The answer to ",
        "The answer for a b c d e ",
    ),
    *("A is correct ", "so A ", ". A and B and ", ": A A A A A A", "option ", "not ", "Insulin\n", "Insulin, "),
    *("So A. ", "it's A ", "wait, A. ", "most x is ", "not A but ", "A. Insulin is ", " is the correct answer", "\nB."),
    *("不对，A。", "应为A，", "不是A，而是", "最是", "正确的有A、", "<answer>", "<|im_end|>", "A\nAnswer\n"),
    *("答案", "答案：", "选", "选A", "A或", "\\boxed{", "**", " ", "\n", "\t \n", "<think>", "</think>"),
]


def each(text: str) -> list[str]:
    """Answers of one line, many a line."""
    return [answer.strip() for line in text.strip().splitlines() for answer in line.split(" | ")]


@pytest.mark.parametrize(
    "answer",
    [
        *each(r"""
    . | ? | A patient with diabetes should take a drug that lowers glucose. | a patient | A beta blocker
    I think so. | I | Vitamin C | Vitamin C is the best. | Vitamin B is correct. | hepatitis B
    Hepatitis B, C are correct. | The answer is vitamin C. | The answer is hepatitis B. | The answer is B cells.
    The answer is B-cell lymphoma. | The answer is a beta blocker. | The answer is a (rare) disease.
    The answer is A beta blocker. | The answer is 37°C. | The answer is 37℃. | The answer is C. difficile.
    C. difficile | E. coli is the most common cause. | A: patients need rest. | B cells | B-cell
    Answer: A patient with fever | Answer: I think so | Answer choices: A, B, C, D
    Answer: A. Foo B. Bar C. Baz | A. Insulin is a hormone. B. Metformin is a drug.
    B is correct, but A is better. | A is correct. B is wrong. C is correct. | Options: A, B, C, D
    The answer choices are given. | not B | Not B. | B is wrong | B is wrong. | B is not correct.
    B is incorrect | Option B is incorrect. | The answer is not B. | The answer isn't B.
    The answer cannot be B. | I do not think that the answer is B. | I don't think the answer is B
    It is unlikely that the answer is B. | The wrong answer is B. | The incorrect option is B.
    One possible answer is B. | If the answer is B then the patient is ill. | Is the answer B?
    The answer is B? | The answer is B, but this is wrong. | The answer is B. No, that cannot be.
    I doubt that B is correct. | A or B | A/B | A or B, hard to say | The answer is A or B.
    The answer is either A or B. | Either the answer is A or the answer is B. | It could be A, B or C.
    A could be right, but B could be right too. | A is for type 1. B is for type 2. C is for pain.
    The answer is A. The answer is B. | Option A is correct. Option B is correct.
    The answer is B. Therefore, the answer is A or C. | The answer is F. | F | Z. Metformin | A. Metformin
    The answer is A. Metformin | B. Metformin is wrong. | B. Metformin (wrong)
    The answer is (B) metformin or (A) insulin. | The answer is (B) some drug or (A) some hormone.
    The answer is (B) is wrong. | B. Metformin or A. Insulin | B. Something else
    The drug of choice is metformin. | Insulin or Metformin | all except B | The answer is everything but B.
    Except B, all are right. | The answer is Dr. B. | The answer is the B vitamins. | BAD | The answer is BAD.
    CT is the best answer. | The answer is ZZZ. | B/C | 1 | \boxed{37} | \boxed{} | The second best answer is A.
    The second best option is A. | A common mistake is to say the answer is A.
    A. Insulin can cause hypoglycemia, so it is not first-line | A. Insulin is incorrect.
    A. Insulin lowers glucose but is unlikely here. | Metformin (A) | A. Metformin is the correct answer.
    Metformin (A) is the correct answer. | If metformin is the correct answer, all is well.
    Not metformin is the correct answer. | The most likely diagnosis is A. Metformin.
    The most common wrong answer is B. Metformin. | It is not B. | I would not select B. | If it is B.
    So A, B and C are wrong. | So A or B. | A Metformin | It is vitamin B.
    """),
        "",
        " \n",
        "Answer:\nA. Foo\nB. Bar",
        "A. Insulin\nThe answer is B.",
        "A. Metformin\nIt is the first drug.",
        "A. Insulin is for type 1.\nB. Metformin is for type 2.\nC. Aspirin is for pain.",
        "A. Insulin\nIt is for type 1.\nB. Metformin\nIt is for type 2.",
        "B. Metformin\nIt is for type 2.\nC. Aspirin\nIt is for pain.",
        "A. Insulin is used for type 1 diabetes.\nB. Metf",
        "A. Insulin lowers glucose.\nB.",
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_nothing_is_read_into_an_answer(answer: str, several: bool) -> None:
    assert parse_letters(answer, DRUGS, several) is None


@pytest.mark.parametrize(
    "answer",
    [
        *each("""
    答案不是B | 答案不是B。 | 不选B | 不能选B。 | 除了A | 除A外都对 | 答案是除了A以外的选项 | B错误 | B项错误。
    选项B不正确。 | B不对 | 选B是错误的 | 选B错误 | 误选B | 错误答案是B | 不正确的是B | 如果选B，就错了
    若答案是B | 假设选B | 难以确定答案是B | 答案可能是B | 可能答案是B | 有人认为答案是B | 我不认为答案是B
    答案是A或B | 答案是A还是B | 选A还是选B | 选A或者B | A或B | 答案是A。答案是B。 | A正确。B正确。
    A正确，B正确，C错误，D正确。 | 选项A是正确的，但不是最佳答案 | 有人选A。
    食物中毒不是社会安全事件（C错，为本题正确答案）。（B对） | 本题原答案为B。
    A、B均对，故C为本题的正确答案。又C错误，故D为正确答案。 | A。B。 | 下列正确的是：A. 甲 B. 乙 C. 丙 | 维生素B
    维生素B正确 | 答案是维生素B。 | 答案是B超 | 答案是B型超声 | 答案是B细胞 | 选B细胞 | 选择B超检查 | B超
    B细胞 | 备选B | B正确吗？ | 答案是B吗？ | 选B？ | 选B的理由不足 | 答案A、B、C、D中只有一个正确 | 答案：F
    A. 二甲双胍 | B. 二甲双胍错误 | B. 二甲双胍（不正确） | 乙肝患者应该做B超 | 答案是A型血 | 答案是37℃
    请选择正确的答案。 | 这道题考查糖尿病。 | 勿选A | 别选A | 慎选A | 忌选A | 禁选A | 切勿选择A
    1型糖尿病的答案是A，而本题为2型。 | A. 胰岛素适用于1型糖尿病，因此不符合题意。
    A. 胰岛素一般不作为2型糖尿病的首选， | A. 胰岛素，因此不正确。 | 答案是二甲双胍（A） | A 二甲双胍
    B项不符合题意 | 最可能的诊断是A. 二甲双胍 | A. 二甲双胍是正确答案 | 不正确的有B | 答案：B。对不起
    """),
        "下列正确的是：\nA. 甲\nB. 乙\nC. 丙",
        "A. 胰岛素：用于1型。\nB. 二甲双胍：用于2型。",
        "A. 胰岛素：用于1型糖尿病。\nB. ",
        "A. 胰岛素：用于1型糖尿病。\nB、二甲",
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_nothing_is_read_into_a_chinese_answer(answer: str, several: bool) -> None:
    assert parse_letters(answer, ZH, several) is None


@pytest.mark.parametrize(
    ("answer", "letters"),
    [
        ("The answer is A... wait, B", "B"),
        ("The answer is B. Hmm, on second thought, it should be A.", "A"),
        ("The answer is B. Actually, the correct one is C.", "C"),
        ("The correct answer is B.\n\nWait, A is better.", None),
        ("A\n\nCorrection: B", "B"),
        ("B. Metformin\nWait, no.", None),
        ("答案是A。不对，应该是B。", "B"),
        ("答案是A，等等，应该是B", "B"),
        ("答案是B。等等，重新考虑，应为C", "C"),
        ("答案是A。更正：B", "B"),
        ("答案是A。抱歉，我不确定。", None),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_what_is_taken_back_does_not_stand(answer: str, letters: str | None, several: bool) -> None:
    assert parse_letters(answer, ZH if answer.startswith("答案") else DRUGS, several) == letters


@pytest.mark.parametrize("several", [False, True])
def test_the_option_that_an_unfinished_answer_begins_with_may_be_the_first_of_all(several: bool) -> None:
    for answer, choices in (
        ("Option A: Insulin is used in type 1 diabetes, where the pancreas makes no", DRUGS),
        ("A. Insulin is used for type 1 diabetes.\nB. Metf", DRUGS),
        ("A. Insulin\nB. Metf", DRUGS),
        ("A. Insulin\nB. Metformin", DRUGS),
        ("A. 胰岛素：用于1型糖尿病。\nB. ", ZH),
        ("A. 胰岛素：用于1型糖尿病。\nB. 二甲", ZH),
        ("A。该药用于1型糖尿病，", ZH),
        ("A正确，因为", ZH),
    ):
        assert parse_letters(answer, choices, several, finished=False) is None, answer
    for answer in (
        "B",
        "B\nMetformin is",
        "B. Metformin",
        "B. Metformin\nIt is the",
        "B because it",
        "The answer is B, as it",
        "A. Insulin is used in type 1 diabetes. So the answer is B. It",
    ):
        assert parse_letters(answer, DRUGS, several, finished=False) == "B", answer


def test_no_letter_is_found_in_text_that_chooses_nothing() -> None:
    source = random.Random(0)
    phrases = """A patient/vitamin C/hepatitis B/B cells,/T cell/E. coli/C. difficile/I think/not/is/are/the/of/option
    or/and/grade D./stage A:/type B/influenza A./group A) strep/the answer is/answers are
    患者/维生素C/乙肝/B超/A型/37℃/选用/答案是/答案解析/选项/。/，"""
    words = [phrase.strip() for phrase in phrases.replace("\n", "/").split("/")]
    for _ in range(2000):
        text = " ".join(source.choices(words, k=12))
        assert parse_letters(text, DRUGS) is None, text
        assert parse_letters(text, ZH, several=True) is None, text


def seconds(answer: str) -> float:
    started = time.process_time()
    parse_letters(answer, [*DRUGS, "a " * 300], several=True)
    return time.process_time() - started


@pytest.mark.parametrize("part", REPEATED)
def test_a_hundred_kilobytes_take_no_time(part: str) -> None:
    text = part * (100_000 // len(part.encode()))
    for answer in (text, "B. Metformin\n" + text, text + "\nThe answer is B."):
        # The best of a few, for a machine that does other things.
        assert any(seconds(answer) < 1 for _ in range(3))
