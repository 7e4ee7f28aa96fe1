"""Preference data: of two answers the better one is taken, and an answer marked as bad is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conversions import Convert, lines, qa, read, write

from ms_medqa.config.schema import Columns
from ms_medqa.data.columns import FormatError
from ms_medqa.data.formats import parse_record

ASK = "Can antibiotics cure influenza?"
GOOD = "No. Influenza is caused by a virus, and antibiotics act on bacteria only."
BAD = "Yes, any antibiotic does."
USER, REPLY, WORSE = ({"role": role, "content": text} for role, text in
                      (("user", ASK), ("assistant", GOOD), ("assistant", BAD)))  # fmt: skip
EARLIER = [{"role": "user", "content": "I have a fever."}, {"role": "assistant", "content": "Since when?"}]


def parse(record: Any, **columns: str) -> Any:
    return parse_record(record, Columns(**columns), name="r-1", source="")[0]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"messages": [USER, WORSE], "label": False}, r"undesirable answer \(label: false\)"),
        ({"conversations": [{"from": "human", "value": ASK}, {"from": "gpt", "value": BAD}], "kto_tag": False},
         r"undesirable answer \(kto_tag: false\)"),
        ({"messages": json.dumps([USER, WORSE]), "Label": "False"}, r"undesirable answer \(Label: false\)"),
        ({"instruction": ASK, "output": BAD, "kto_tag": False}, "undesirable"),
        ({"question": ASK, "answer": BAD, "kto_tag": "false"}, "undesirable"),
    ],
)  # fmt: skip
def test_an_undesirable_answer_is_refused(record: dict[str, Any], said: str) -> None:
    with pytest.raises(FormatError, match=said) as caught:
        parse(record)
    assert caught.value.reason == "undesirable"


@pytest.mark.parametrize("mark", [{}, {"label": True}, {"kto_tag": True}, {"label": "true"}, {"label": 0}])
def test_a_desirable_answer_is_kept(mark: dict[str, Any]) -> None:
    assert parse({"messages": [USER, REPLY], **mark}).answer == GOOD


def test_the_label_of_a_question_is_a_class() -> None:
    assert parse({"question": ASK, "answer": GOOD, "label": "false"}).label == "false"
    assert parse({"question": ASK, "choices": ["yes", "no"], "answer": "no", "label": False}).label == "B"
    # As ever: a class is a text.
    with pytest.raises(FormatError, match="'label' holds true or false") as caught:
        parse({"question": ASK, "answer": GOOD, "label": False})
    assert caught.value.reason == "broken_record"


def test_many_undesirable_answers_do_not_make_a_file_broken(convert: Convert, tmp_path: Path) -> None:
    bad = [{"messages": [USER, WORSE], "label": False}] * 20
    convert(write(tmp_path / "kto.jsonl", [*map(qa, range(10)), *bad]))
    assert read(convert.output / "report.json")["rejected"]["undesirable"] == 20
    assert lines(convert.output / "rejected.jsonl")[-1]["detail"] == "undesirable answer (label: false)"


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        (GOOD, BAD),
        (REPLY, WORSE),
        ({"from": "gpt", "value": GOOD}, {"from": "gpt", "value": BAD}),
        ({"value": GOOD}, {"value": BAD}),
        ([REPLY], [WORSE]),
        ([USER, REPLY], [USER, WORSE]),
        (json.dumps([USER, REPLY]), None),
    ],
)
@pytest.mark.parametrize(
    "asked",
    [{"messages": [USER]}, {"prompt": ASK}, {"question": ASK}, {"instruction": ASK, "input": ""}, {"prompt": [USER]}],
)
def test_the_chosen_answer_is_taken(asked: dict[str, Any], chosen: Any, rejected: Any) -> None:
    example = parse({**asked, "chosen": chosen, "rejected": rejected})
    assert (example.question, example.answer, example.history) == (ASK, GOOD, ())
    assert example.notes == ("rejected_left_out",)


def test_a_chosen_answer_after_several_rounds() -> None:
    for record in (
        {"messages": [*EARLIER, USER], "chosen": GOOD},
        {"messages": [*EARLIER, USER], "chosen": [*EARLIER, USER, REPLY]},
        {"prompt": "I have a fever.", "chosen": [*EARLIER, USER, REPLY]},
        {"chosen": [*EARLIER, USER, REPLY]},
    ):
        example = parse({**record, "rejected": BAD})
        assert (example.history, example.question, example.answer) == ((("I have a fever.", "Since when?"),), ASK, GOOD)


def test_an_answer_of_its_own_goes_before_a_chosen_one() -> None:
    pair = {"chosen": [USER, WORSE], "rejected": [USER, WORSE]}
    for record in ({"messages": [USER, REPLY]}, {"question": ASK, "answer": GOOD}):
        example = parse(record | pair)
        assert (example.answer, example.notes) == (GOOD, ())
    named = parse({"prompt": [USER], "frage": ASK, "chosen": [USER, REPLY], "rejected": BAD}, question="frage")
    assert (named.question, named.answer) == (ASK, GOOD)


def test_what_is_no_chosen_answer() -> None:
    for chosen, said in (
        ([{"role": "system", "content": "Be brief."}], "holds no assistant turn"),
        ({"dose": 5}, "'chosen' holds an object"),
    ):
        with pytest.raises(FormatError, match=said):
            parse({"question": ASK, "chosen": chosen, "rejected": BAD})
    with pytest.raises(FormatError, match="unknown columns: question, chosen"):
        parse({"question": ASK, "chosen": GOOD})
