"""Which class an answer names: as a word of its own, and not where it says that it is another."""

from __future__ import annotations

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
    ],
)
def test_a_class_that_is_part_of_another(answer: str, number: int | None) -> None:
    assert parse_label(answer, ["内科", "神经内科", "外科"]) == number


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("不是内科，应挂外科", 1),
        ("不建议挂内科，建议挂外科", 1),
        ("Not Cardiology, but Neurology", 3),
    ],
)
def test_a_class_that_is_denied_is_not_named(answer: str, number: int) -> None:
    assert parse_label(answer, ["内科", "外科", "Cardiology", "Neurology"]) == number


@pytest.mark.parametrize(
    ("answer", "number"),
    [
        ("No significant difference was found, so the answer is yes.", 0),
        ("There is no evidence to answer", None),
        ("I have no idea", None),
        ("No, it does not.", 1),
        ("Yes. It does.", 0),
    ],
)
def test_a_verdict_is_no_word_of_a_sentence(answer: str, number: int | None) -> None:
    assert parse_label(answer, ["yes", "no", "maybe"]) == number
