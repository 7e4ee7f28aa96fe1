"""Questions and answers under the names that people give them; lists, mixed shapes, and what the user says of it."""

from __future__ import annotations

from typing import Any

import pytest

from ms_medqa.config.schema import Columns
from ms_medqa.data.columns import UnknownColumnsError
from ms_medqa.data.example import Example, PlainText
from ms_medqa.data.formats import SHAPES, parse_record


def parse(record: Any, shape: str = "auto", **columns: str) -> tuple[Any, str]:
    return parse_record(record, Columns(**columns), name="r-1", source="r.json", shape=shape)


@pytest.mark.parametrize(
    ("record", "question", "answer", "shape"),
    [
        ({"query": "感冒怎么办？", "response": "休息。"}, "感冒怎么办？", "休息。", "query, response"),
        ({"ask": "感冒怎么办？", "reply": "休息。"}, "感冒怎么办？", "休息。", "ask, reply"),
        ({"提问": "感冒怎么办？", "回复": "休息。"}, "感冒怎么办？", "休息。", "提问, 回复"),
        ({"问题": "感冒怎么办？", "解答": "休息。"}, "感冒怎么办？", "休息。", "问题, 解答"),
        ({"Question": "Flu?", "Complex_CoT": "…", "Response": "Rest."}, "Flu?", "Rest.", "question, response"),
        ({"input": "感冒怎么办？", "target": "休息。"}, "感冒怎么办？", "休息。", "input, target"),
        ({"instruction": "回答", "input": "感冒？", "answer": "休息。"}, "回答\n感冒？", "休息。",
         "instruction, answer"),
        ({"title": "感冒怎么办", "answer": "休息。"}, "感冒怎么办", "休息。", "title, answer"),
        ({"Description": "d", "Patient": "I have a cold", "Doctor": "Rest."}, "I have a cold", "Rest.",
         "patient, doctor"),
    ],
)  # fmt: skip
def test_common_names(record: dict[str, str], question: str, answer: str, shape: str) -> None:
    example, words = parse(record)
    assert (example.question, example.answer) == (question, answer)
    assert words == f"question and answer ({shape})"


@pytest.mark.parametrize(
    ("title", "ask", "question"),
    [
        ("高血压", "我爸爸血压 160，吃什么药？", "高血压\n我爸爸血压 160，吃什么药？"),
        ("怎么退烧", "怎么退烧", "怎么退烧"),
        ("怎么退烧", "孩子发热，怎么退烧？", "孩子发热，怎么退烧？"),
        ("孩子发热怎么退烧", "怎么退烧", "孩子发热怎么退烧"),
        ("怎么退烧", "无", "怎么退烧"),
        ("", "怎么退烧", "怎么退烧"),
    ],
)
@pytest.mark.parametrize("body", ["ask", "content"])
def test_a_title_belongs_to_the_question(title: str, ask: str, question: str, body: str) -> None:
    example, words = parse({"department": "内科", "title": title, body: ask, "answer": "遵医嘱。"})
    assert example.question == question
    assert words == f"question and answer (title + {body}, answer)"


@pytest.mark.parametrize(
    ("text", "question"),
    [
        ("I am 24 and my knee hurts after cycling.", "Knee pain?\nI am 24 and my knee hurts after cycling."),
        ("I am 24. Knee pain?", "I am 24. Knee pain?"),
        ("I am 24, with knee pain!", "I am 24, with knee pain!"),
        ("knee", "Knee pain?"),
        ("", "Knee pain?"),
        (None, "Knee pain?"),
    ],
)
def test_a_question_beside_its_full_text_is_a_title(text: str | None, question: str) -> None:
    record = {"question": "Knee pain?", "question_text": text, "answer": "Rest the knee for some days."}
    example, words = parse(record)
    assert example.question == question
    assert words == "question and answer (question + question_text, answer)"
    assert parse(record, question="question")[0].question == "Knee pain?"


def test_a_title_beside_a_question_is_the_title_of_a_document() -> None:
    example, _ = parse({"title": "Fever", "context": "c", "question": "q?", "answers": {"text": ["a", "b"]}})
    assert (example.question, example.answer, example.context) == ("q?", "a", "c")


@pytest.mark.parametrize(
    ("questions", "answers", "question", "answer", "notes"),
    [
        (["问一", "问二"], "答", "问一", "答", ("first_phrasing",)),
        ([["问一", "问二"]], ["答"], "问一", "答", ("first_phrasing",)),
        ([["", "问二"]], ["答一", "答二"], "问二", "答一\n答二", ()),
        ([["问一", "又问一"], ["问二"]], ["答一", "答二"], "问一", "答一", ("first_pair", "first_phrasing")),
        ([["问一"], ["问二"]], ["答"], "问一", "答", ("first_phrasing",)),
        ('["问一", "问二"]', "答", "问一", "答", ("first_phrasing",)),
        ("问", ["答一", "答二"], "问", "答一\n答二", ()),
        ([], "答", "", "答", ()),
    ],
)
def test_lists(questions: Any, answers: Any, question: str, answer: str, notes: tuple[str, ...]) -> None:
    example, _ = parse({"questions": questions, "answers": answers})
    assert (example.question, example.answer, example.notes) == (question, answer, notes)


def test_notes_are_of_the_reading_and_not_of_the_record() -> None:
    example, _ = parse({"question": ["问一", "问二"], "answer": "答"})
    assert example == parse({"question": "问一", "answer": "答"})[0]
    assert "notes" not in example.to_dict()
    assert Example.from_dict(example.to_dict() | {"notes": 7}).notes == ()


@pytest.mark.parametrize(
    "context", [["c1", "c2"], {"contexts": ["c1", "c2"], "labels": ["BACKGROUND", "RESULTS"]}]
)  # fmt: skip
def test_pubmedqa_in_both_layouts(context: Any) -> None:
    record = {"QUESTION": "q?", "CONTEXT": context, "LONG_ANSWER": "It does.", "final_decision": "yes"}
    example, _ = parse(record)
    assert (example.context, example.answer, example.label) == ("c1\nc2", "It does.", "yes")
    del record["LONG_ANSWER"]
    assert parse(record)[0].answer == "yes"


def test_what_convert_has_written_reads_the_same_again() -> None:
    for record in (
        {"question": "q", "context": "c", "answer": "a", "key": "k", "split": "dev"},
        {"instruction": "q", "input": "", "output": "a", "history": [["x", "y"]], "system": "s"},
        {"question": "q", "options": ["x", "y"], "answer": "B", "explanation": "Because.\nSo it is."},
        {"question": "q", "options": ["x", "y", "z"], "answer": "AC"},
        {"instruction": '["as JSON"]', "output": '["x", "y"]'},
        {"QUESTION": "q", "CONTEXTS": ["c"], "LONG_ANSWER": "a", "final_decision": "no"},
    ):
        example, _ = parse(record)
        assert parse(example.to_dict() | {"source": "other"})[0] == example


def test_each_record_of_a_mixed_file_has_its_own_shape() -> None:
    records = [
        {"question": "q", "answer": "a"},
        {"instruction": "q", "output": "a"},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"question": "q", "options": ["x", "y"], "answer": "A"},
        {"text": "t"},
    ]
    shapes = [parse(record)[1].split(" (")[0] for record in records]
    assert shapes == ["question and answer", "alpaca", "dialogue", "exam question", "plain text"]


def test_the_user_says_the_shape() -> None:
    record = {
        "instruction": "i", "output": "o", "question": "q", "answer": "B", "options": ["x", "y"], "content": "t",
        "messages": [{"role": "user", "content": "mq"}, {"role": "assistant", "content": "ma"}],
    }  # fmt: skip
    found = {shape: parse(record, shape)[0] for shape in SHAPES}
    assert found["auto"] == found["dialogue"]
    assert found["dialogue"].question == "mq"
    assert (found["qa"].question, found["qa"].answer, found["qa"].choices) == ("q", "B", None)
    assert found["alpaca"].question == "i"
    assert found["exam"].answer == "B. y"
    assert found["text"] == PlainText("r-1", "t", "r.json")
    for shape in SHAPES[1:]:
        with pytest.raises(UnknownColumnsError, match=f"data.shape={shape} needs .*; columns: x"):
            parse({"x": 1}, shape)


def test_columns_that_the_user_names_go_before_dialogue_and_alpaca() -> None:
    record = {"instruction": "i", "output": "o", "messages": [], "frage": "q", "antwort": "a", "id": {"$oid": "1"}}
    example, _ = parse(record, question="frage", answer="antwort")
    assert (example.question, example.answer, example.id) == ("q", "a", "r-1")
