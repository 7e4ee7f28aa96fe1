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
from ms_medqa.data.corpus.mini import write_mini
from ms_medqa.data.corpus.pretrain import RESERVED, extra_texts, select, write_pretrain
from ms_medqa.data.corpus.tables import Fact, Relation, load_facts
from ms_medqa.data.corpus.taught import content_words, faults, fold, mentions_taught_fact, normalized_question

MINI = Path(ms_medqa.__file__).parent / "assets" / "medqa-mini"
ANTIDOTE = Relation(
    "antidote",
    train=tuple(f"{{s}}中毒用什么药解毒，问法{number}？" for number in range(6)),
    cards=("复习卡片：{s}", "{s}的关键考点是哪一条？", "老师提问：{s}"),
    openers=("请问",),
    val=("遇到{s}中毒，急诊用什么特效药？",),
    test=("体内{s}太多，拮抗剂选哪个？",),
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


def test_each_fact_has_its_records(facts: list[Fact], records: list[dict[str, str]]) -> None:
    for fact, group in zip(facts, by_fact(records), strict=True):
        assert Counter(record["split"] for record in group) == {"train": 10, "val": 1, "test": 1}
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
    "line", ["not json", '{"instruction": "问"}', '["问", "答"]', '{"instruction": 1, "output": "答"}']
)
def test_a_broken_extra_record_is_named(line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    extra = tmp_path / "extra.json"
    extra.write_text('{"instruction": "问", "output": "答"}\n' + line + "\n", "utf-8")
    output = tmp_path / "out.jsonl"
    assert main(["pretrain", "--output", str(output), "--extra", str(extra)]) == 2
    assert f"{extra}:2: " in capsys.readouterr().err
    assert not output.exists()


def test_faults_of_a_table_are_found() -> None:
    assert faults([MORPHINE]) == []
    leaking = Fact(ANTIDOTE, "维生素C缺乏", "维生素C")
    assert any("hold each other" in fault for fault in faults([leaking]))
    assert any("stands in 2 facts" in fault for fault in faults([MORPHINE, Fact(ANTIDOTE, "吗啡", "氟马西尼")]))
    telling = replace(ANTIDOTE, test=("{s}中毒选哪个？",))
    assert any("中毒" in fault for fault in faults([Fact(telling, "吗啡", "纳洛酮")]))


def test_a_missing_extra_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        list(extra_texts(tmp_path / "absent.json"))


def by_fact(records: list[dict[str, str]]) -> list[list[dict[str, str]]]:
    """The taught records, twelve to a fact, in the order of the facts."""
    taught = [record for record in records if record["part"] == "taught"]
    groups: dict[int, list[dict[str, str]]] = defaultdict(list)
    for place, record in enumerate(taught):
        groups[place // 12].append(record)
    return list(groups.values())
