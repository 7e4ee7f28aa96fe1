"""What happens to the training part alone: benchmarks, variants, weights and other data, through the command line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conversions import PARTS, lines, read, write

from ms_medqa.cli.main import main
from ms_medqa.config.errors import UserError
from ms_medqa.config.loader import load_config
from ms_medqa.data import judging, manifest
from ms_medqa.data.convert import convert as run_convert
from ms_medqa.data.example import Example
from ms_medqa.data.split import question_digest

_DISEASES = ["高血压", "糖尿病", "胃炎", "肺炎", "肾炎", "哮喘", "痛风", "湿疹", "贫血", "肝硬化"]
_ASKED = ("{}怎么治疗？", "{}有哪些症状？", "什么是{}？", "如何预防{}？")
QUESTIONS = [form.format(disease) for disease in _DISEASES for form in _ASKED]


def qa(number: int, **more: Any) -> dict[str, Any]:
    """A record; the first forty ask what variants can be made of."""
    question = QUESTIONS[number] if number < len(QUESTIONS) else f"第 {number} 床今天几点量体温？"
    return {"question": question, "answer": f"请看病历第 {number} 页。", **more}


class Result:
    """A converted folder; whatever it is, its files agree with each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.report = read(folder / "report.json")
        self.parts = {part: lines(folder / f"{part}.jsonl") for part in PARTS}
        self.rejected = lines(folder / "rejected.jsonl")
        self.train = self.parts["train"]
        report = self.report
        assert report["read"] == sum(report["kept"].values()) + sum(report["rejected"].values())
        assert Counter(r["reason"] for r in self.rejected) == report["rejected"]
        added = report["augmented"] + report.get("repeated", 0) + sum(m["taken"] for m in report.get("mixed", ()))
        rows = manifest.check(folder)["rows"]
        assert rows == report["kept"] | {"train": report["kept"]["train"] + added}
        for part, records in self.parts.items():
            assert manifest.load_split(folder, part, None, None).ids == [r["id"] for r in records]
            assert len(records) == rows[part]
        ids = [r["id"] for records in self.parts.values() for r in records]
        assert len(set(ids)) == len(ids)
        assert not any("parent" in r for part in PARTS[1:] for r in self.parts[part])

    def rejected_for(self, reason: str) -> list[Any]:
        return [r for r in self.rejected if r["reason"] == reason]

    def content(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}


Run = Callable[..., Result]


def arguments(output: Path, model: Path, *more: str | Path) -> list[str]:
    return ["convert", "--output", str(output), "--model", str(model), "data.near_duplicates=null", *map(str, more)]


@pytest.fixture(scope="module")
def convert(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_folder: Path) -> Run:
    """Runs the command into a new folder."""

    def run(*more: str | Path) -> Result:
        output = tmp_path_factory.mktemp("converted") / "out"
        assert main(arguments(output, tiny_tokenizer_folder, *more)) == 0
        return Result(output)

    return run


@pytest.fixture
def fault(tmp_path: Path, tiny_tokenizer_folder: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command where it must fail, and gives its one line."""

    def run(*more: str | Path) -> str:
        capsys.readouterr()
        assert main(arguments(tmp_path / "out", tiny_tokenizer_folder, *more)) == 2
        error = capsys.readouterr().err
        assert error.startswith("ms-medqa convert: error: "), error
        assert error.count("\n") == 1, error
        assert not (tmp_path / "out").exists()
        return error

    return run


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hundred records."""
    return write(tmp_path_factory.mktemp("source") / "qa.jsonl", (qa(i) for i in range(100)))


@pytest.fixture(scope="module")
def plain(convert: Run, source: Path) -> Result:
    """The source as it is."""
    return convert(source, "data.aug_rate=0")


@pytest.fixture(scope="module")
def varied(convert: Run, source: Path) -> Result:
    """The source with all variants that can be made."""
    return convert(source, "data.aug_rate=1")


@pytest.fixture(scope="module")
def general(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty records about other things, and one that cannot be used."""
    records = [
        {"id": f"g{i}", "question": f"{i} 加 {i} 等于几？", "answer": "等于" + "，也就是" * (i % 5) + f" {2 * i}。"}
        for i in range(20)
    ]
    return write(tmp_path_factory.mktemp("general") / "general.jsonl", [*records, {"question": "空", "answer": ""}])


def config(folder: Path, *mix: tuple[Path, float], **data: Any) -> Path:
    """A config with other data to mix in. JSON is YAML."""
    sources = [{"path": str(path), "weight": weight} for path, weight in mix]
    (folder / "c.yaml").write_text(json.dumps({"data": {"aug_rate": 0, "mix": sources, **data}}), encoding="utf-8")
    return folder / "c.yaml"


def test_training_records_that_give_a_benchmark_away_are_rejected(
    convert: Run, source: Path, plain: Result, tmp_path: Path
) -> None:
    train, test = ([r for r in plain.parts[part] if "床" in r["question"]] for part in ("train", "test"))
    asked = [train[0], train[1], test[0]]
    benchmark = write(tmp_path / "exam.jsonl", ({"id": f"e{i}", **_pair(r)} for i, r in enumerate(asked)))
    result = convert(source, "data.aug_rate=0", "--benchmark", benchmark)
    assert result.report["rejected"] == {"benchmark": 2}
    assert [(r["record"]["id"], r["detail"]) for r in result.rejected] == [
        (train[0]["id"], "question of exam.jsonl:e0"),
        (train[1]["id"], "question of exam.jsonl:e1"),
    ]
    assert result.rejected[0]["line"] == int(train[0]["id"].removeprefix("qa-"))
    assert result.parts == plain.parts | {"train": [r for r in plain.train if r not in asked]}


def test_no_variant_asks_what_a_benchmark_asks(convert: Run, source: Path, varied: Result, tmp_path: Path) -> None:
    variant = next(r for r in varied.train if "parent" in r)
    benchmark = write(tmp_path / "exam.jsonl", [_pair(variant)])
    result = convert(source, "data.aug_rate=1", "--benchmark", benchmark)
    assert variant["question"] not in {r["question"] for r in result.train}


def test_plain_text_is_kept_clear_of_a_benchmark(convert: Run, tmp_path: Path) -> None:
    texts = [f"第 {i} 段：第 {i} 床今天体温平稳，第 {i} 床明天上午复查，第 {i} 天出院。" for i in range(20)]
    corpus = write(tmp_path / "t.jsonl", [{"text": text} for text in texts])
    benchmark = write(tmp_path / "exam.jsonl", [{"question": texts[3], "answer": "是", "id": "e"}])
    found = convert(corpus, "data.split=[1,0,0]", "--benchmark", benchmark).rejected
    assert [(r["record"]["text"], r["detail"]) for r in found] == [(texts[3], "13-gram of exam.jsonl:e")]


def test_the_length_of_what_may_not_be_in_common_can_be_set(convert: Run, tmp_path: Path) -> None:
    shared = "患者餐后出现右上腹疼痛并向右肩放射伴恶心"
    texts = [
        f"病例 {i}：{shared if i < 4 else ''}。" + "".join(f"第 {i * 40 + n} 次查房没有新的变化。" for n in range(9))
        for i in range(1, 6)
    ]
    corpus = write(tmp_path / "t.jsonl", [{"text": text} for text in texts])
    benchmark = write(tmp_path / "exam.jsonl", [{"question": f"{shared}，最可能的诊断是什么？", "answer": "胆囊炎"}])
    for ngram, kept in ((len(shared), 2), (len(shared) + 1, 5)):
        settings = ("data.split=[1,0,0]", "data.near_duplicates=null", f"data.benchmark_ngram={ngram}")
        assert len(convert(corpus, *settings, "--benchmark", benchmark).train) == kept


def test_a_faulty_benchmark_is_one_clear_error(fault: Callable[..., str], source: Path, tmp_path: Path) -> None:
    assert "none.jsonl: no such file" in fault(source, "--benchmark", tmp_path / "none.jsonl")
    strange = write(tmp_path / "strange.jsonl", [{"thema": "x", "zahl": 1}])
    assert f"{strange}: no record of this benchmark can be read" in fault(source, "--benchmark", strange)
    (tmp_path / "empty.jsonl").touch()
    assert "empty.jsonl: the file is empty" in fault(source, "--benchmark", tmp_path / "empty.jsonl")
    everything = write(tmp_path / "all.jsonl", (qa(i) for i in range(100)))
    assert "the train part is empty" in fault(source, "--benchmark", everything)


def test_variants_are_in_the_training_part_only(plain: Result, varied: Result) -> None:
    kept = {r["id"]: r for r in plain.train}
    made = [r for r in varied.train if "parent" in r]
    assert plain.report["augmented"] == 0
    assert not any("parent" in r for r in plain.train)
    assert varied.report["augmented"] == len(made) > 10
    assert varied.report["kept"] == plain.report["kept"]
    # They come behind the records that were read, which stay as they are.
    assert varied.parts == plain.parts | {"train": plain.train + made}
    for variant in made:
        parent = kept[variant["parent"]]
        assert variant["id"] == f"{parent['id']}~aug1"
        assert variant["answer"] == parent["answer"]
    known = {question_digest(Example.from_dict(r)) for records in plain.parts.values() for r in records}
    assert not known & {question_digest(Example.from_dict(r)) for r in made}


def test_variants_depend_on_the_seed_and_nothing_else(convert: Run, source: Path, varied: Result) -> None:
    assert convert(source, "data.aug_rate=1").content() == varied.content()
    other = convert(source, "data.aug_rate=1", "data.seed=7")
    assert [r["id"] for r in other.train] != [r["id"] for r in varied.train]


def test_variants_do_not_depend_on_the_workers(
    source: Path, tiny_tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {f"qa-{i}~aug1" for i in (3, 9)}
    # Ids that variants would have, and questions of which two records would get the same variant.
    more = write(tmp_path / "more.jsonl", [qa(90 + i, id=name) for i, name in enumerate(sorted(names))])
    asked = [{"question": f"请问{disease}该怎么治疗？", "answer": "请问医生。"} for disease in _DISEASES]
    again = write(tmp_path / "again.jsonl", asked)
    exam = write(tmp_path / "exam.jsonl", [_pair(qa(i)) for i in (5, 6)])
    overrides = ["data.near_duplicates=null", "data.aug_rate=1", "data.split=[0.9,0.05,0.05]"]
    config = load_config(
        None, [f"model.path={tiny_tokenizer_folder}", f"data.benchmark={json.dumps([str(exam)])}", *overrides]
    )
    run_convert([source, more, again], tmp_path / "one", config, workers=1)
    # Batches of another size, and more of them than the workers have at hand.
    monkeypatch.setattr(judging, "BATCH", 7)
    run_convert([source, more, again], tmp_path / "two", config, workers=2)
    one, two = (Result(tmp_path / name) for name in ("one", "two"))
    for path in one.folder.glob("*.json*"):
        assert path.read_bytes() == (two.folder / path.name).read_bytes(), path.name
    made = [r for r in one.train if "parent" in r]
    assert len({question_digest(Example.from_dict(r)) for r in made}) == len(made) > 10
    assert names & {r["parent"] + "~aug1" for r in made}
    assert {r["id"].removesuffix("-2") for r in made if r["id"].endswith("-2")} <= names


def test_a_faulty_list_of_synonyms_is_told_before_anything_is_read(
    source: Path, tiny_tokenizer_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "synonyms.yaml").write_text("- 1", encoding="utf-8")
    overrides = [f"model.path={tiny_tokenizer_folder}", f"data.synonyms={json.dumps([f'{tmp_path}/synonyms.yaml'])}"]
    for workers in (1, 2):
        with pytest.raises(UserError, match=r"synonyms\.yaml: entry 1 is not a list of terms"):
            run_convert([source], tmp_path / "out", load_config(None, overrides), workers)
    assert not (tmp_path / "out").exists()
    assert capfd.readouterr() == ("", "")


def test_a_weight_below_one_leaves_records_out(convert: Run, source: Path, tmp_path: Path) -> None:
    second = write(tmp_path / "b.jsonl", (qa(i) for i in range(100, 160)))
    whole = convert(source, second, "data.aug_rate=0")
    mine = [r for r in whole.train if r["source"] == "b.jsonl"]
    result = convert(source, f"{second}@0.5", "data.aug_rate=0")
    left = [r for r in result.train if r["source"] == "b.jsonl"]
    assert result.report["rejected"] == {"weight": len(mine) - len(left)}
    assert len(left) == (len(mine) + 1) // 2
    assert {(r["file"], r["reason"], r["detail"]) for r in result.rejected} == {("b.jsonl", "weight", "weight 0.5")}
    # The others are all there, in the order of the file.
    out = {r["record"]["id"] for r in result.rejected}
    assert result.parts == whole.parts | {"train": [r for r in whole.train if r["id"] not in out]}


def test_a_weight_above_one_repeats_records(convert: Run, source: Path, plain: Result) -> None:
    result = convert(f"{source}@2.5", "data.aug_rate=0")
    count = len(plain.train)
    more = result.train[count:]
    assert result.parts == plain.parts | {"train": plain.train + more}
    assert result.report["repeated"] == len(more) == count * 3 // 2
    ids = {r["id"]: r for r in plain.train}
    assert {r["id"] for r in more[:count]} == {f"{name}~2" for name in ids}
    assert all(r["id"].endswith("~3") for r in more[count:])
    for record in more:
        assert record == ids[record["id"].split("~")[0]] | {"id": record["id"]}
    # Repetitions get no variants of their own.
    both = convert(f"{source}@2", "data.aug_rate=1")
    assert all("~" not in r["parent"] for r in both.train if "parent" in r)
    assert both.report["augmented"]


def test_faulty_weights_are_clear_errors(fault: Callable[..., str], source: Path) -> None:
    assert "weight 'half' is no number" in fault(f"{source}@half")
    for weight in ("0", "-1", "inf", "nan"):
        assert "a weight must be above 0" in fault(f"{source}@{weight}")


def test_other_data_is_mixed_in_by_records(
    convert: Run, source: Path, plain: Result, general: Path, tmp_path: Path
) -> None:
    result = convert(source, "--config", config(tmp_path, (general, 0.1)))
    more = result.train[len(plain.train) :]
    assert result.parts == plain.parts | {"train": plain.train + more}
    assert len(more) == 8
    assert all(r["id"].startswith("general.jsonl:g") and r["source"] == "general.jsonl" for r in more)
    (mixed,) = result.report["mixed"]
    (file,) = mixed.pop("files")
    rows = manifest.load_split(result.folder, "train", None, None)
    assert mixed == {
        "path": "general.jsonl",
        "weight": 0.1,
        "by": "record",
        "taken": 8,
        "tokens": int(rows.lengths[len(plain.train) :].sum()),
    }
    assert (file["file"], file["read"], file["kept"], file["rejected"]) == ("general.jsonl", 21, 20, {"empty": 1})
    assert convert(source, "--config", config(tmp_path, (general, 0.1))).content() == result.content()
    assert convert(source, "--config", config(tmp_path, (general, 0.1), seed=1)).train != result.train
    # A source that is too small is taken again.
    again = convert(source, "--config", config(tmp_path, (general, 0.5))).train[len(plain.train) :]
    assert Counter(r["id"].partition("~")[2] for r in again) == {"": 20, "2": 20}


def test_other_data_is_mixed_in_by_tokens(convert: Run, source: Path, plain: Result, general: Path) -> None:
    settings = config(general.parent, (general, 0.1), mix_by="token")
    result = convert(source, "--config", settings)
    lengths = manifest.load_split(result.folder, "train", None, None).lengths
    wanted, more = 0.1 * lengths[: len(plain.train)].sum(), lengths[len(plain.train) :]
    assert abs(more.sum() - wanted) <= more.max() / 2
    (mixed,) = result.report["mixed"]
    assert (mixed["by"], mixed["taken"], mixed["tokens"]) == ("token", len(more), more.sum())


def test_other_data_asks_no_question_of_validation_and_test(
    convert: Run, source: Path, plain: Result, tmp_path: Path
) -> None:
    asked = [plain.train[0], plain.parts["val"][0], plain.parts["test"][0]]
    others = [{"question": r["question"], "answer": "请到门诊就诊。"} for r in asked]
    result = convert(source, "--config", config(tmp_path, (write(tmp_path / "more.jsonl", others), 1)))
    questions = {r["question"] for r in result.train if r["source"] == "more.jsonl"}
    assert questions == {asked[0]["question"]}
    (file,) = result.report["mixed"][0]["files"]
    assert (file["kept"], file["rejected"]) == (1, {"held_out": 2})


def test_other_data_asks_nothing_that_is_nearly_a_question_of_validation_and_test(convert: Run, tmp_path: Path) -> None:
    # Forty characters each, and no three in a row of one stand in another.
    questions = ["".join(chr(0x4E00 + 500 * i + 7 * k) for k in range(40)) + "吗" for i in range(16)]
    source = write(tmp_path / "in.jsonl", [{"question": q, "answer": "请遵医嘱，定期复查。"} for q in questions])
    plain = convert(source, "data.aug_rate=0")
    others = [{"question": q.replace("吗", "呢"), "answer": "请到门诊就诊。"} for q in questions]
    result = convert(source, "--config", config(tmp_path, (write(tmp_path / "more.jsonl", others), 1)))
    taken = {r["question"].replace("呢", "吗") for r in result.train if r["source"] == "more.jsonl"}
    held_out = {r["question"] for part in ("val", "test") for r in plain.parts[part]}
    assert held_out
    assert taken == set(questions) - held_out
    (file,) = result.report["mixed"][0]["files"]
    assert file["rejected"] == {"held_out": len(held_out)}


def test_other_data_that_cannot_be_mixed_in_is_a_clear_error(
    fault: Callable[..., str], source: Path, tmp_path: Path
) -> None:
    def mixing(path: Path, into: Path = source, weight: float = 0.1) -> str:
        return fault(into, "--config", config(tmp_path, (path, weight)))

    assert "none.jsonl: no such file" in mixing(tmp_path / "none.jsonl")
    empty = write(tmp_path / "useless.jsonl", [{"question": "空", "answer": ""}])
    assert "useless.jsonl: no records are left to mix in" in mixing(empty)
    (tmp_path / "none").mkdir()
    for name, content in (("a.json", "[]"), ("b.jsonl", "")):
        (tmp_path / "none" / name).write_text(content)
    assert "none: no records are left to mix in" in mixing(tmp_path / "none")
    text = write(tmp_path / "text.jsonl", [{"text": f"第 {i} 段：心脏分四腔。"} for i in range(20)])
    assert f"{text} holds plain text, which cannot be mixed into questions" in mixing(text)
    assert f"{source} holds questions, which cannot be mixed into plain text" in mixing(source, into=text)
    assert "has two weights" in mixing(Path(f"{empty}@2"))
    assert "data.mix.0.weight" in mixing(text, weight=-1)


def test_no_made_id_is_that_of_another_record(convert: Run, general: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twin = write(tmp_path / "other" / "general.jsonl", ({"id": f"g{i}", **_pair(qa(200 + i))} for i in range(20)))
    names = [f"k{i}{end}" for i in range(10) for end in ("", "~aug1", "~2", "~3")]
    names += [f"general.jsonl:g{i}{end}" for i in range(20) for end in ("", "~2")]
    records = [qa(i, id=name, split="train") for i, name in enumerate(names)]
    source = write(tmp_path / "qa.jsonl", records)
    settings = config(tmp_path, (general, 0.3), (twin, 0.3), aug_rate=1)
    result = convert(f"{source}@3", "--config", settings)  # `Result` looks at all ids
    ids = [r["id"] for r in result.train]
    assert ids[: len(names)] == names
    assert {"k0~2-2", "k0~aug1-2", "general.jsonl:g0-2"} <= set(ids)
    assert {r["parent"] for r in result.train if "parent" in r} <= set(names)


def _pair(record: dict[str, Any]) -> dict[str, str]:
    return {"question": record["question"], "answer": record["answer"]}
