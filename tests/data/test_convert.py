"""`ms-medqa convert`, through the command line: what it writes and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conversions import FILES, PARTS, Convert, leftovers, lines, qa, read, write

from ms_medqa.config import UserError
from ms_medqa.config.loader import load_config
from ms_medqa.data import manifest
from ms_medqa.data.convert import convert as run_convert
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer


def test_what_a_conversion_writes(convert: Convert, tmp_path: Path) -> None:
    bad = [
        qa(1),
        {"question": "", "answer": "x"},
        '{"question": "感',
        {"question": "感冒怎么治疗？", "answer": "可根治糖尿病"},
    ]
    source = write(tmp_path / "qa.jsonl", [qa(i, id=f"k{i}", key="水") for i in range(100)] + bad)
    printed = convert(source)
    assert "question and answer" in printed
    assert "train 80, val 10, test 10" in printed
    assert str(convert.output) in printed

    assert {path.name for path in convert.output.iterdir()} == FILES
    assert leftovers(tmp_path) == []
    report = read(convert.output / "report.json")
    assert report["read"] == 104
    assert report["kept"] == {"train": 80, "val": 10, "test": 10}
    assert report["augmented"] == 0
    assert report["rejected"] == {"broken_json": 1, "duplicate": 1, "empty": 1, "wrong_claim": 1}
    assert report["seed"] == 42
    rejected = lines(convert.output / "rejected.jsonl")
    assert [(r["file"], r["line"], r["reason"]) for r in rejected] == [
        ("qa.jsonl", 101, "duplicate"),
        ("qa.jsonl", 102, "empty"),
        ("qa.jsonl", 103, "broken_json"),
        ("qa.jsonl", 104, "wrong_claim"),
    ]
    assert rejected[0]["record"] == bad[0]
    assert rejected[0]["detail"] == "same as k1"
    assert rejected[2]["record"] == bad[2]


def test_duplicates_can_be_allowed(convert: Convert, tmp_path: Path) -> None:
    source = write(tmp_path / "qa.jsonl", [qa(1), qa(1), *(qa(i) for i in range(2, 6))])
    convert(source, "data.rules.duplicate=false", "data.near_duplicates=null")
    report = read(convert.output / "report.json")
    assert (report["read"], report["rejected"]) == (6, {})


def test_mindrecord_holds_the_tokens_of_the_json_lines(convert: Convert, tmp_path: Path) -> None:
    convert(write(tmp_path / "qa.jsonl", [qa(i, context=f"知识 {i}") for i in range(40)]))
    tokenizer = Tokenizer.load(convert.model)
    prompt = Prompt.load(convert.output, tokenizer)
    total = 0
    for part in PARTS:
        records = manifest.load_split(convert.output, part, tokenizer, prompt)
        examples = [Example.from_dict(line) for line in lines(convert.output / f"{part}.jsonl")]
        assert records.ids == [example.id for example in examples]
        for index, example in enumerate(examples):
            encoded = prompt.encode(example)
            assert records.record(index)[0].tolist() == encoded.input_ids
            assert records.record(index)[1].tolist() == encoded.loss_mask
        total += len(records)
        length = read(convert.output / "report.json")["tokens"][part]
        assert length["record"]["max"] == records.lengths.max()
        assert length["trained"] == records.loss_mask.sum()
    assert total == 40


def test_a_second_run_writes_the_same_bytes(convert: Convert, tmp_path: Path) -> None:
    source = write(tmp_path / "qa.jsonl", [qa(i % 90) for i in range(100)])
    contents = []
    for folder in ("here", "there"):
        convert.output = tmp_path / folder / "out"
        convert(source)
        contents.append({name: (convert.output / name).read_bytes() for name in FILES})
    assert contents[0] == contents[1]
    convert(source, "data.seed=1")
    assert (convert.output / "train.jsonl").read_bytes() != contents[1]["train.jsonl"]


def test_several_inputs_of_different_kinds(convert: Convert, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first = write(tmp_path / "a" / "qa.jsonl", [qa(i) for i in range(10)])
    second = write(tmp_path / "b" / "qa.jsonl", [qa(i, id="same") for i in range(5, 20)])
    third = tmp_path / "c.csv"
    third.write_text("instruction,input,output\n" + "".join(f"感冒有哪些症状,{i},发热咳嗽头痛\n" for i in range(5)))
    convert(first, second, third)
    report = read(convert.output / "report.json")
    assert [(f["file"], f["read"], f["kept"]) for f in report["files"]] == [
        ("a/qa.jsonl", 10, 10),
        ("b/qa.jsonl", 15, 10),
        ("c.csv", 5, 5),
    ]
    ids = [line["id"] for part in PARTS for line in lines(convert.output / f"{part}.jsonl")]
    assert len(set(ids)) == len(ids) == 25
    assert {"qa-1", "same-6", "same-15", "c-2"} <= set(ids)


def test_fixed_parts_and_an_empty_one(convert: Convert, tmp_path: Path) -> None:
    records = [qa(i, split="train" if i < 5 else "dev") for i in range(8)]
    printed = convert(write(tmp_path / "qa.jsonl", records))
    assert read(convert.output / "report.json")["kept"] == {"train": 5, "val": 3, "test": 0}
    assert "the test part is empty" in printed
    assert (convert.output / "test.jsonl").read_text() == ""
    assert not (convert.output / "test.mindrecord").exists()
    assert len(manifest.load_split(convert.output, "test", None, None)) == 0
    everything = write(tmp_path / "t.jsonl", [qa(i, split="test") for i in range(8)])
    assert "the train part is empty, 8 records go to test" in convert(everything, status=2)


def test_the_result_does_not_depend_on_the_workers(
    convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [qa(i % 700, id=f"k{i % 900}") for i in range(1000)] + ["{"] * 3 + [{"question": "", "answer": "x"}] * 9
    source = write(tmp_path / "qa.jsonl", records)
    config = load_config(None, [f"model.path={convert.model}", "data.shard_megabytes=1"])
    report = run_convert([source], tmp_path / "one", config, workers=1)
    assert report["read"] == len(records)
    run_convert([source], tmp_path / "three", config, workers=3)
    for path in (tmp_path / "one").glob("*.json*"):
        assert path.read_bytes() == (tmp_path / "three" / path.name).read_bytes(), path.name


def test_a_fault_that_processes_meet_is_told_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source = write(tmp_path / "qa.jsonl", [qa(i) for i in range(20)])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="not a tokenizer file"):
        run_convert([source], tmp_path / "out", load_config(None, [f"model.path={tmp_path}/model"]), workers=2)
    assert capfd.readouterr() == ("", "")
    assert not (tmp_path / "out").exists()


def test_a_part_may_lie_in_several_files(convert: Convert, tmp_path: Path) -> None:
    source = write(tmp_path / "qa.jsonl", [{**qa(i), "answer": f"答{i}" + "休息，多喝水。" * 500} for i in range(300)])
    convert(source, "data.shard_megabytes=1", "data.max_length=16000", "data.near_duplicates=null")
    shards = read(convert.output / "manifest.json")["shards"]["train"]
    assert len(shards) > 2
    records = manifest.load_split(convert.output, "train", None, None)
    assert records.ids == [line["id"] for line in lines(convert.output / "train.jsonl")]
    (convert.output / shards[1]).unlink()
    with pytest.raises(UserError, match=f"{shards[1]}: missing"):
        manifest.load_split(convert.output, "train", None, None)
    convert(source, "data.max_length=16000", "data.near_duplicates=null")
    assert {path.name for path in convert.output.iterdir()} == FILES


def test_near_copies_are_rejected_and_alike_questions_stay_together(convert: Convert, tmp_path: Path) -> None:
    answer = (
        "高血压患者应当低盐饮食，每天食盐不超过五克，多吃新鲜蔬菜和水果，适量运动，戒烟限酒，按医嘱服药，定期测量血压。"
    )
    near = {"question": "高血压患者的饮食应注意什么？", "answer": answer}
    twin = {"question": "高血压患者的饮食应注意什么?", "answer": answer[:-1] + "！"}
    alike = [
        {"question": f"请问{q}的主要治疗方法一般都有哪些呢{e}", "answer": f"答{q}{e}要看病情。"}
        for q in ("胃炎", "肺炎", "肝炎", "肾炎", "鼻炎")
        for e in ("", "，谢谢")
    ]
    source = write(tmp_path / "qa.jsonl", [near, twin, *alike, *(qa(i) for i in range(20))])
    convert(source)
    report = read(convert.output / "report.json")
    assert report["rejected"] == {"near_duplicate": 1}
    (rejected,) = lines(convert.output / "rejected.jsonl")
    assert (rejected["line"], rejected["detail"]) == (2, "100% like qa-1")
    parts = {r["question"]: part for part in PARTS for r in lines(convert.output / f"{part}.jsonl")}
    for first, second in zip(alike[::2], alike[1::2], strict=True):
        assert parts[first["question"]] == parts[second["question"]]
    convert(source, "data.near_duplicates=null")
    assert read(convert.output / "report.json")["rejected"] == {}


def test_what_is_redacted_stands_nowhere(convert: Convert, tmp_path: Path) -> None:
    records = [qa(i, context=f"请拨打电话13800138{i:03}。") for i in range(20)]
    broken = ['{"question": "电话13800138999', {"question": "", "answer": "电话13800138998"}]
    convert(write(tmp_path / "qa.jsonl", [*records, *broken]), "data.redact=true")
    for path in convert.output.iterdir():
        assert b"1380013" not in path.read_bytes(), path.name
    assert read(convert.output / "report.json")["notes"] == {"redacted_phone": 20}
    assert "[电话]" in (convert.output / "train.jsonl").read_text(encoding="utf-8")


def test_plain_text_is_its_own_kind(convert: Convert, tmp_path: Path) -> None:
    source = write(tmp_path / "t.jsonl", [{"text": f"第 {i} 段：心脏分四腔。" * 40} for i in range(20)])
    convert(source, "data.max_length=64")
    tokenizer = Tokenizer.load(convert.model)
    assert manifest.check(convert.output, tokenizer, Prompt.named("alpaca", tokenizer))["kind"] == "text"
    records = manifest.load_split(convert.output, "train", tokenizer, None)
    assert records.lengths.min() > 64
    assert records.loss_mask.all()
    assert np.all(records.tokens[records.offsets[1:] - 1] == tokenizer.eos_token_id)
    questions = write(tmp_path / "q.jsonl", [qa(i) for i in range(5)])
    assert "convert them apart" in convert(source, questions, status=2)


def test_what_was_left_out_of_records_is_said(convert: Convert, tmp_path: Path) -> None:
    turns = [("user", "头痛时要注意什么？"), ("assistant", "休息，必要时就医。"), ("user", "谢谢")]
    records = [{"messages": [{"role": role, "content": f"{text}{i}"} for role, text in turns]} for i in range(5)]
    said = convert(write(tmp_path / "a.jsonl", records), "data.near_duplicates=null")
    assert "noted             5   trailing_user_turn 5" in said


def test_columns_by_name(convert: Convert, tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("thema,frage1,antwort1\n" + "".join(f"t,第 {i} 个问题是什么,第 {i} 个回答\n" for i in range(5)))
    said = convert(source, status=2)
    assert "a.csv line 2: unknown columns: thema, frage1, antwort1" in said
    assert "data.columns.question=" in said
    assert "no column 'frage'" in convert(source, "data.columns.question=frage", status=2)
    convert(source, "data.columns.question=frage1", "data.columns.answer=antwort1")
    (record,) = lines(convert.output / "test.jsonl")
    assert record["answer"] == record["question"].replace("问题是什么", "回答")
    named = ("data.columns.question=frage1", "data.columns.answer=antwort1", "data.columns.context=ctx")
    assert "data.columns.context=ctx: no such column: there are thema, frage1, antwort1" in convert(
        source, *named, status=2
    )


def test_half_broken_goes_on_and_more_stops(convert: Convert, tmp_path: Path) -> None:
    source = write(tmp_path / "qa.jsonl", ["{"] * 4 + [qa(i) for i in range(4)])
    convert(source)
    assert read(convert.output / "report.json")["rejected"] == {"broken_json": 4}
    before = (convert.output / "manifest.json").read_bytes()
    said = convert(write(tmp_path / "qa.jsonl", [qa(0), "", *["{"] * 5, *(qa(i) for i in range(1, 4))]), status=2)
    assert "5 of 9 records are broken JSON, the first in line 3" in said
    # The earlier result is untouched.
    assert (convert.output / "manifest.json").read_bytes() == before
    assert leftovers(tmp_path) == []


def test_a_link_keeps_its_own_name(convert: Convert, tmp_path: Path) -> None:
    source = write(tmp_path / "0f3a9c", [qa(i) for i in range(5)])
    link = tmp_path / "qa.jsonl"
    link.symlink_to(source)
    convert(link)
    assert [file["file"] for file in read(convert.output / "report.json")["files"]] == ["qa.jsonl"]
    (tmp_path / "again.jsonl").symlink_to(link)
    assert "named 2 times" in convert(link, tmp_path / "again.jsonl", status=2)


def test_another_encoding_is_read_and_said(convert: Convert, tmp_path: Path) -> None:
    source = tmp_path / "qa.jsonl"
    source.write_text("".join(json.dumps(qa(i), ensure_ascii=False) + "\n" for i in range(50)), encoding="gb18030")
    assert "JSON Lines, GB18030" in convert(source)
    assert lines(convert.output / "train.jsonl")[0]["answer"].startswith("休息")


def test_faulty_arguments(convert: Convert, tmp_path: Path) -> None:
    source = write(tmp_path / "qa.jsonl", [qa(i) for i in range(5)])
    assert "no such file" in convert(tmp_path / "none.json", status=2)
    (tmp_path / "empty").mkdir()
    assert "empty" in convert(tmp_path / "empty", status=2)
    assert "named 2 times" in convert(source, tmp_path / "." / "qa.jsonl", status=2)
    assert "no input file" in convert("data.max_length=64", status=2)
    assert "data.max_length" in convert(source, "data.maxlength=64", status=2)
    assert "nowhere: no such folder" in convert(source, "--model", "nowhere", status=2)
    (tmp_path / "bare").mkdir()
    assert "no tokenizer.json" in convert(source, "--model", tmp_path / "bare", status=2)
    assert not convert.output.exists()


def test_shared_records_add_up(convert: Convert, shared_data: Path) -> None:
    convert(shared_data / "huanhuan" / "huanhuan.json", "--model", shared_data / "tokenizers" / "qwen2.5")
    report = read(convert.output / "report.json")
    assert report["read"] == sum(report["kept"].values()) + sum(report["rejected"].values()) == 3729
    assert report["rejected"]["duplicate"] > 0
    questions = [{line["question"] for line in lines(convert.output / f"{part}.jsonl")} for part in PARTS]
    assert not questions[0] & questions[1]
    assert not questions[0] & questions[2]
    assert not questions[1] & questions[2]
