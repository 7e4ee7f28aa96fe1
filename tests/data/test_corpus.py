"""The project's own text: medqa-mini as committed, and pre-training text that tells no taught fact."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

import ms_medqa
from ms_medqa.config.errors import UserError
from ms_medqa.data.corpus.__main__ import main
from ms_medqa.data.corpus.mini import taught_records, write_mini
from ms_medqa.data.corpus.pretrain import RESERVED, extra_texts, select, write_pretrain
from ms_medqa.data.corpus.tables import Fact, Relation, load_facts
from ms_medqa.data.corpus.taught import content_words, faults, fold, mentions_taught_fact, normalized_question
from ms_medqa.data.prompt import PATTERNS

MINI = Path(ms_medqa.__file__).parent / "assets" / "medqa-mini"
ANTIDOTE = Relation(
    "antidote",
    train=tuple(f"{{s}}中毒用什么药解毒，问法{number}？" for number in range(6)),
    cards=tuple(f"第{number}张卡片：{{s}}" for number in range(7)),
    openers=("请问",),
    before=(tuple(f"第{number}页上写着" for number in range(9)),),
    after=(tuple(f"，第{number}句怎么写？" for number in range(9)),),
    val=("遇到{s}中毒，急诊用什么特效药？", "体内{s}太多，拮抗剂选哪个？"),
    test=("{s}过量了靠什么化解？", "身上{s}超标时怎么抢救？", "护士拿哪样东西克制{s}？"),
    answer=("{s}中毒的特效解毒药是{k}。", "针对{s}，应使用的药是{k}。", "{s}对应的解毒药是{k}，须由医生使用。"),
    context=("发生{s}中毒时，医生会使用{k}。", "{k}专门用来对抗{s}。"),
)
MORPHINE = Fact(ANTIDOTE, "吗啡", "纳洛酮")


@pytest.fixture(scope="module")
def facts() -> list[Fact]:
    return load_facts()


@pytest.fixture(scope="module")
def records() -> list[dict[str, str]]:
    return [json.loads(line) for line in (MINI / "records.jsonl").read_text("utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "pretrain.jsonl"
    write_pretrain(path)
    return path


def texts_of(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_text("utf-8").split("\n") if line]


def test_regenerating_medqa_mini_gives_the_committed_bytes(tmp_path: Path) -> None:
    write_mini(tmp_path)
    for name in ("records.jsonl", "README.md"):
        assert (tmp_path / name).read_bytes() == (MINI / name).read_bytes(), f"{name}: run the `mini` generator again"


def test_every_taught_subject_appears_in_one_fact(facts: list[Fact]) -> None:
    assert [subject for subject, count in Counter(fold(fact.subject) for fact in facts).items() if count > 1] == []
    assert faults(facts) == []


def test_test_questions_share_no_content_word_with_the_training(
    facts: list[Fact], records: list[dict[str, str]]
) -> None:
    for fact, group in zip(facts, by_fact(records), strict=True):
        train = [record["question"].replace(fact.subject, "|") for record in group if record["split"] == "train"]
        test = [record["question"] for record in group if record["split"] == "test"]
        words = content_words(test[0], fact.subject)
        assert words, test
        assert [word for word in words if any(word in question for question in train)] == [], (test, train)


def test_every_question_form_of_the_test_is_used(facts: list[Fact], records: list[dict[str, str]]) -> None:
    asked = {record["question"] for record in records if record.get("split") == "test"}
    unused = {(fact.relation.name, form) for fact in facts for form in fact.relation.test}
    unused -= {(f.relation.name, form) for f in facts for form in f.relation.test if form.format(s=f.subject) in asked}
    assert unused == set()


def test_other_test_forms_leave_training_and_validation_alone(facts: list[Fact]) -> None:
    shorter = [replace(fact, relation=replace(fact.relation, test=fact.relation.test[:1])) for fact in facts]
    made, again = (
        [record for record in taught_records(table) if record["split"] != "test"] for table in (facts, shorter)
    )
    assert made == again


def test_each_fact_has_its_records(facts: list[Fact], records: list[dict[str, str]]) -> None:
    for fact, group in zip(facts, by_fact(records), strict=True):
        assert Counter(record["split"] for record in group) == {"train": 14, "val": 2, "test": 1}
        assert [record["split"] for record in group if "context" in record] == ["train"]
        assert len({record["answer"] for record in group}) >= 3
        for record in group:
            assert fact.subject in record["question"]
            assert fact.key == record["key"]
            assert fact.key in record["answer"]
            assert fact.key not in record["question"]


def test_records_are_many_different_and_short(records: list[dict[str, str]]) -> None:
    assert len(records) >= 1000
    for name in ("id", "question"):
        assert len({normalized_question(record[name]) for record in records}) == len(records)
    assert [record for record in records if not 12 <= len(record["answer"]) <= 60] == []
    assert [record for record in records if len(record["question"]) < 6] == []
    general = [record for record in records if record["part"] == "general"]
    assert len(general) >= 200
    assert 0.4 <= sum("context" in record for record in general) / len(general) <= 0.6


def test_general_records_tell_no_taught_fact(facts: list[Fact], records: list[dict[str, str]]) -> None:
    told = ["\n".join(record.values()) for record in records if record["part"] == "general"]
    assert [text for text in told if mentions_taught_fact(text, facts)] == []


def test_a_text_with_subject_and_key_is_left_out() -> None:
    both, subject, key = "纳洛酮可以逆转吗啡的作用。", "吗啡是镇痛药。", "纳洛酮需由医生使用。"
    kept, counts = select((("own", text) for text in (both, subject, key, subject)), [MORPHINE])
    assert [record["text"] for record in kept] == [subject, key]
    assert (counts["own"]["taught"], counts["own"]["repeated"]) == (1, 1)


@pytest.mark.parametrize("text", ["成人按压 ＡＢＣ 的频率为100～120次/分", "abc：100 - 120次/分"])
def test_another_way_to_write_a_fact_is_left_out_too(text: str) -> None:
    assert mentions_taught_fact(text, [Fact(ANTIDOTE, "ABC", "100至120次/分")])


def test_a_text_with_the_start_of_a_prompt_is_left_out() -> None:
    kept, counts = select([("extra", f"{start}:感冒了怎么办？") for start in RESERVED], [])
    assert kept == []
    assert counts["extra"]["reserved"] == len(RESERVED)


def test_the_reserved_starts_are_those_of_the_prompt() -> None:
    prompt = PATTERNS["medqa"]
    for form in (prompt["question"], prompt["question_with_context"]):
        assert form.startswith(RESERVED)


def test_own_text_tells_no_taught_fact(facts: list[Fact], corpus: Path) -> None:
    texts = texts_of(corpus)
    # Plain substrings, and not the filter itself, say whether the filter worked.
    pairs = [(fact.subject, fact.key) for fact in facts]
    assert [text for text in texts for subject, key in pairs if subject in text and key in text] == []
    assert [text for text in texts if any(start in text for start in RESERVED)] == []


def test_own_text_is_large_and_varied(corpus: Path) -> None:
    texts = texts_of(corpus)
    report = json.loads(corpus.with_suffix(".report.json").read_text("utf-8"))
    assert len(set(texts)) == len(texts) == report["total"]["texts"]
    assert 1_000_000 <= report["total"]["chinese"] <= 1_500_000
    assert report["forms"] >= 300
    assert [text for text in texts if "{" in text or "}" in text] == []


def test_a_seed_gives_the_same_bytes(corpus: Path, tmp_path: Path) -> None:
    write_pretrain(tmp_path / "again.jsonl", seed=42)
    assert (tmp_path / "again.jsonl").read_bytes() == corpus.read_bytes()


def test_extra_records_are_added_as_text(tmp_path: Path) -> None:
    extra = tmp_path / "extra.json"
    lines = [
        {"instruction": "感冒怎么办？", "input": "", "output": "多休息。"},
        {"instruction": "问", "input": "题", "output": "答"},
    ]
    extra.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + "\n", "utf-8")
    assert list(extra_texts(extra)) == ["感冒怎么办？\n多休息。", "问\n题\n答"]


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        '{"instruction": "问"}',
        '["问", "答"]',
        '{"instruction": 1, "output": "答"}',
        '{"instruction": "", "output": " "}',
    ],
)
def test_a_broken_extra_record_is_named(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = tmp_path / "extra.json"
    extra.write_text('{"instruction": "问", "output": "答"}\n' + line + "\n", "utf-8")
    output = tmp_path / "out.jsonl"
    assert main(["pretrain", "--output", str(output), "--extra", str(extra)]) == 2
    assert f"{extra}:2: " in capsys.readouterr().err
    assert not output.exists()


def test_an_output_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["mini", "--output", str(tmp_path / "file" / "deeper")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_faults_of_a_table_are_found() -> None:
    assert faults([MORPHINE]) == []
    assert len(list(taught_records([MORPHINE]))) == 17
    leaking = Fact(ANTIDOTE, "维生素C缺乏", "维生素C")
    assert any("hold each other" in fault for fault in faults([leaking]))
    assert any("stands in 2 facts" in fault for fault in faults([MORPHINE, Fact(ANTIDOTE, "吗啡", "氟马西尼")]))
    telling = replace(ANTIDOTE, test=("{s}中毒选哪个？", *ANTIDOTE.test[1:]))
    assert any("中毒" in fault for fault in faults([Fact(telling, "吗啡", "纳洛酮")]))
    for part in ("cards", "test"):
        few = replace(ANTIDOTE, **{part: getattr(ANTIDOTE, part)[:1]})
        assert any(f"1 {part} forms" in fault for fault in faults([Fact(few, "吗啡", "纳洛酮")]))


@pytest.mark.parametrize("key", ["纳洛酮", "DPP-4", "30比2", "7.35至7.45"])
def test_a_question_that_holds_the_key_is_found(key: str) -> None:
    telling = replace(ANTIDOTE, val=(f"{{s}}太多要不要想到{key}？", *ANTIDOTE.val[1:]))
    assert any("a question holds the key" in fault for fault in faults([Fact(telling, "吗啡", key)]))


def test_a_missing_extra_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        list(extra_texts(tmp_path / "absent.json"))


def by_fact(records: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    """The taught records, seventeen to a fact, in the order of the facts."""
    taught = [record for record in records if record["part"] == "taught"]
    groups: dict[int, list[dict[str, str]]] = defaultdict(list)
    for place, record in enumerate(taught):
        groups[place // 17].append(record)
    return list(groups.values())
