"""Training records that give an evaluation set away are found, and the record they hit is named."""

from __future__ import annotations

import random

import pytest

from ms_medqa.data.example import Example, PlainText
from ms_medqa.data.overlap import BenchmarkIndex, Overlap, record_texts

ENGLISH = (
    "A 54-year-old man comes to the clinic with chest pain that began two hours ago while he was shovelling snow in"
    " front of his house. Which of the following is the best initial test?"
)
CHINESE = "患者男性，五十四岁，铲雪时突发胸痛两小时，向左肩放射，伴大汗，首选的检查是什么？"
SHORT = "什么是阵发性睡眠性血红蛋白尿？"
TINY = "什么是发热？"


@pytest.fixture(scope="module")
def index() -> BenchmarkIndex:
    return BenchmarkIndex.from_records(
        [
            Example("1", ENGLISH, "Electrocardiogram", choices=("Electrocardiogram", "Chest CT"), source="exam.jsonl"),
            Example("2", CHINESE, "心电图", source="exam.jsonl"),
            Example("3", SHORT, "一种获得性的造血干细胞疾病。", source="exam.jsonl"),
            Example("4", TINY, "体温升高。", source="exam.jsonl"),
        ],
        threshold=0.8,
    )


def test_the_evaluation_set_itself_is_found_whole(index: BenchmarkIndex) -> None:
    assert len(index) == 4
    assert [index.overlap(text) for text in (ENGLISH, CHINESE, SHORT, TINY)] == [
        Overlap("13-gram", "exam.jsonl:1"),
        Overlap("13-gram", "exam.jsonl:2"),
        Overlap("13-gram", "exam.jsonl:3"),
        Overlap("question", "exam.jsonl:4"),
    ]


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        (
            "Notes: he had CHEST PAIN, that began two hours ago while he was shovelling snow (in front of the barn).",
            True,
        ),
        ("He had chest pain that began two hours ago while he was shovelling.", False),
        ("老李铲雪时突发胸痛两小时，向左肩放射，怎么办？", True),
        ("老李铲雪时突发胸痛，怎么办？", False),
    ],
)
def test_thirteen_words_or_characters_in_a_row(index: BenchmarkIndex, text: str, hit: bool) -> None:
    assert (index.overlap(text, "Call for help at once.") is not None) is hit
    # In the answer they give as much away.
    assert (index.overlap("Tell me something.", text) is not None) is hit


def test_a_short_question_counts_where_it_stands_whole() -> None:
    index = BenchmarkIndex([("a", ["高血压的治疗原则是什么？"]), ("b", ["什么是发热？"])], threshold=0.8)
    assert index.overlap("请问：高血压的治疗原则是什么？谢谢") == Overlap("question", "a")
    assert index.overlap("高血压的治疗目标是什么？") is None
    # Very short ones are part of many questions.
    assert index.overlap("什么是发热") == Overlap("question", "b")
    assert index.overlap("什么是发热门诊？") is None
    assert index.overlap("体温多少度要看医生？", "什么是发热？") is None


def test_a_question_with_every_tenth_word_changed_is_a_near_duplicate() -> None:
    rng = random.Random(0)
    words = [f"w{rng.randrange(10**6)}" for _ in range(120)]
    changed = [f"x{i}" if i % 12 == 5 else word for i, word in enumerate(words)]
    index = BenchmarkIndex([("q", [" ".join(words), "yes"])], threshold=0.5)
    assert index.overlap(" ".join(changed)) == Overlap("near duplicate", "q")
    assert BenchmarkIndex([("q", [" ".join(words)])], threshold=0.9).overlap(" ".join(changed)) is None


def test_set_phrases_of_an_exam_tell_nothing() -> None:
    phrase = "which of the following is the most appropriate next step in the management of this patient"
    cases = [f"Case {i}: the patient number {i * i} has had symptom {i * 7} for {i} days, {phrase}?" for i in range(30)]
    index = BenchmarkIndex([(str(i), [case]) for i, case in enumerate(cases)], threshold=0.8)
    assert index.overlap(f"A boy swallowed a coin an hour ago, {phrase}?") is None
    assert all(index.overlap(case) for case in cases)
    # The same record many times over is no set phrase.
    copies = BenchmarkIndex([(str(i), [ENGLISH]) for i in range(30)], threshold=0.8)
    assert copies.overlap(ENGLISH) == Overlap("13-gram", "0")


def test_the_record_with_most_in_common_is_named() -> None:
    start = "one two three four five six seven eight nine ten eleven twelve thirteen"
    rest = "fourteen fifteen sixteen seventeen"
    index = BenchmarkIndex([("less", [f"{start} and no more"]), ("more", [f"so {rest} {start} {rest}"])], threshold=0.8)
    assert index.overlap(f"{start} {rest}") == Overlap("13-gram", "more")


def test_the_choices_belong_to_the_question() -> None:
    exam = Example("1", "下列说法正确的是", "A", choices=("青霉素可能引起过敏反应", "胰岛素能降低血糖"))
    other = Example("2", "下列说法正确的是", "B", choices=("维生素C缺乏可致坏血病", "碘缺乏可致甲状腺肿"))
    index = BenchmarkIndex.from_records([exam], threshold=0.8)
    assert index.overlap(*record_texts(exam)) is not None
    assert index.overlap(*record_texts(other)) is None
    dialogue = Example("3", "然后呢？", "复查。", history=(("头痛怎么办？", "先量血压。"),), context="知识")
    assert record_texts(dialogue) == ("头痛怎么办？", "先量血压。", "然后呢？", "复查。")
    assert record_texts(PlainText("4", "一段文字")) == ("一段文字",)


def test_many_at_once_give_what_each_gives_alone(index: BenchmarkIndex) -> None:
    records = [(ENGLISH, "x"), (), ("肚子疼怎么办", "看医生"), ("", ""), ("？",), (TINY,), ("a", CHINESE)] * 50
    assert index.overlaps(records) == [index.overlap(*record) for record in records]
    empty = BenchmarkIndex([], threshold=0.8)
    assert empty.overlaps(records) == [None] * len(records)
    assert BenchmarkIndex([("a", []), ("b", [""])], threshold=0.8).overlap("") is None
