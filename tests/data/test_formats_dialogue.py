"""Dialogues: the layouts people have, and the rule for those that do not take turns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ms_medqa.config.schema import Columns
from ms_medqa.data.columns import FormatError
from ms_medqa.data.formats import parse_record
from ms_medqa.data.notes import NOTES

EXPECTED = ((("头痛", "多久了？"),), "三天", "建议就诊。")
LINES = ["病人：头痛", "医生：多久了？", "病人：三天", "医生：建议就诊。"]


def parse(record: Any, shape: str = "auto") -> tuple[Any, str]:
    return parse_record(record, Columns(), name="r-1", source="", shape=shape)


def turns(*said: str) -> dict[str, Any]:
    """A dialogue of `u:…`, `a:…`, `s:…` turns."""
    roles = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    return {"messages": [{"role": roles[text[0]], "content": text[2:]} for text in said]}


@pytest.mark.parametrize(
    "record",
    [
        {"conversations": [{"from": role, "value": text.split("：", 1)[1]}
                           for role, text in zip(("human", "gpt") * 2, LINES, strict=True)]},
        {"messages": json.dumps([{"role": role, "content": [{"type": "text", "text": text.split("：", 1)[1]}]}
                                 for role, text in zip(("User", "Assistant") * 2, LINES, strict=True)])},
        {"dialogue": [{"speaker": text[:2], "sentence": text[3:]} for text in LINES]},
        {"conversation": [{"human": "头痛", "assistant": "多久了？"}, {"human": "三天", "assistant": "建议就诊。"}]},
        {"conversation": [{"input": "头痛", "output": "多久了？"}, {"input": "三天", "output": "建议就诊。"}]},
        {"data": [line.replace("病人", "问").replace("医生", "答") for line in LINES]},
        {"description": "头痛三天", "utterances": LINES},
        {"dialogue": "\n".join(LINES)},
        LINES,
        [{"role": role, "content": text[3:]} for role, text in zip(("user", "assistant") * 2, LINES, strict=True)],
        {"conversations": ["头痛", "多久了？", "三天", "建议就诊。"]},
        {"instruction": "三天", "output": "建议就诊。", "history": json.dumps([["头痛", "多久了？"]])},
        {"query": "三天", "response": "建议就诊。", "history": turns("u:头痛", "a:多久了？")["messages"]},
    ],
)  # fmt: skip
def test_layouts_give_the_same_dialogue(record: Any) -> None:
    example, _ = parse(record)
    assert (example.history, example.question, example.answer) == EXPECTED
    assert example.notes == ()


@pytest.mark.parametrize(
    ("said", "pairs", "note"),
    [
        (["u:头痛", "a:多久了？", "u:三天"], [("头痛", "多久了？")], "trailing_user_turn"),
        (["a:您好！", "a:请讲。", "u:头痛", "a:多久了？"], [("头痛", "多久了？")], "leading_assistant_turn"),
        (["u:头痛", "u:三天了", "a:就诊。"], [("头痛\n三天了", "就诊。")], "joined_turns"),
        (["u:头痛", "a:多久了？", "a:发热吗？"], [("头痛", "多久了？\n发热吗？")], "joined_turns"),
        (["u:头痛", "a:多久了？", "u: ", "a:\u200b"], [("头痛", "多久了？")], "empty_turn"),
        (["s:你是医生。", "s:请简短。", "u:头痛", "a:就诊。"], [("头痛", "就诊。")], None),
    ],
)
def test_turns_out_of_order_are_settled_and_noted(said: list[str], pairs: list[Any], note: str | None) -> None:
    example, _ = parse(turns(*said))
    assert [*example.history, (example.question, example.answer)] == pairs
    assert example.notes == ((note,) if note else ())
    assert set(example.notes) <= set(NOTES)
    assert example.system == ("你是医生。\n请简短。" if said[0][0] == "s" else None)


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (turns("u:q", "t:x", "a:a"), "a turn of role 'tool'"),
        ({"messages": [{"role": "user", "content": "q"},
                       {"role": "assistant", "content": "", "tool_calls": [{"id": "1"}]}]}, "calls a tool"),
        (turns("u:q", "s:x", "a:a"), "a system turn in the middle"),
        (turns("a:a"), "needs a user turn and an assistant turn after it, this one is: assistant"),
        (turns("u:q", "a: "), r"this one is: user, assistant \(empty\)"),
        ({"messages": []}, "this one is: empty"),
        ({"messages": "no dialogue"}, "must be a list of turns"),
        ({"messages": None}, "must be a list of turns"),
        ({"messages": ["医生：好", "x"]}, "some of the turns name their speaker"),
        ({"messages": [{"from": {"name": "human"}, "value": "x"}]}, "a turn of role"),
        ({"messages": [{"from": "human", "value": {"x": 1}}]}, "holds an object"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use", "input": {}}]}]}, "part of type 'tool_use'"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}, "x"]}]}, "holds a list, not text"),
        (["病人：头痛", "三天"], "some of the turns name their speaker"),
        (["头痛", "多久了？"], "must be an object, not a list"),
        ([{"question": "头痛怎么办？", "answer": "建议就诊。"}], "must be an object, not a list"),
        ([], "must be an object, not a list"),
    ],
)  # fmt: skip
def test_what_is_no_dialogue_is_broken(record: Any, said: str) -> None:
    with pytest.raises(FormatError, match=said) as caught:
        parse(record)
    assert caught.value.reason == "broken_record"


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("<image>Which bone is broken?", "Which bone is broken?"),
        ("<image><image>\nWhich bone is broken?", "Which bone is broken?"),
        ("Which bone <image> is broken?", "Which bone is broken?"),
        ("Here is the film:\n<image>\nWhich bone is broken?", "Here is the film:\nWhich bone is broken?"),
    ],
)
@pytest.mark.parametrize("column", ["image", "images"])
def test_pictures_beside_a_dialogue_are_left_out(question: str, text: str, column: str) -> None:
    record = turns(f"u:{question}", "a:The radius.")
    example, _ = parse(record | {column: ["film.png"]})
    assert (example.question, example.answer, example.notes) == (text, "The radius.", ("picture_left_out",))
    # Without a picture it is a text like any other.
    for nothing in ({}, {column: []}, {column: None}):
        example, _ = parse(record | nothing)
        assert (example.question, example.notes) == (question, ())


def test_content_parts() -> None:
    picture = {"type": "image_url", "image_url": {"url": "film.png"}}
    asked = [{"type": "text", "text": "The wrist hurts."}, picture, {"type": "input_text", "text": "Is it broken?"}]
    said = [{"type": "text", "value": "The film shows a broken radius."}]
    record = {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
    example, _ = parse(record)
    assert example.question == "The wrist hurts.\nIs it broken?"
    assert (example.answer, example.notes) == ("The film shows a broken radius.", ("picture_left_out",))
    asked.remove(picture)
    assert parse(record)[0] == example
    assert parse(record)[0].notes == ()
