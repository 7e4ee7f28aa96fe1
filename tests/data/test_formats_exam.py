"""Exam questions of every layout become the same Example: options in the question, the right one as answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.config.schema import Columns
from ms_medqa.data.columns import FormatError
from ms_medqa.data.formats import FileHints, hints_of, parse_record
from ms_medqa.data.readers import open_raw

STEM = "Which vitamin prevents scurvy?"
TEXTS = ("Vitamin A", "Vitamin C", "Vitamin D", "Vitamin K")
SHOWN = f"{STEM}\nA. Vitamin A\nB. Vitamin C\nC. Vitamin D\nD. Vitamin K"
OBJECT = dict(zip("ABCD", TEXTS, strict=True))


def parse(record: Any, hints: FileHints | None = None, **columns: str) -> tuple[Any, str]:
    return parse_record(record, Columns(**columns), name="r-1", source="", hints=hints or FileHints())


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"question": STEM, "options": OBJECT, "answer": "Vitamin C", "answer_idx": "B", "meta_info": "step1"},
         "question, options, answer_idx"),
        ({"question": STEM, "options": dict(reversed(OBJECT.items())), "answer": "Vitamin C"},
         "question, options, answer"),
        ({"question": STEM, "options": [{"key": k, "value": v} for k, v in OBJECT.items()], "answer": "B"},
         "question, options, answer"),
        ({"question": STEM, "opa": TEXTS[0], "opb": TEXTS[1], "opc": TEXTS[2], "opd": TEXTS[3], "cop": 2, "exp": None},
         "question, opa to opd, cop"),
        ({"question": STEM, "option": OBJECT | {"E": ""}, "answer": "B", "question_type": "单项选择题"},
         "question, option, answer"),
        ({"Question": STEM, "Options": "\n".join(f"{k} {v}" for k, v in OBJECT.items()), "Answer": "B"},
         "question, options, answer"),
        ({"Question": STEM, "Options": " ".join(f"{k}. {v}" for k, v in OBJECT.items()), "Answer": " b "},
         "question, options, answer"),
        ({"Question": STEM, "Options": "\n".join(TEXTS), "Answer": "（B）"}, "question, options, answer"),
        ({"": "0", "Question": STEM, **OBJECT, "Answer": "B"}, "question, a to d, answer"),
        ({"question": STEM, "subject": "x", "choices": list(TEXTS), "answer": 1}, "question, choices, answer"),
        ({"question": STEM, "choices": {"text": list(TEXTS), "label": list("1234")}, "answerKey": "2"},
         "question, choices, answerkey"),
        ({"passage": None, "question": STEM, "options": [f"({k}){v}" for k, v in OBJECT.items()], "label": "B",
          "answer": None}, "question, options, label"),
        ({"question": STEM, "options": list(TEXTS), "answer": "B. Vitamin C"}, "question, options, answer"),
        ({"question": STEM, "options": list(TEXTS), "answer": "正确答案是：B"}, "question, options, answer"),
        ({"question": STEM, "answers": {k.lower(): v for k, v in OBJECT.items()}, "correct_answers": ["b"],
          "nbr_correct_answers": 1}, "question, answers, correct_answers"),
        ({"question": STEM, "answers": json.dumps(OBJECT), "correct_answer": "B"}, "question, answers, correct_answer"),
        ({"Question": STEM, "Options": r"\n".join(f"{k} {v}" for k, v in OBJECT.items()), "Answer": "B"},
         "question, options, answer"),
    ],
)  # fmt: skip
def test_layouts_give_the_same_question(record: dict[str, Any], words: str) -> None:
    example, shape = parse(record)
    assert example.question == SHOWN
    assert (example.choices, example.label, example.answer) == (TEXTS, "B", "B. Vitamin C")
    assert shape == f"exam question ({words})"


def test_an_infinite_number_is_no_option() -> None:
    records = [{"question": STEM, "options": OBJECT, "answer_idx": float("inf")}]
    with pytest.raises(FormatError, match="none of the options"):
        parse(records[0], hints_of(records))


@pytest.mark.parametrize("answer", ["ABD", "A,B,D", "D、B、A", "A B D", ["A", "B", "D"], [0, 1, 3], "abd".upper()])
def test_several_right_answers(answer: Any) -> None:
    example, _ = parse({"question": STEM, "option": OBJECT, "answer": answer, "explanation": "解释。"})
    assert example.label == "ABD"
    assert example.answer == "A. Vitamin A\nB. Vitamin C\nD. Vitamin K\n解释。"


def test_chinese_options_in_one_cell() -> None:
    cell = "A苦咸\nB甘苦\nC辛，可入 B 组\nD酸咸\nE辛苦"
    example, _ = parse({"Question": "朴硝的性味是", "Options": cell, "Answer": "A", "Explanation": "朴硝味苦咸。"})
    assert example.choices == ("苦咸", "甘苦", "辛，可入 B 组", "酸咸", "辛苦")
    assert example.answer == "A. 苦咸\n朴硝味苦咸。"


def test_escaped_line_breaks_between_options() -> None:
    tastes = ("苦咸", "甘苦", "辛苦")
    for cell in (r"A苦咸\nB甘苦\nC辛苦", r"A.苦咸\n B.甘苦\n C.辛苦"):
        assert parse({"Question": "朴硝的性味是", "Options": cell, "Answer": "A"})[0].choices == tastes
    # Letters of their own, and a backslash that is no line break.
    for cell in (r"A型\nB型\nAB型\nO型", r"A $\nu$ B"):
        with pytest.raises(FormatError, match="cannot be told apart"):
            parse({"Question": "下列哪种血型的红细胞没有 A、B 抗原？", "Options": cell, "Answer": "A"})


def test_answers_are_options_only_beside_the_right_one() -> None:
    options = {key.lower(): text for key, text in OBJECT.items()}
    example, _ = parse({"question": STEM, "answers": options, "correct_answers": ["d", "b"]})
    assert (example.label, example.answer) == ("BD", "B. Vitamin C\nD. Vitamin K")
    with pytest.raises(FormatError, match="'answers' holds an object"):
        parse({"question": STEM, "answers": options})
    squad = {"text": ["Vitamin C"], "answer_start": [0]}
    assert parse({"question": STEM, "answers": squad, "correct_answers": ["b"]})[0].answer == "Vitamin C"


def test_options_that_begin_with_a_letter_of_their_own() -> None:
    example, _ = parse(
        {"Question": "下列哪种血型的红细胞没有 A、B 抗原？", "Options": "A型\nB型\nAB型\nO型", "Answer": "D"}
    )
    assert example.choices == ("A型", "B型", "AB型", "O型")
    many = [f"第{number}项" for number in range(27)]
    with pytest.raises(FormatError, match="holds 27 options"):
        parse({"question": STEM, "options": "\n".join(many), "answer": "A"})


def test_scienceqa() -> None:
    record = {
        "question": STEM, "choices": list(TEXTS), "answer": 1, "hint": "Scurvy is a lack of one vitamin.",
        "lecture": "Vitamins are needed in small amounts.", "solution": "Vitamin C prevents scurvy.", "image": None,
    }  # fmt: skip
    example, _ = parse(record)
    assert example.context == "Scurvy is a lack of one vitamin."
    assert example.answer == "B. Vitamin C\nVitamins are needed in small amounts.\nVitamin C prevents scurvy."
    assert example.notes == ()
    assert parse(record | {"image": {"path": "image.png"}})[0].notes == ("picture_left_out",)


def mcq(cop: int) -> dict[str, Any]:
    return {"question": STEM, "opa": TEXTS[0], "opb": TEXTS[1], "opc": TEXTS[2], "opd": TEXTS[3], "cop": cop}


def test_a_zero_in_the_file_tells_that_cop_is_counted_from_zero() -> None:
    assert parse(mcq(1))[0].label == "A"
    # Without the rest of the file a 0 is no option, rather than a wrong one.
    with pytest.raises(FormatError, match="'0' is none of the options A to D"):
        parse(mcq(0))
    hints = hints_of(map(mcq, (2, 3, 0, 1)))
    assert [parse(mcq(cop), hints)[0].label for cop in (0, 1, 3)] == ["A", "B", "D"]
    assert parse(mcq(4), hints_of(map(mcq, (2, 4))))[0].label == "D"
    others = [{"question": STEM, "choices": list(TEXTS), "answer": number} for number in (1, 4)]
    assert parse(others[0], hints_of(others))[0].label == "A"


def test_a_test_set_with_secret_answers_has_empty_ones() -> None:
    example, _ = parse(mcq(-1))
    assert (example.question, example.answer, example.label) == (SHOWN, "", None)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"options": OBJECT, "answer": "E"}, "'E' is none of the options A to D"),
        ({"options": OBJECT, "answer": "Take some rest."}, "is none of the options"),
        ({"options": OBJECT, "answer": True}, "is none of the options"),
        ({"options": OBJECT, "answer": 4}, "is none of the options"),
        ({"options": OBJECT, "answer": "Vitamin D", "answer_idx": "B"}, "'answer' says C, column 'answer_idx' says B"),
        ({"options": {"A": "x"}, "answer": "A"}, "holds 1 options"),
        ({"options": OBJECT | {"B": " "}, "answer": "A"}, "option B is empty"),
        ({"options": "only one", "answer": "A"}, "cannot be told apart"),
        ({"options": 5, "answer": "A"}, "holds a number, not options"),
    ],
)
def test_a_question_whose_answer_is_not_sure_is_broken(record: dict[str, Any], said: str) -> None:
    with pytest.raises(FormatError, match=said) as caught:
        parse({"question": STEM} | record)
    assert caught.value.reason == "broken_record"


def test_options_that_are_letters_or_the_same() -> None:
    letters = {"A": "B", "B": "C", "C": "D", "D": "E"}
    assert parse({"question": STEM, "options": letters, "answer": "B", "answer_idx": "A"})[0].label == "A"
    same = {"A": "rest", "B": "rest", "C": "work"}
    assert parse({"question": STEM, "options": same, "answer": "rest", "answer_idx": "B"})[0].label == "B"
    assert parse({"question": STEM, "options": {"A": "x", "B": "BA"}, "answer": "BA"})[0].label == "B"


def test_the_columns_of_an_mmlu_file_are_implied(tmp_path: Path) -> None:
    path = tmp_path / "anatomy_test.csv"
    path.write_text(f'{STEM},{",".join(TEXTS)},B\n"Which of these,\nthen?",a,"b ""c""",d,a,D\n', encoding="utf-8")
    words, raws = open_raw(path)
    assert words == "CSV without a header"
    first, second = (parse(raw.value)[0] for raw in raws)
    assert (first.question, first.answer) == (SHOWN, "B. Vitamin C")
    assert (second.question.split("\nA. ")[0], second.label) == ("Which of these,\nthen?", "D")


@pytest.mark.parametrize(
    "header", ["question,A,B,C,D,answer", "id,question,A,B,C,D", "question,answer", "A,B,C,D,E,F", "x,,b,c,d,A"]
)
def test_a_header_is_not_taken_for_a_question(tmp_path: Path, header: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(f"{header}\n{','.join('1' for _ in header.split(','))}\n", encoding="utf-8")
    words, raws = open_raw(path)
    assert words == "CSV"
    assert [list(raw.value) for raw in raws] == [header.split(",")]


def test_an_explanation_of_nan_is_none(tmp_path: Path) -> None:
    record = {"question": STEM, "options": OBJECT, "answer": "B", "explanation": "nan", "context": "NaN"}
    example = parse(record)[0]
    assert (example.answer, example.context) == ("B. Vitamin C", None)


def test_the_shared_exam_is_read_whole(shared_data: Path) -> None:
    lines = (shared_data / "medqa_us" / "medqa_us_4opt_test.jsonl").read_text("utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        example, _ = parse(record)
        assert example.label == record["answer_idx"]
        assert example.answer == f"{example.label}. {example.choices['ABCD'.index(example.label)]}"
        assert parse(example.to_dict())[0] == example
