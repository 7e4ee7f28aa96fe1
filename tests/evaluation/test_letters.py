"""Which options an answer chooses: all common ways to say it are understood."""

from __future__ import annotations

import pytest

from ms_medqa.data.shapes.options import LETTERS
from ms_medqa.evaluation.letters import parse_letters

DRUGS = ["Insulin", "Metformin", "Aspirin", "Glipizide", "None of the above"]
GERMS = ["E. coli", "Clostridium difficile", "Hepatitis B virus", "Escherichia hermannii", "C. albicans"]
CELLS = ["T细胞", "巨噬细胞", "B细胞", "NK细胞"]
GROUPS = ["O", "A", "B", "AB"]
LABELS = ["Hepatitis", "Metformin 10", "Hepatitis B", "ACE inhibitors", "Metformin 100"]
ZH = ["胰岛素", "二甲双胍", "阿司匹林", "格列吡嗪", "以上都不是"]


def each(text: str) -> list[str]:
    """Answers of one line, many a line."""
    return [answer.strip() for line in text.strip().splitlines() for answer in line.split(" | ")]


@pytest.mark.parametrize(
    "answer",
    [
        *each(r"""
    B | B. | (B) | [B] | （B） | Ｂ | Ｂ． | b | b) | (b) | b. | **B** | `B` | Option B | B. Metformin
    B. metformin. | B.Metformin | B) Metformin | (B) Metformin | B: Metformin | B - Metformin | B (Metformin)
    **B. Metformin** | **B.** Metformin | - B. Metformin | Option B: Metformin | b. metformin
    B. Metformin 500 mg twice daily | B. Metf | Metformin | metformin. | “Metformin” | **Metformin** | Answer: B
    Answer: b | ANSWER: B | **Answer:** B | **Answer: B** | ### Final answer: (B) | Answer = B | The answer is B
    The answer is b. | The answer is (B). | The answer is **B**. | The answer is "B".
    The correct answer is (B). | The correct answer is: B. Metformin | The correct answer is B) Metformin.
    The correct answer to this question is B. | The correct answer is option B. | answer is option B
    The correct option is B. | The best choice is B. | The answer should be B. | The answer is clearly B.
    The answer is B, because it lowers glucose. | The answer is B because it lowers glucose.
    The answer is B. The patient has type 2 diabetes. | The answer is metformin.
    The answer is B, metformin, not A. | Option B is correct | Option B is the correct answer. | (B) is correct.
    B is correct. | B is the best answer, since insulin comes later. | Therefore B is correct.
    I would choose B. | I choose option B. | \boxed{B} | $\boxed{B}$ | The answer is $\boxed{\text{B}}$.
    \[\boxed{(B)}\] | B. Metformin because insulin (A) is given later. | B. Explanation: it comes first.
    B because metformin comes first | A patient with diabetes needs metformin first. Therefore, the answer is B.
    A is given later. C and D are not for this patient. So the answer is B.
    It could be A or B. As the kidneys are healthy, the answer is B. | The answer is not A. The answer is B.
    I don't think the answer is A. The answer is B. | Option A is wrong. Option C is wrong. Option B is correct.
    Since it is not type 1, the answer is B. | The answer is B, not A.
    The answer is B. Hence the correct option is B. | Ans: B | The answer is (B) the drug that is given first.
    The correct answers are both B and B. | The answer is B as it lowers glucose.
    The correct answer is B. Metformin. A. Insulin is wrong. | Option A is incorrect, option B is correct.
    [Answer] B | <answer>B</answer> | {"answer": "B"} | Metformin (B) | Metformin is the correct answer.
    Metformin (B) is the correct answer. | B. Metformin is the correct answer.
    The most appropriate next step in management is **B. Metformin**. | The correct response is B. | Thus, B
    So B. | Select B. | It's B. | The answer is not A but B. | B Metformin | The answer is actually B.
    Hmm, the answer is B. | B. Metformin, as A is not first-line.
    B. Metformin because insulin is not first-line. | B</s>
    """),
        " \n B \n",
        "Answer:\nB",
        "B. Metformin\nExplanation: Insulin (A) is given later, and C is no antidiabetic.",
        "B. Metformin\nA. Insulin is wrong because it is given later.\nC. Aspirin is wrong too.",
        "B\nMetformin is the first-line drug.",
        "B\nA is wrong because it comes later.",
        "A. Insulin\nB. Metformin\nC. Aspirin\nD. Glipizide\nE. None of the above\nAnswer: B",
        "<think>The answer is A? No, wait.</think>\n\nB. Metformin",
        "B. Metformin\nOptions A, C and D are correct statements.",
        "### Answer\nB",
        "### Answer\n\n**B. Metformin**",
        '```json\n{\n  "answer": "B",\n  "why": "It is first."\n}\n```',
        "It comes first. <answer>\nB\n</answer>",
        # What ends an answer is no part of it.
        "B<|im_end|>",
        "B<|im_end|>\n<|im_start|>user\nA",
        "B<｜end▁of▁sentence｜>",
    ],
)
def test_one_option_is_found(answer: str) -> None:
    assert parse_letters(answer, DRUGS) == "B"
    # It is one of several that might be chosen, too.
    assert parse_letters(answer, DRUGS, several=True) == "B"


@pytest.mark.parametrize(
    "answer",
    [
        *each("""
    B、二甲双胍 | B．二甲双胍。 | B：二甲双胍 | （B）二甲双胍 | 选项B：二甲双胍 | 二甲双胍 | 二甲双胍。 | B项
    B选项 | 选项B | 答案：B | 答案:B。 | 答案是B | 答案是 B。 | 答案为B项 | 答案选B | 答案是：B | 答案：选B
    答案是“B” | 答案是二甲双胍。 | 答案：B. 二甲双胍 | 答案：（B） | 【答案】B
    【答案】 B 【解析】二甲双胍是首选。 | 正确答案为 B 项 | 正确答案是选项B | 正确选项是B。
    正确的答案应该是B。 | 本题答案应为B。 | 选B | 选择B。 | 应选B | 本题选B | 故选B。 | 故选：B | 故本题选B项。
    因此选B，因为首选二甲双胍。 | A项不符合题意，故选B。 | 不选A，选B。
    胰岛素用于1型糖尿病，阿司匹林不降糖。综上，正确答案是B。 | B正确 | B项正确。 | 选项B正确，其余错误。
    A错误，B正确。 | B是正确答案。 | 答案是B，而不是A。 | B。解析：二甲双胍是首选药。
    B，因为二甲双胍是首选药。 | 最可能的答案是B。 | B。二甲双胍是2型糖尿病的首选药（B对），胰岛素（A错）次之。
    二甲双胍是首选药，B为本题的正确答案。 | （二甲双胍是首选药，故B为正确答案）。 | 故正确答案为B。 | 正确的是B
    选A的人较多，但正确答案是B。 | A正确，C正确，D正确，B错误，故选B。 | 答案是二甲双胍（B）
    答案是“二甲双胍”（B）。 | 最可能的诊断是B. 二甲双胍 | B 二甲双胍 | B项符合题意 | 答案不是A，而是B。
    不选A而选B | 答案不是胰岛素，而是二甲双胍。 | 二甲双胍是正确答案。 | B. 二甲双胍，A项不正确。
    B. 二甲双胍，其余选项不符合题意 | 答案是B，应为首选药。 | 答案是B，如头痛、发热等等。
    答案是B。本题考查2型糖尿病。
    """),
        "参考答案：B\n解析：A项用于1型糖尿病，C项不降糖。",
        "B\n解析：A、C、D均不是首选药。",
        "B. 二甲双胍\nA. 胰岛素：用于1型糖尿病，错误。\nC. 阿司匹林：不降糖。",
        # What is right is no answer to the question what is wrong.
        "答案：B\nA项正确。B项错误。C项正确。D项正确。",
        "### 答案\nB",
    ],
)
def test_one_option_is_found_in_chinese(answer: str) -> None:
    assert parse_letters(answer, ZH) == "B"
    assert parse_letters(answer, ZH, several=True) == "B"


@pytest.mark.parametrize(
    ("answer", "letters"),
    [
        ("ABD", "ABD"),
        ("ＡＢＤ", "ABD"),
        ("A、B、D", "ABD"),
        ("A，B，D。", "ABD"),
        ("A, B and D", "ABD"),
        ("A, B, and D.", "ABD"),
        ("A B D", "ABD"),
        ("D, B, A", "ABD"),
        ("A和B", "AB"),
        ("(A), (B) and (D)", "ABD"),
        ("A\nB\nD", "ABD"),
        ("答案：ABD", "ABD"),
        ("答案：A、B、D", "ABD"),
        ("正确答案是A、B和D。", "ABD"),
        ("故选ABD。", "ABD"),
        ("A、B、D均正确。", "ABD"),
        ("A、B、D三项正确", "ABD"),
        ("正确的有A、B、D", "ABD"),
        ("The answer is A, B and D.", "ABD"),
        ("The correct answers are A, B, and D.", "ABD"),
        ("The correct options are:\nA\nB\nD", "ABD"),
        ("Options A, B and D are correct.", "ABD"),
        ("Option A and option B are correct.", "AB"),
        (r"\boxed{A, B, D}", "ABD"),
        ("A. Insulin\nB. Metformin\nD. Glipizide", "ABD"),
        ("A. Insulin\nB. Metformin\nD. Glipizide\nExplanation: C is no antidiabetic.", "ABD"),
        ("The correct options are:\nA. Insulin\nB. Metformin\nD. Glipizide", "ABD"),
        ("A. Insulin; B. Metformin; D. Glipizide", "ABD"),
        ("Answer: A. Insulin, B. Metformin and D. Glipizide", "ABD"),
        ("Insulin\nMetformin\nGlipizide", "ABD"),
        ("A. Insulin\nB. Metformin\nC. Aspirin\nD. Glipizide\nE. None of the above", "ABCDE"),
    ],
)
def test_several_options_are_found_where_several_may_be_right(answer: str, letters: str) -> None:
    assert parse_letters(answer, DRUGS, several=True) == letters
    assert parse_letters(answer, DRUGS) is None


@pytest.mark.parametrize("letter", list(LETTERS))
def test_every_letter_is_as_good_as_another(letter: str) -> None:
    choices = [f"drug {number}" for number in range(26)]
    text = choices[LETTERS.index(letter)]
    for answer in (
        letter,
        f"({letter.lower()})",
        f"{letter}. {text}",
        text,
        f"Answer: {letter}.",
        f"答案是{letter}。",
        f"故选{letter}",
    ):
        assert parse_letters(answer, choices) == letter, answer
        assert parse_letters(f"{answer}\n", choices, several=True) == letter, answer
    # Only as many letters are known as there are options.
    assert parse_letters(f"Answer: {letter}", choices[: LETTERS.index(letter)]) is None


@pytest.mark.parametrize(
    ("answer", "choices", "letters"),
    [
        # Germs are abbreviated by a letter and a full stop.
        ("E. coli", GERMS, "A"),
        ("A. E. coli", GERMS, "A"),
        ("The answer is E. coli.", GERMS, "A"),
        ("The answer is C. difficile.", GERMS, None),
        ("The answer is C. Difficile", GERMS, None),
        ("The answer is E. Hermannii", GERMS, None),
        ("C. albicans", GERMS, "E"),
        ("Hepatitis B virus", GERMS, "C"),
        # The text of one option may hold another's letter.
        ("答案是B细胞", CELLS, "C"),
        ("B细胞", CELLS, "C"),
        ("答案是B", CELLS, "B"),
        ("C. B细胞", CELLS, "C"),
        ("B. B细胞", CELLS, None),
        # Letters that are another option's text.
        ("B", GROUPS, None),
        ("The answer is B.", GROUPS, None),
        ("B. A", GROUPS, "B"),
        ("AB", GROUPS, "D"),
        ("O", GROUPS, "A"),
        # Texts that begin as others do.
        ("A. Hepatitis", LABELS, "A"),
        ("A. Hepatitis B", LABELS, None),
        ("C. Hepatitis B", LABELS, "C"),
        ("B. Metformin 100", LABELS, None),
        ("B. Metformin 10.5", LABELS, None),
        ("B. Metformin 10 daily", LABELS, "B"),
        ("B. Metformin", LABELS, None),
        ("The answer is hepatitis B.", LABELS, "C"),
        # Options that say the same, or nothing.
        ("yes", ["yes", "no", "yes"], None),
        ("C. yes", ["yes", "no", "yes"], "C"),
        ("A", ["", "no"], "A"),
        ("A. ", ["", "no"], "A"),
        # Options of several lines and of white space, width and markup that a model does not keep.
        ("B. one\ntwo", ["three", "one  two"], "B"),
        ("HLA-B*27", ["HLA-B*27", "HLA-B27*"], None),
        ("A. HLA-B*27", ["HLA-B*27", "HLA-DR4"], "A"),
        ("体温＞38℃", ["体温<38℃", "体温>38°C"], "B"),
        # The options that name others by letters.
        ("A and B", ["fever", "cough", "A and B", "none"], "C"),
        ("C. A and B", ["fever", "cough", "A and B", "none"], "C"),
    ],
)
def test_what_options_say_tells_letters_and_texts_apart(answer: str, choices: list[str], letters: str | None) -> None:
    assert parse_letters(answer, choices) == letters


def test_a_run_of_letters_is_no_list_where_it_is_a_word_of_an_option() -> None:
    assert parse_letters("The answer is ACE.", DRUGS, several=True) == "ACE"
    assert parse_letters("The answer is ACE.", LABELS, several=True) is None
    assert parse_letters("The answer is A, C, E.", LABELS, several=True) == "ACE"
