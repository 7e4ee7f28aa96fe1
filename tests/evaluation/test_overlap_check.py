"""How many items of an evaluation stand in the training data, and where that data is found."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import trainable
import yaml

from ms_medqa.cli.main import main
from ms_medqa.config.schema import DataSection
from ms_medqa.data.example import Example, PlainText, Record
from ms_medqa.data.overlap import BenchmarkIndex
from ms_medqa.evaluation import overlap_check
from ms_medqa.evaluation.overlap_check import check_overlap, overlaps_of, training_data_of
from ms_medqa.evaluation.overlapped_items import OverlappedItems

SETTINGS = DataSection()
ENGLISH = (
    "A 54-year-old man comes to the clinic with chest pain that began two hours ago while he was shovelling snow in"
    " front of his house. Which of the following is the best initial test?"
)
CHINESE = "患者男性，五十四岁，铲雪时突发胸痛两小时，向左肩放射，伴大汗，首选的检查是什么？"
SHORT = "发热的原因？"
FILLER = Example("f", "夏天怎样预防中暑？", "避开正午的太阳，随身带水。")


def reasons(items: Sequence[Record], *training: Record) -> list[str | None]:
    found = OverlappedItems(items, 0.8)
    found.show(training)
    return found.reasons()


def exam(name: str, stem: str, *choices: str) -> Example:
    """An exam question as the readers give it."""
    lines = [f"{letter}. {choice}" for letter, choice in zip("ABCDE", choices, strict=False)]
    return Example(name, "\n".join([stem, *lines]), lines[0], choices=choices, label="A")


def text(rng: random.Random, length: int) -> str:
    return "".join(chr(0x4E00 + rng.randrange(3000)) for _ in range(length))


class TestQuestions:
    def test_the_same_question_counts_however_it_is_written_and_answered(self) -> None:
        items = [Example(str(i), question, "甲") for i, question in enumerate((ENGLISH, CHINESE, SHORT))]
        training = [
            Example("a", ENGLISH.upper().replace(",", " ,"), "An electrocardiogram."),
            Example("b", CHINESE.replace("，", ", ").replace("？", "?"), "心电图。", context="别的知识"),
            Example("c", "发热的原因", "感染。"),
        ]
        assert reasons(items, *training) == ["question"] * 3
        assert reasons(items, FILLER) == [None] * 3

    def test_it_counts_as_often_as_it_is_trained(self) -> None:
        """Twenty different answers to one question make no set phrase of it."""
        training = [Example(str(i), CHINESE, f"答案{i}。") for i in range(20)]
        assert reasons([Example("1", CHINESE, "心电图。")], *training) == ["question"]

    def test_one_in_slightly_other_words_is_a_near_duplicate(self) -> None:
        rng = random.Random(0)
        words = [f"w{rng.randrange(10**6)}" for _ in range(120)]
        changed = [f"x{i}" if i % 40 == 9 else word for i, word in enumerate(words)]
        item = Example("1", " ".join(words), "yes")
        # n-grams alone do not tell it: no 45 words in a row are the same.
        found = OverlappedItems([item, Example("2", ENGLISH, "ECG")], 0.8, ngram=45)
        found.show([Example("a", " ".join(changed), "no")])
        assert found.reasons() == ["near duplicate", None]

    def test_a_short_one_counts_where_it_stands_whole(self) -> None:
        items = [Example("1", "高血压的治疗原则是什么？", "低盐。"), Example("2", SHORT, "感染。")]
        longer = Example("a", "请问老年人高血压的治疗原则是什么，谢谢", "低盐。")
        assert reasons(items, longer) == ["question", None]
        assert reasons(items, Example("a", "高血压的治疗目标是什么？", "达标。")) == [None, None]
        # Less than eight tokens are a part of many questions.
        assert reasons(items, Example("a", "小儿发热的原因？", "感染。")) == [None, None]

    def test_of_a_dialogue_all_before_the_last_answer_is_the_question(self) -> None:
        item = Example("1", "要吃药吗？", "先观察。", history=(("医生你好", "请讲。"), ("孩子咳了三天", "有痰吗？")))
        same = Example("a", "要吃药吗？", "不用。", history=(("医生，你好！", "请讲"), ("孩子咳了三天", "有痰吗")))
        other = Example("b", "要吃药吗？", "要。", history=(("医生你好", "请讲。"), ("大人发烧一周", "多少度？")))
        assert reasons([item], other) == [None]
        assert reasons([item], same) == ["question"]


class TestAnotherExam:
    STEM = "有机磷中毒的特效解毒药是"
    ITEM = exam("1", STEM, "阿托品", "纳洛酮", "氟马西尼")

    @pytest.mark.parametrize(
        "training",
        [
            exam("a", STEM, "氟马西尼", "阿托品", "纳洛酮"),
            exam("a", STEM, "亚甲蓝", "解磷定", "硫代硫酸钠", "乙酰胺"),
            Example("a", f"{STEM}？", "阿托品。"),
            Example("a", "记忆口诀", f"考点：{STEM}阿托品。"),
        ],
        ids=["options in another order", "other options", "no options", "in a text"],
    )
    def test_the_same_question_is_found_there(self, training: Example) -> None:
        assert reasons([self.ITEM, exam("2", "脚气病缺乏的维生素是", "B1", "C", "D")], training) == ["question", None]

    def test_a_stem_of_many_questions_says_nothing(self) -> None:
        stem = "下列说法中正确的是哪一项"
        training = [exam(str(i), stem, f"说法{i}甲", f"说法{i}乙", f"说法{i}丙") for i in range(11)]
        item = exam("1", stem, "青霉素可能引起过敏反应", "胰岛素能升高血糖", "碘缺乏可致坏血病")
        assert reasons([item], *training[:10]) == ["question"]
        assert reasons([item], *training) == [None]
        # The very same question is still one of them.
        assert reasons([item, training[3]], *training) == [None, "question"]

    def test_a_free_question_is_found_among_exams(self) -> None:
        assert reasons([Example("1", "解毒药是什么", "阿托品。")], exam("a", "解毒药是什么", "阿托品", "纳洛酮")) == [
            "question"
        ]


class TestPhrases:
    def test_all_items_with_the_words_count(self) -> None:
        """`convert` needs only one of them to reject the training record."""
        rng = random.Random(1)
        shared = text(rng, 20)
        items = [Example(str(i), f"{text(rng, 30)}？", f"{text(rng, 9)}{shared}{text(rng, 9)}") for i in range(5)]
        training = Example("a", text(rng, 30), f"{text(rng, 9)}{shared}{text(rng, 9)}")
        assert reasons([*items, FILLER], training) == ["13-gram"] * 5 + [None]
        assert BenchmarkIndex.from_records(items, 0.8).overlap(training.question, training.answer) is not None

    @pytest.mark.parametrize(("records", "hit"), [(10, True), (11, False)])
    def test_what_many_training_records_say_is_a_set_phrase(self, records: int, hit: bool) -> None:
        rng = random.Random(2)
        phrase = "建议您及时到当地正规医院就诊检查"
        training = [Example(str(i), text(rng, 30), text(rng, 20) + phrase) for i in range(records)]
        item = Example("1", text(rng, 30), phrase + text(rng, 20))
        assert reasons([item], *training) == ["13-gram" if hit else None]

    def test_what_many_items_say_is_a_set_phrase(self) -> None:
        rng = random.Random(3)
        phrase = "建议您及时到当地正规医院就诊检查"
        items = [Example(str(i), text(rng, 30), phrase + text(rng, 20)) for i in range(11)]
        training = Example("a", text(rng, 30), phrase)
        assert reasons(items[:10], training) == ["13-gram"] * 10
        assert reasons(items, training) == [None] * 11

    def test_one_record_many_times_over_is_no_set_phrase(self) -> None:
        rng = random.Random(4)
        phrase = text(rng, 20)
        item = Example("1", text(rng, 30), phrase)
        training = Example("a", text(rng, 30), text(rng, 20) + phrase)
        assert reasons([item] * 30, *[training] * 30) == ["13-gram"] * 30

    def test_plain_texts_are_compared_too(self) -> None:
        rng = random.Random(5)
        shared = text(rng, 13)
        items = [PlainText("1", text(rng, 200) + shared), PlainText("2", text(rng, 200)), PlainText("3", "")]
        assert reasons(items, PlainText("a", shared + text(rng, 99)), PlainText("b", "")) == ["13-gram", None, None]

    def test_nothing_overlaps_nothing(self) -> None:
        assert reasons([], FILLER) == []
        assert reasons([FILLER]) == [None]

    @pytest.mark.parametrize("seed", range(4))
    def test_counts_are_those_of_plain_sets(self, seed: int) -> None:
        """Texts put together of few long pieces: an independent count of what they share, by Python's sets."""
        rng = random.Random(seed)
        pieces = [text(rng, rng.randrange(8, 24)) for _ in range(60)]

        def record(name: int) -> Example:
            # Of few pieces some are common and some are rare.
            chosen = [pieces[min(int(rng.expovariate(0.07)), 59)] for _ in range(4)]
            return Example(str(name), text(rng, 30), "，".join(text(rng, 3) + piece for piece in chosen))

        items = [record(i) for i in range(60)]
        training = [record(i) for i in range(25)]
        training += rng.choices(training, k=20)

        def grams(one: Example) -> set[str]:
            answer = one.answer.replace("，", "")
            return {answer[i : i + 13] for i in range(len(answer) - 12)} | {
                one.question[i : i + 13] for i in range(len(one.question) - 12)
            }

        def times(records: Sequence[Example], gram: str) -> int:
            return len({(one.question, one.answer) for one in records if gram in grams(one)})

        expected = [
            any(1 <= times(training, gram) <= 10 and times(items, gram) <= 10 for gram in grams(item)) for item in items
        ]
        assert True in expected
        assert False in expected
        assert [reason is not None for reason in reasons(items, *training)] == expected


class TestData:
    """What is read, and what is said where nothing can be."""

    ITEMS = (Example("q1", CHINESE, "心电图"), Example("q2", ENGLISH, "ECG"), Example("q3", "头晕怎么办？", "休息。"))

    def test_any_file_that_convert_reads(self, tmp_path: Path) -> None:
        path = tmp_path / "raw.csv"
        path.write_text(f"问题,答案\n夏天怎样预防中暑？,多喝水。\n{CHINESE},做心电图。\n", encoding="gb18030")
        assert check_overlap(self.ITEMS, path, SETTINGS) == {
            "checked": True,
            "train": str(path),
            "items": 1,
            "of": 3,
            "ids": ["q1"],
            "reasons": {"question": 1},
            "unread": 0,
        }

    def test_training_records_that_cannot_be_read_are_counted(self, tmp_path: Path) -> None:
        path = tmp_path / "raw.jsonl"
        good = json.dumps({"question": "夏天怎样预防中暑？", "answer": "多喝水。"}, ensure_ascii=False)
        path.write_text(f'{good}\n{{"question": "{CHINESE}", "answ\n', encoding="utf-8")
        found = check_overlap(self.ITEMS, path, SETTINGS)
        assert (found["checked"], found["items"], found["unread"]) == (True, 0, 1)

    def test_the_order_and_the_blocks_of_the_data_do_not_matter(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rng = random.Random(6)
        pieces = [text(rng, 16) for _ in range(40)]
        records = [
            {"question": text(rng, 20), "answer": text(rng, 8) + pieces[min(int(rng.expovariate(0.1)), 39)]}
            for _ in range(300)
        ]
        items = [Example(str(i), text(rng, 20), piece) for i, piece in enumerate(pieces)]
        found = []
        for block in (2048, 7):
            path = tmp_path / f"{block}.jsonl"
            path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
            monkeypatch.setattr(overlap_check, "_BLOCK", block)
            found.append(check_overlap(items, path, SETTINGS) | {"train": ""})
            rng.shuffle(records)
        assert found[0] == found[1]
        assert 0 < found[0]["items"] < 40

    def test_a_converted_folder_is_its_training_part(self) -> None:
        folder = trainable.place() / "data"
        parts = {}
        for part in ("train", "test"):
            lines = (folder / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
            parts[part] = [Example.from_dict(json.loads(line)) for line in lines]
        found = check_overlap(parts["train"] + parts["test"], folder, SETTINGS)
        assert found["train"] == str(folder / "train.jsonl")
        assert (found["items"], found["of"]) == (11, 12)
        assert found["ids"] == [record.id for record in parts["train"]]

    def test_exams_and_dialogues_are_found_in_what_convert_made_of_them(self, tmp_path: Path) -> None:
        """Also where the readers bring a converted record into its form once more."""
        records: list[dict[str, Any]] = [
            {"question": "维生素B1缺乏引起", "options": {"A": "脚气病", "B": "坏血病"}, "answer": "A", "id": "exam"},
            {"messages": [{"role": role, "content": words} for role, words in (
                ("user", "孩子咳嗽三天了"), ("assistant", "有痰吗？"), ("user", "没有痰"), ("assistant", "多喝温水。"),
            )], "id": "dialogue"},
            {"question": "头晕怎么办才好呢？", "answer": "先坐下休息，再量血压。", "id": "qa"},
        ]  # fmt: skip
        path = tmp_path / "raw.jsonl"
        path.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
        arguments = ["--model", "medqa-tiny", "data.aug_rate=0", "data.split=[1,0,0]"]
        arguments += ["data.min_question_tokens=0", "data.min_answer_tokens=0"]
        assert main(["convert", str(path), "--output", str(tmp_path / "data"), *arguments]) == 0
        items = [
            exam("1", "维生素B1缺乏引起", "坏血病", "脚气病"),
            Example("2", "没有痰", "多喝水。", history=(("孩子咳嗽三天了", "有痰吗"),)),
            Example("3", "头晕怎么办才好呢", "去医院。"),
        ]
        assert check_overlap(items, tmp_path / "data", SETTINGS)["ids"] == ["1", "2", "3"]

    def test_what_was_converted_without_the_benchmark_holds_none_of_it(self, tmp_path: Path) -> None:
        rng = random.Random(7)
        items = [{"question": text(rng, 30), "answer": text(rng, 40)} for _ in range(20)]
        records = [{"question": text(rng, 30), "answer": text(rng, 40)} for _ in range(40)]
        for place, item in enumerate(items[:10]):
            records[3 * place]["answer"] += item["answer"][5 : 18 + place]
        for name, lines in (("items", items), ("raw", records)):
            (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        arguments = ["--model", "medqa-tiny", "data.aug_rate=0", "data.split=[1,0,0]"]
        examples = [Example(str(i), **item) for i, item in enumerate(items)]
        found = {}
        for name, more in (("all", []), ("clean", ["--benchmark", str(tmp_path / "items.jsonl")])):
            raw, output = str(tmp_path / "raw.jsonl"), str(tmp_path / name)
            assert main(["convert", raw, "--output", output, *more, *arguments]) == 0
            found[name] = check_overlap(examples, tmp_path / name, SETTINGS)["items"]
        assert found == {"all": 10, "clean": 0}

    def test_the_settings_of_convert_say_what_is_alike(self, tmp_path: Path) -> None:
        rng = random.Random(8)
        shared = text(rng, 20)
        path = tmp_path / "raw.jsonl"
        path.write_text(json.dumps({"q": text(rng, 30), "a": text(rng, 30) + shared}), encoding="utf-8")
        item = Example("1", text(rng, 30), shared)
        settings = DataSection.model_validate({"columns": {"question": "q", "answer": "a"}})
        assert check_overlap([item], path, settings)["reasons"] == {"13-gram": 1}
        settings.benchmark_ngram = 21
        assert check_overlap([item], path, settings)["items"] == 0

    @pytest.mark.parametrize("what", ["absent", "empty", "broken", "changed"])
    def test_data_that_cannot_be_used_is_no_reason_to_lose_an_evaluation(self, tmp_path: Path, what: str) -> None:
        path = tmp_path / "train.jsonl"
        if what in ("empty", "broken"):
            path.write_text("" if what == "empty" else '{"question": \n' * 3, encoding="utf-8")
        if what == "changed":
            path = tmp_path / "data"
            shutil.copytree(trainable.place() / "data", path)
            (path / "train.jsonl").write_text("{}", encoding="utf-8")
        found = check_overlap(self.ITEMS, path, SETTINGS)
        assert found.keys() == {"checked", "why"}
        assert found["checked"] is False
        assert str(path) in found["why"]
        assert found["why"].endswith("name the data with --train-data FOLDER")


def run_folder(folder: Path, data: str, told: dict[str, Any] | None = None) -> Path:
    """The adapter of a run whose config names some data."""
    (folder / "adapter").mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"data": {"path": data}}), encoding="utf-8")
    if told is not None:
        (folder / "data.json").write_text(json.dumps(told), encoding="utf-8")
    return folder / "adapter"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    shutil.copytree(trainable.place() / "data", tmp_path / "place" / "data")
    return tmp_path / "place" / "data"


def fingerprint(folder: Path) -> str:
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]["train.jsonl"]["sha256"]


class TestWhereAnAdapterWasTrained:
    def test_the_config_of_the_run_names_the_data(
        self, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert training_data_of(run_folder(tmp_path / "a", str(data))) == data
        monkeypatch.chdir(data.parent)
        adapter = run_folder(tmp_path / "b", "data")
        assert training_data_of(adapter) == Path("data")
        # From elsewhere it is looked for around the run.
        monkeypatch.chdir("/")
        assert training_data_of(adapter) is None
        assert training_data_of(run_folder(data.parent / "runs" / "first", "data")) == data
        monkeypatch.chdir(data.parent / "runs" / "first")
        assert training_data_of(Path("adapter")) == data

    def test_what_the_run_says_of_its_data_goes_first(self, tmp_path: Path, data: Path) -> None:
        told = {"path": str(data), "train_sha256": fingerprint(data)}
        shutil.copytree(trainable.place() / "text", tmp_path / "other")
        assert training_data_of(run_folder(tmp_path / "a", str(tmp_path / "other"), told)) == data
        # Data that was moved together with the run.
        told["path"] = str(tmp_path / "gone")
        assert training_data_of(run_folder(data.parent / "runs" / "b", "data", told)) == data

    def test_data_that_was_converted_anew_is_not_compared(self, tmp_path: Path, data: Path) -> None:
        told = {"path": str(data), "train_sha256": fingerprint(data)}
        adapter = run_folder(tmp_path / "run", str(data), told)
        assert overlaps_of([[FILLER]], {"tuned": adapter}, SETTINGS)[0]["checked"] is True
        shutil.rmtree(data)
        shutil.copytree(trainable.place() / "text", data)
        assert training_data_of(adapter) is None
        found = overlaps_of([[FILLER]], {"tuned": adapter}, SETTINGS)[0]
        assert found["checked"] is False
        assert "converted anew since" in found["why"]
        # The user may know better.
        assert overlaps_of([[FILLER]], {"tuned": adapter}, SETTINGS, data)[0]["checked"] is True

    @pytest.mark.parametrize("content", ["", "data: [", "- 1", "data:\n  path: 3", "data: 5", "data:\n  path: nowhere"])
    def test_a_run_that_does_not_tell(self, tmp_path: Path, content: str) -> None:
        adapter = run_folder(tmp_path / "run", "x")
        (tmp_path / "run" / "config.yaml").write_text(content, encoding="utf-8")
        (tmp_path / "run" / "data.json").write_text('{"path": ', encoding="utf-8")
        assert training_data_of(adapter) is None
        why = overlaps_of([[FILLER]], {"tuned": adapter}, SETTINGS)[0]["why"]
        assert why.startswith("tuned: ")
        assert "--train-data" in why

    def test_a_model_alone_does_not_tell(self, tmp_path: Path) -> None:
        assert training_data_of(tmp_path / "adapter") is None
        found = overlaps_of([[FILLER]], {}, SETTINGS)[0]
        assert found["checked"] is False
        assert "--train-data" in found["why"]

    def test_the_data_of_several_models_counts_together_and_once(self, tmp_path: Path, data: Path) -> None:
        second = tmp_path / "second"
        shutil.copytree(trainable.place() / "text", second)
        sentences = json.loads((second / "train.jsonl").read_text(encoding="utf-8").splitlines()[0])["text"]
        question = json.loads((data / "train.jsonl").read_text(encoding="utf-8").splitlines()[0])["question"]
        items = [PlainText("1", sentences), Example("2", question, "sleep"), FILLER]
        adapters = {str(i): run_folder(tmp_path / str(i), str(path)) for i, path in enumerate((data, second, data))}
        found = overlaps_of([items], adapters, SETTINGS)[0]
        assert found["ids"] == ["1", "2"]
        assert found["train"] == f"{data / 'train.jsonl'}, {second / 'train.jsonl'}"
