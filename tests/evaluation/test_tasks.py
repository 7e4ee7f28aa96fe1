"""Each kind of task: what models are asked, and what figures come of what they say."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from sklearn.metrics import f1_score

from ms_medqa.config import UserError
from ms_medqa.config.schema import EvalSection
from ms_medqa.data.prompt import Prompt
from ms_medqa.evaluation.contestants import Contestant
from ms_medqa.evaluation.items import read_items
from ms_medqa.evaluation.outcome import Outcome
from ms_medqa.evaluation.report.build_examples import examples_of
from ms_medqa.evaluation.task import Measured, Spec, Task
from ms_medqa.evaluation.tasks import KINDS, parse_spec, parse_specs
from ms_medqa.evaluation.trees import Score

EXAM = [
    {"id": "one", "question": "缺铁性贫血首选？", "options": {"A": "休息", "B": "补铁", "C": "手术"}, "answer": "B"},
    {"id": "two", "question": "Which is a vitamin?", "options": {"A": "Iron", "B": "Ascorbic acid"}, "answer": "B"},
    {"id": "both", "question": "哪些是症状？", "options": {"A": "头痛", "B": "药物", "C": "发热"}, "answer": "AC"},
]


@functools.cache
def prompt() -> Prompt:
    return tiny.qa().prompt


def make(tmp_path: Path, kind: str, records: Sequence[Mapping[str, Any]], **settings: Any) -> Task:
    path = tmp_path / f"{kind}.jsonl"
    path.write_text("\n".join(json.dumps(record, ensure_ascii=False) for record in records), encoding="utf-8")
    return KINDS[kind](Spec(kind, kind, str(path)), read_items(path), EvalSection(**settings))


def figures(task: Task, measured: Sequence[Measured]) -> dict[str, tuple[float, int]]:
    """Name -> (value, number of items)."""
    found = task.figures(list(zip(task.items, measured, strict=True)))
    return {one.name: (one.value, one.n) for one in found}


def scored(*losses: float) -> list[list[Score]]:
    """Branches of one tree with these losses."""
    return [[Score(), *(Score(loss, 0, 1) for loss in losses)]]


def test_options_are_scored_as_training_writes_them(tmp_path: Path) -> None:
    for form, texts in (
        ("line", ["A. 休息", "B. 补铁", "C. 手术"]),
        ("letter", ["A", "B", "C"]),
        ("text", ["休息", "补铁", "手术"]),
    ):
        task = make(tmp_path, "choice", EXAM, options=form)
        asked = task.asked(task.items[0], prompt())
        [tree] = asked.trees
        start = prompt().encode_prompt(task.items[0].record)
        assert list(tree.trunk) == list(asked.prompt or ()) == start
        assert [prompt().tokenizer.decode(branch) for branch in tree.branches] == texts
    # Which of all sets of options is likeliest, a likelihood of single options does not tell.
    assert not task.asked(task.items[2], prompt()).trees


def test_choice_figures_and_over_how_many_items_they_are(tmp_path: Path) -> None:
    task = make(tmp_path, "choice", EXAM)
    # By likelihood A, by likelihood over length B ("B. Ascorbic acid" is longer).
    measured = [
        Measured(scored(3.0, 2.0, 4.0), "答案是B。", finished=True),
        Measured(scored(5.0, 6.0), "It depends.", finished=True),
        Measured([], "A、C", finished=True),
    ]
    assert figures(task, measured) == {
        "accuracy": (0.5, 2),
        "accuracy_norm": (1.0, 2),
        "macro_f1": (pytest.approx(f1_score([1, 1], [1, 0], labels=[1], average="macro")), 2),
        "letter_accuracy": (pytest.approx(2 / 3), 3),
        "letter_macro_f1": (pytest.approx(2 / 3), 2),
        "parsed_rate": (pytest.approx(2 / 3), 3),
        "empty_rate": (0.0, 3),
    }
    assert task.row(task.items[1], measured[1]) == {
        "pick": "A",
        "pick_norm": "B",
        "log_likelihoods": [-5.0, -6.0],
        "answer": "It depends.",
        "letters": None,
    }
    assert task.row(task.items[2], measured[2]) == {"answer": "A、C", "letters": "AC"}
    # Without answers, their figures are not there.
    quiet = make(tmp_path, "choice", EXAM, generate=False)
    measured = [Measured(scored(3.0, 2.0, 4.0)), Measured(scored(5.0, 6.0))]
    assert set(figures(quiet, measured)) == {"accuracy", "accuracy_norm", "macro_f1"}


def test_examples_are_in_the_order_of_one_score(tmp_path: Path) -> None:
    """Log-likelihoods of the one right option where there are any; sets of letters only among themselves."""
    task = make(tmp_path, "choice", EXAM)
    assert task.score_is == "margin"
    assert task.score(task.items[0], Measured(scored(3, 1, 2))) == pytest.approx(1)
    assert task.score(task.items[2], Measured(answer="AC")) is None
    task = make(tmp_path, "choice", EXAM[2:])
    assert task.score_is == "all_letters"
    assert [task.score(task.items[0], Measured(answer=letters)) for letters in ("AC", "AB")] == [1, 0]


def test_the_examples_are_the_clearest_of_either_kind(tmp_path: Path) -> None:
    records = [EXAM[1] | {"id": f"{number}"} for number in range(30)]
    task = make(tmp_path, "choice", records)
    models = [Contestant("base", "b"), Contestant("tuned", "b", "t", base="base")]

    def found(gains: Sequence[float]) -> list[str]:
        before = [(item, Measured(scored(2, 1))) for item in task.items]
        after = [(item, Measured(scored(2 + gain, 1))) for item, gain in zip(task.items, gains, strict=True)]
        outcome = Outcome(task, {"base": before, "tuned": after}, [])
        return [example["id"] for example in examples_of(outcome, models)["examples"]]

    numbers = [str(number) for number in range(30)]
    # Each gains more than the one before it.
    assert found([1.0 + number for number in range(30)]) == numbers[:9:-1]
    assert found([number - 14.5 for number in range(30)]) == [*numbers[:10], *numbers[:19:-1]]
    assert found([number - 3.5 for number in range(30)]) == [*numbers[:4], *numbers[:13:-1]]


def test_a_question_about_a_picture_is_none(tmp_path: Path) -> None:
    task = make(tmp_path, "choice", [*EXAM, EXAM[0] | {"id": "seen", "image": "seen.png"}])
    assert [item.id for item in task.items] == ["one", "two", "both"]
    assert [(one.id, one.reason) for one in task.skipped] == [
        ("seen", "the question comes with a picture, which is not read")
    ]


def test_verdicts_of_pubmedqa_are_options(tmp_path: Path) -> None:
    records = [
        {"QUESTION": "Does aspirin help?", "CONTEXTS": ["It does."], "LONG_ANSWER": "It does.", "final_decision": label}
        for label in ("yes", "maybe")
    ]
    task = make(tmp_path, "choice", records)
    [tree] = task.asked(task.items[0], prompt()).trees
    assert [prompt().tokenizer.decode(branch) for branch in tree.branches] == ["yes", "no", "maybe"]
    measured = [Measured(scored(1.0, 2.0, 3.0), "Yes, it does."), Measured(scored(1.0, 2.0, 3.0), "")]
    assert figures(task, measured)["accuracy"] == (0.5, 2)
    assert figures(task, measured)["letter_accuracy"] == (0.5, 2)
    assert task.row(task.items[0], measured[0])["letters"] == "yes"


def test_classes_are_those_of_the_items_whatever_the_limit(tmp_path: Path) -> None:
    records = [
        {"question": f"第{number}位病人看什么科？", "answer": name}
        for number, name in enumerate(["心内科", "骨科", "心内科", "消化内科"])
    ]
    task = make(tmp_path, "classify", records, limit=3)
    assert len(task.items) == 3
    [tree] = task.asked(task.items[0], prompt()).trees
    assert [prompt().tokenizer.decode(branch) for branch in tree.branches] == ["心内科", "消化内科", "骨科"]
    # Losses over lengths 3, 4 and 2: the third, the first, the second.
    measured = [
        Measured(scored(3.0, 4.0, 1.0), "心内科"),
        Measured(scored(1.0, 4.0, 2.0), "请到骨科就诊"),
        Measured(scored(3.0, 1.0, 2.0), "心内科或骨科"),
    ]
    found = figures(task, measured)
    assert found["accuracy"] == (0.0, 3)
    assert found["generated_accuracy"] == (pytest.approx(2 / 3), 3)
    assert found["macro_f1"][0] == pytest.approx(f1_score([0, 2, 0], [2, 0, 1], labels=[0, 2], average="macro"))
    item = task.items[1]
    assert (task.right_label(item), task.given_label(item, measured[1])) == ("骨科", "心内科")
    with pytest.raises(UserError, match="1 classes"):
        make(tmp_path, "classify", records[:1])


def test_perplexity_scores_each_token_of_a_text_once(tmp_path: Path) -> None:
    text = "高血压患者应当低盐饮食。" * 60
    task = make(tmp_path, "perplexity", [{"text": text}, {"question": "头痛怎么办？", "answer": "多休息。"}])
    tokenizer = prompt().tokenizer
    ids = tokenizer.encode(text)
    asked = task.asked(task.items[0], prompt())
    assert asked.prompt is None
    assert [tree.trunk[place] for tree in asked.trees for place in tree.targets] == ids
    assert len(asked.trees) > 1
    # The first token stands behind the end token, where there is no start token; the last window is as long as others.
    assert asked.trees[0].trunk[0] == tokenizer.eos_token_id
    assert {len(tree.trunk) for tree in asked.trees} == {512}
    measured = [Measured([[Score(2.0, 1, 4)], [Score(4.0, 1, 2)]]), Measured([[Score(1.0, 0, 1)]])]
    found = figures(task, measured)
    size = len(text.encode()) + len("头痛怎么办？\n多休息。".encode())
    assert found["perplexity"][0] == pytest.approx(2.718281828 ** (7 / 7))
    assert found["bits_per_byte"][0] == pytest.approx(7 / 0.693147181 / size)
    assert found["token_accuracy"][0] == pytest.approx(2 / 7)


def test_several_right_options_need_an_answer(tmp_path: Path) -> None:
    task = make(tmp_path, "choice", EXAM, generate=False)
    assert [item.id for item in task.items] == ["one", "two"]
    assert "several right options" in task.skipped[0].reason


@pytest.mark.parametrize(
    ("kind", "record", "reason"),
    [
        ("qa", {"text": "只是文字"}, "plain text has no question"),
        ("choice", EXAM[0] | {"answer": "", "label": ""}, "not told"),
        ("choice", {"question": "头痛怎么办？", "answer": "多休息。"}, "no options"),
        ("choice", EXAM[0] | {"answer": "E"}, "none of the options A to C"),
    ],
)
def test_what_a_task_cannot_use_is_skipped_with_its_reason(
    kind: str, record: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    good = EXAM[0] if kind == "choice" else {"question": "头痛怎么办？", "answer": "多休息。"}
    task = make(tmp_path, kind, [good, record])
    assert len(task.items) == 1
    [skipped] = task.skipped
    assert reason in skipped.reason


def test_tasks_are_named_on_the_command_line() -> None:
    assert parse_spec("choice=a.jsonl") == Spec("choice", "choice", "a.jsonl")
    assert parse_spec("cmb:choice=x=y.jsonl") == Spec("cmb", "choice", "x=y.jsonl")
    assert parse_spec("perplexity=t.txt", general=True) == Spec("general-perplexity", "perplexity", "t.txt", True)
    assert [one.name for one in parse_specs("q.jsonl", ["choice=a"], ["qa=b"])] == ["qa", "choice", "general-qa"]
    for wrong, words in (
        ("choice", "KIND=FILE"),
        ("quiz=a", "unknown kind"),
        ("../x:choice=a", "no name"),
        ("choice=", "KIND=FILE"),
    ):
        with pytest.raises(UserError, match=words):
            parse_spec(wrong)
    with pytest.raises(UserError, match="two tasks"):
        parse_specs("a", ["qa=b"], [])
    with pytest.raises(UserError, match="nothing to measure"):
        parse_specs(None, [], [])
