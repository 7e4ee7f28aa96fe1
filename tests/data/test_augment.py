"""Augmentation: other words for the same question, and never another question."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ms_medqa.config.errors import UserError
from ms_medqa.data.augment import METHODS, Augmenter, Variant, bare
from ms_medqa.data.augment.context import lead_ins
from ms_medqa.data.augment.reforms import reforms
from ms_medqa.data.augment.synonyms import SHIPPED, SynonymList
from ms_medqa.data.example import Example, PlainText, Record

SHIPPED_LIST = SynonymList()
EVERY = Augmenter(rate=1.0)


def renamed(question: str, synonyms: SynonymList = SHIPPED_LIST) -> set[str]:
    return {change.text for change in synonyms.replaced(question)}


def user_list(folder: Path, *groups: list[str]) -> Path:
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump([*groups], allow_unicode=True), encoding="utf-8")
    return path


def qa(question: str, answer: str = "按医生的建议治疗。", name: str = "1", **more: object) -> Example:
    return Example(name, question, answer, **more)


def augment(examples: Sequence[Record], rate: float = 0.3, seed: int = 42) -> list[Variant]:
    """The variants of all records; none asks what one of the records asks."""
    augmenter = Augmenter(rate, seed)
    questions = {bare(item.question) for item in examples if isinstance(item, Example) and not item.history}
    return [v for item in examples for v in augmenter.variants(item, lambda made: bare(made.question) in questions)]


def questions_of(example: Example) -> set[str]:
    """All questions that are made of an example under one id or another."""
    made = (EVERY.variants(replace(example, id=str(number))) for number in range(100))
    return {variant.record.question for variants in made for variant in variants}


# Synonyms


def test_terms_that_mean_the_same_are_exchanged() -> None:
    assert renamed("心梗怎么治疗？") == {"心肌梗死怎么治疗？", "心肌梗塞怎么治疗？"}
    assert renamed("阿司匹林能和布洛芬一起吃吗？") == {"乙酰水杨酸能和布洛芬一起吃吗？"}
    assert "得了甲状腺功能亢进症能吃海带吗" in renamed("得了甲亢能吃海带吗")
    assert renamed("没有发烧要吃药吗") == {"没有发热要吃药吗"}


@pytest.mark.parametrize(
    "question",
    [
        "妊娠高血压怎么办",
        "高血压性心脏病怎么办",
        "肺动脉高血压怎么办",
        "高血压脑病怎么办",
        "继发性高血压怎么办",
        "非高血压患者要限盐吗",
        "高血压三级和高血压有关吗",
        "高血压和妊娠高血压是否有关",
        "“高血压”怎么治疗",
    ],
)
def test_a_piece_of_a_longer_term_is_left_alone(tmp_path: Path, question: str) -> None:
    synonyms = SynonymList([user_list(tmp_path, ["高血压", "血压升高病"])])
    assert renamed("高血压怎么办", synonyms) == {"血压升高病怎么办"}
    assert renamed(question, synonyms) == set()


def test_the_longest_term_wins() -> None:
    assert renamed("得了急性心梗怎么办") == {"得了急性心肌梗死怎么办", "得了急性心肌梗塞怎么办"}
    assert renamed("乙肝病毒怕高温吗") == set()
    assert renamed("乙肝病毒会传染吗") == {"乙型肝炎病毒会传染吗", "HBV会传染吗"}
    assert renamed("非霍奇金淋巴瘤怎么治疗") == set()
    assert renamed("对乙酰氨基酚有副作用吗") == {"扑热息痛有副作用吗"}


@pytest.mark.parametrize(
    "question",
    [
        "心梗和心肌梗死是一回事吗？",
        "心梗和心肌梗死有什么区别？",
        "心梗又叫什么？",
        "甲亢是什么的简称？",
        "阿司匹林的化学名是什么？",
        "What is another name for hypertension?",
        "What does AIDS stand for?",
    ],
)
def test_questions_about_the_words_themselves_keep_them(question: str) -> None:
    assert renamed(question) == set()


def test_english_terms_go_by_words_and_keep_their_case() -> None:
    assert renamed("Is hypertension dangerous?") == set()  # `dangerous` is not on the list of neighbours
    assert renamed("What causes hypertension?") == {"What causes high blood pressure?"}
    assert renamed("Hypertension: what can I eat?") == {"High blood pressure: what can I eat?"}
    assert renamed("CAN ASPIRIN CAUSE ULCERS?") == {"CAN ACETYLSALICYLIC ACID CAUSE ULCERS?"}
    assert renamed("What is pulmonary hypertension?") == set()
    assert renamed("Is prehypertension or non-hypertension common?") == set()
    assert renamed("Are aspirins safe?") == set()
    assert renamed("I smoke. Hypertension and anemia, are they linked?") == {
        "I smoke. High blood pressure and anemia, are they linked?",
        "I smoke. Hypertension and anaemia, are they linked?",
    }
    assert renamed("Dose of 1,aspirin") == renamed("β-aspirin and fever") == set()


def test_an_acronym_is_no_common_word() -> None:
    assert renamed("What causes AIDS?") == {"What causes acquired immunodeficiency syndrome?"}
    assert renamed("What are hearing aids for?") == set()
    assert renamed("which aids are there for walking?") == set()


def test_english_articles_stay_right() -> None:
    assert renamed("How long after a heart attack can I drive?") == {
        "How long after a myocardial infarction can I drive?"
    }
    # `a UTI` would become `a urinary …`, whose sound the letters do not tell, `an acetaminophen` from `a paracetamol`.
    assert renamed("Can I get a UTI from swimming?") == set()
    assert renamed("Can I take a paracetamol for it?") == set()


def test_languages_are_not_mixed() -> None:
    assert renamed("What is ADHD?") == {"What is attention deficit hyperactivity disorder?"}
    assert all("attention" not in text for text in renamed("ADHD怎么治疗"))


def test_the_shipped_list_names_each_term_once_and_finds_each() -> None:
    groups = yaml.safe_load(SHIPPED.read_text("utf-8"))
    terms = Counter(term.casefold() for group in groups for term in group)
    assert max(terms.values()) == 1
    assert min(map(len, groups)) >= 2
    assert len(groups) > 150
    for term in (term for group in groups for term in group):
        assert [found.term.text for found in SHIPPED_LIST.find(term)] == [term]


def test_no_wider_or_narrower_term_ships() -> None:
    groups = [set(group) for group in SHIPPED_LIST.groups]
    for wrong in (
        {"糖尿病", "继发性糖尿病"},
        {"高血压", "高血压病"},  # 高血压病 is primary hypertension
        {"异位妊娠", "宫外孕"},
        {"头晕", "眩晕"},
        {"脑卒中", "脑梗死"},
    ):
        assert not any(wrong <= group for group in groups)


def test_a_list_of_ones_own_extends_and_protects(tmp_path: Path) -> None:
    path = user_list(tmp_path, ["心梗", "心肌梗死病"], ["发热"], ["感冒清", "感冒清片"])
    synonyms = SynonymList([path])
    assert "心肌梗死病怎么治疗" in renamed("心梗怎么治疗", synonyms)
    assert renamed("发热怎么办", synonyms) == renamed("发烧怎么办", synonyms) == set()
    assert renamed("感冒清能吃吗", synonyms) == {"感冒清片能吃吗"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- [心梗, 脑梗]", r"entry 1 would make 心肌梗死 and 脑梗死 the same"),
        ("- 心梗", r"entry 1 is not a list of terms"),
        ("- [心梗, 3]", r"entry 1 is not a list of terms"),
        ("- [痔, 痔疮]", r"two or more characters"),
        ("a: b", r"a list is needed"),
        ("- [a, b", r"line 1: not valid YAML|line 2: not valid YAML"),
    ],
)
def test_a_wrong_list_is_said(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        SynonymList([path])
    with pytest.raises(UserError, match="no such file"):
        SynonymList([tmp_path / "absent.yaml"])


# Other forms of a question


@pytest.mark.parametrize(
    ("question", "form"),
    [
        ("什么是高血压？", "请问高血压是什么？"),
        ("什么是高血压？", "高血压是什么？"),
        ("糖尿病是什么", "什么是糖尿病"),
        ("高血压有哪些症状？", "高血压的症状有哪些？"),
        ("高血压有哪些症状？", "高血压会有哪些症状？"),
        ("高血压会有哪些症状？", "高血压有哪些症状？"),
        ("阿司匹林的副作用有哪些？", "阿司匹林有什么副作用？"),
        ("哮喘怎么治疗？", "如何治疗哮喘？"),
        ("哮喘怎么治疗？", "哮喘的治疗方法有哪些？"),
        ("如何治疗哮喘", "哮喘怎么治疗"),
        ("流感应该怎么预防?", "如何预防流感?"),
        ("老年人的高血压怎么治疗？", "如何治疗老年人的高血压？"),
        ("患者咳嗽三周，低热，该如何治疗？", "患者咳嗽三周，低热，请问该如何治疗？"),
        ("患者咳嗽三周，低热，该如何治疗？", "患者咳嗽三周，低热，该怎么治疗？"),
        ("高血压患者能吃鸡蛋吗？", "请问高血压患者能吃鸡蛋吗？"),
        ("What is hypertension?", "Could you tell me what hypertension is?"),
        ("what is the common cold", "Could you tell me what the common cold is"),
        ("How is asthma treated?", "How can asthma be treated?"),
        ("How are kidney stones treated?", "How can kidney stones be treated?"),
        ("What are the symptoms of type 2 diabetes?", "Could you tell me what the symptoms of type 2 diabetes are?"),
    ],
)
def test_a_question_in_other_words(question: str, form: str) -> None:
    assert form in reforms(question)


@pytest.mark.parametrize(
    ("question", "wrong"),
    [
        ("中医怎么治疗？", "如何治疗中医？"),
        ("患者怎么治疗？", "如何治疗患者？"),
        ("如何治疗和预防高血压？", "和预防高血压怎么治疗？"),
        ("高血压不吃药怎么治疗？", "如何治疗高血压不吃药？"),
        ("诊断是什么？", "什么是诊断？"),
        ("治疗方案是什么？", "什么是治疗方案？"),
        ("高血压的病因是什么？", "什么是高血压的病因？"),
        ("高血压还有哪些症状？", "高血压还的症状有哪些？"),
        ("没有高血压有哪些症状？", "没有高血压的症状有哪些？"),
        ("患者的病情有哪些症状？", "患者的病情的症状有哪些？"),
        ("What is causing headaches?", "Could you tell me what causing headaches is?"),
        ("What is wrong?", "Could you tell me what wrong is?"),
        ("What is recommended for it?", "Could you tell me what recommended for it is?"),
    ],
)
def test_no_form_that_asks_something_else(question: str, wrong: str) -> None:
    assert wrong not in reforms(question)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "？",
        "高血压",
        "请解释高血压。",
        "我头痛，没什么大事。",
        "我的病怎么样了？",
        "What is it?",
        "Why?",
        "A\nB？",
        "what is up",
    ],
)
def test_what_is_not_understood_stays(text: str) -> None:
    assert reforms(text) == []


# Context


def test_a_context_gets_a_label_and_nothing_else() -> None:
    assert all(text.endswith("布洛芬可以退热。") for text in lead_ins("布洛芬可以退热。"))
    assert all(text.isascii() for text in lead_ins("Ibuprofen lowers fever."))
    assert lead_ins("") == lead_ins(" ") == []
    assert [lead_ins(text) for text in lead_ins("布洛芬可以退热。")] == [[], [], [], []]


# Records


def test_a_variant_keeps_all_but_its_question() -> None:
    parent = qa("心梗怎么治疗？", context="心梗要尽早开通血管。", source="a.jsonl", key="开通血管")
    seen = set()
    for number in range(30):
        parent = replace(parent, id=f"a-{number}")
        (variant,) = EVERY.variants(parent)
        assert (variant.parent.id, variant.record.id) == (parent.id, f"{parent.id}~aug1")
        assert getattr(variant.record, "parent", parent.id) == parent.id
        changed = {n for n in ("question", "context") if getattr(variant.record, n) != getattr(parent, n)}
        assert changed == ({"context"} if variant.method == "context" else {"question"})
        for name in ("answer", "source", "key", "history", "system", "choices", "label", "split"):
            assert getattr(variant.record, name) == getattr(parent, name)
        seen.add(variant.method)
    assert seen == set(METHODS)


def test_the_rate_is_the_share_of_records_with_a_variant() -> None:
    records = [qa(f"{i} 号患者发热，应该如何治疗？", name=f"r{i}") for i in range(2000)]
    assert len(augment(records)) == pytest.approx(600, abs=60)
    assert augment(records, rate=0.0) == []
    assert len(augment(records, rate=1.0)) == 2000
    few, many = ({v.record.id: v for v in augment(records, rate=rate)} for rate in (0.1, 0.3))
    assert few.items() <= many.items()


def test_order_and_company_do_not_matter_and_the_seed_does() -> None:
    records = [qa(f"{i} 号患者发热，应该如何治疗？", name=f"r{i}") for i in range(200)]
    made = {v.parent.id: v for v in augment(records)}
    assert {v.parent.id: v for v in augment(records[::-1])} == made
    alone = Augmenter()
    assert {v.parent.id: v for record in records for v in alone.variants(record)} == made
    assert {v.parent.id for v in augment(records, seed=43)} != set(made)
    # Fixed for good: a data set of last year is made again as it was.
    assert [v.record.question for v in EVERY.variants(qa("哮喘怎么治疗？"))] == ["哮喘的治疗方法有哪些？"]


def test_no_variant_asks_what_another_record_asks() -> None:
    first = qa("什么是高血压？", name="a")
    others = [qa(q, name=f"o{i}") for i, q in enumerate(["请问，什么是高血压", "高血压是什么", "请问高血压是什么?"])]
    for seed in range(5):
        assert [v for v in augment([first, *others], rate=1.0, seed=seed) if v.parent.id == "a"] == []
    two = [first, *others[:2]]
    made = [v.record.question for v in augment(two, rate=1.0) if v.parent.id == "a"]
    assert made == ["请问高血压是什么？"]


def test_options_of_an_exam_stay_what_was_asked_about() -> None:
    stem = "下列哪种病要尽早开通血管？\nA. 心梗\nB. 哮喘"
    exam = qa(stem, "A. 心梗", choices=("心梗", "哮喘"), label="A")
    assert questions_of(exam) == set()
    other = qa(
        "心梗应当怎样处理？\nA. 尽早开通血管\nB. 观察", "A. 尽早开通血管", choices=("尽早开通血管", "观察"), label="A"
    )
    assert questions_of(other) <= {
        text for term in ("心肌梗死", "心肌梗塞") for text in [other.question.replace("心梗", term)]
    }


def test_an_answer_that_explains_a_name_is_asked_by_that_name() -> None:
    named = qa("甲亢会遗传吗", "甲亢是甲状腺功能亢进症的简称，有家族倾向。")
    assert not any("症" in text for text in questions_of(named))


def test_dialogues_get_variants_of_their_last_question() -> None:
    dialogue = qa("如何治疗？", history=(("我得了哮喘。", "有什么症状？"),))
    assert questions_of(dialogue) == {"怎么治疗？", "怎样治疗？", "请问如何治疗？"}


def test_plain_text_and_variants_get_none() -> None:
    assert EVERY.variants(PlainText("t", "什么是高血压？")) == []
    assert augment([PlainText("t", "什么是高血压？")], rate=1.0) == []


def test_a_rate_above_one_is_refused() -> None:
    with pytest.raises(UserError, match="aug_rate"):
        Augmenter(1.5)


def test_real_questions_get_variants_that_keep_their_numbers(shared_data: Path) -> None:
    with open(shared_data / "huatuo_llama/llama_data.json", encoding="utf-8") as file:
        raws = [json.loads(line) for line in file]
    records = [qa(raw["instruction"], raw["output"], name=str(i)) for i, raw in enumerate(raws)]
    by_id = {record.id: record for record in records}
    variants = augment(records, rate=1.0)
    assert len(variants) > 2000
    assert len({v.method for v in variants}) == 2
    for variant in variants:
        parent = by_id[variant.parent.id].question
        assert variant.record.question != parent
        if variant.method == "reform":
            # Nothing but a few words at one place has changed.
            assert abs(len(variant.record.question) - len(parent)) <= 5
            assert [c for c in variant.record.question if c.isdigit()] == [c for c in parent if c.isdigit()]
