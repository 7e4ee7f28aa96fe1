"""Which class an answer names: announced ones first, and none that is denied."""

from __future__ import annotations

import time

import pytest

from ms_medqa.evaluation.labels import parse_label


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("yes", 0),
        ("Yes, it does.", 0),
        ("**No**", 1),
        ("The answer is maybe.", 2),
        ("Ｙｅｓ", 0),
        ("Nothing is known.", None),
        ("No\nIt does not.", 1),
        ("No, it does not.", 1),
        ("Yes. It does.", 0),
        ("Yes because it helps", 0),
        ("yes<|im_end|>", 0),
        ("no<|im_end|> The answer is yes.", 1),
        ("<think>The answer is yes? But no.</think>\n\nNo", 1),
        ('{"answer": "yes"}', 0),
        ("<answer>no</answer>", 1),
        ("Answer: **no**", 1),
        ("\\boxed{yes}", 0),
        ("答案是no。", 1),
        ("No significant difference was found, so the answer is yes.", 0),
        ("Yes, at first. But on balance, the answer is no.", 1),
        ("No significant difference was found.", None),
        ("There is no evidence to answer", None),
        ("I have no idea", None),
        ("The answer is no significant difference", None),
        ("The answer is not yes.", None),
        ("I don't think the answer is yes.", None),
        ("The answer is yes or no", None),
        ("The answer is yes. The answer is no.", None),
        ("yes/no", None),
        ("Yes?", None),
        ("yes or no", None),
        ("It may be yes or no", None),
        ("", None),
    ],
)
def test_a_verdict_is_found_as_a_word_of_its_own(answer: str, number: int | None) -> None:
    assert parse_label(answer, ["yes", "no", "maybe"]) == number


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("内科", 0),
        ("神经内科", 1),
        ("建议去神经内科就诊", 1),
        ("内科或神经内科", None),
        ("神经内科。可再看外科", 1),
        ("儿科", None),
        ("答案：内科", 0),
        ("【答案】外科", 2),
        ("内科可以看。答案是外科", 2),
        ("答案不是内科", None),
    ],
)
def test_a_class_that_is_part_of_another(answer: str, number: int | None) -> None:
    assert parse_label(answer, ["内科", "神经内科", "外科"]) == number


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("不是内科，应挂外科", 2),
        ("不建议挂内科，建议挂外科", 2),
        ("不是内科而是外科", 2),
        ("无需挂内科。外科即可", 2),
        ("内科，不是外科", 0),
        ("不是内科", None),
        ("勿挂内科", None),
        # These deny something else.
        ("非常建议内科", 0),
        ("吞咽不适应挂内科", 0),
        ("不能行走，请去内科", 0),
        ("Not Cardiology, but Neurology", 4),
        ("not cardiology but neurology", 4),
        ("I wouldn't go to cardiology.", None),
        ("Cardiology and Neurology", None),
        # A class with a comma is one clause.
        ("Not head,\nneck surgery", None),
        ("head,\nneck surgery", 5),
    ],
)
def test_a_class_that_is_denied_is_not_named(answer: str, number: int | None) -> None:
    labels = ["内科", "神经内科", "外科", "Cardiology", "Neurology", "Head, neck surgery"]
    assert parse_label(answer, labels) == number


@pytest.mark.parametrize(
    "part", ["no ", "the answer is yes ", "not yes ", "yes, ", "yes   ", "答案是", "不内科", "_", '"']
)
def test_a_hundred_kilobytes_of_an_answer_take_no_time(part: str) -> None:
    started = time.process_time()
    parse_label(part * (100_000 // len(part.encode())), ["yes", "no", "内科"])
    assert time.process_time() - started < 1
