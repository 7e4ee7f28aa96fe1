"""Every raw format becomes the same Example, and a broken record costs only itself."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.config import UserError
from ms_medqa.config.schema import Columns, DataSection
from ms_medqa.data.example import Example, PlainText
from ms_medqa.data.readers import Reading, read_records


def read(path: Path, **columns: str) -> list[Reading]:
    return list(read_records(path, DataSection(columns=Columns(**columns)), path.name)[1])


def examples(path: Path, **columns: str) -> list[Any]:
    readings = read(path, **columns)
    assert [reading.error for reading in readings] == [None] * len(readings)
    return [reading.record for reading in readings]


def write(path: Path, *lines: Any) -> Path:
    path.write_text(
        "".join((x if isinstance(x, str) else json.dumps(x, ensure_ascii=False)) + "\n" for x in lines),
        encoding="utf-8",
    )
    return path


TRIPLES = [
    {"question": "感冒怎么办？", "context": "感冒由病毒引起。", "answer": "多休息。"},
    {"question": "什么是\n高血压？", "context": None, "answer": " 血压持续升高。 "},
]
EXPECTED = [
    Example("qa-1", "感冒怎么办？", "多休息。", context="感冒由病毒引起。", source="qa"),
    Example("qa-2", "什么是\n高血压？", "血压持续升高。", source="qa"),
]


@pytest.mark.parametrize("layout", ["lines", "array", "pretty array", "lines in .json", "csv", "tsv", "semicolons"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_layouts_give_the_same_examples(tmp_path: Path, layout: str, bom: str) -> None:
    name, text = {
        "lines": ("qa.jsonl", "\n\n".join(json.dumps(t, ensure_ascii=False) for t in TRIPLES)),
        "lines in .json": ("qa.json", "\n".join(json.dumps(t) for t in TRIPLES) + "\r\n"),
        "array": ("qa.json", json.dumps(TRIPLES, ensure_ascii=False)),
        "pretty array": ("qa.json", "\n" + json.dumps(TRIPLES, indent=4) + "\n\n"),
        "csv": (
            "qa.csv",
            'question,context,answer\n感冒怎么办？,感冒由病毒引起。,多休息。\n"什么是\n高血压？",, 血压持续升高。 \n\n',
        ),
        "tsv": (
            "qa.csv",
            'question\tcontext\tanswer\r\n感冒怎么办？\t感冒由病毒引起。\t多休息。\r\n"什么是\n高血压？"\t\t血压持续升高。',
        ),
        "semicolons": (
            "qa.csv",
            'question;context;answer\n感冒怎么办？;感冒由病毒引起。;多休息。\n"什么是\n高血压？";;血压持续升高。\n',
        ),
    }[layout]
    path = tmp_path / name
    path.write_bytes((bom + text).encode())
    found = examples(path)
    numbers = [int(example.id.removeprefix("qa-")) for example in found]
    assert numbers == {"lines": [1, 3], "csv": [2, 3], "tsv": [2, 3], "semicolons": [2, 3]}.get(layout, [1, 2])
    plain = [Example(f"qa-{i}", e.question, e.answer, e.context, source="qa") for i, e in enumerate(found, start=1)]
    assert plain == EXPECTED


def test_a_csv_record_tells_the_line_it_begins_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "question,answer", '"q\n1",a', "q2,b", "only one field", "q3,c")
    readings = read(path)
    assert [reading.raw.line for reading in readings] == [2, 4, 5, 6]
    assert readings[2].error == ("broken_record", "1 fields, but the header has 2")
    assert readings[3].record.question == "q3"


def test_the_text_of_an_unreadable_csv_record_is_kept(tmp_path: Path) -> None:
    # The quote of line 3 swallows the line below it; both are in what is kept of the record.
    path = write(tmp_path / "a.csv", "question,answer", "q1,a", 'q2,"b', 'q3,"c" d', "q4,e")
    readings = read(path)
    assert [reading.raw.line for reading in readings] == [2, 3, 5]
    assert readings[1].error[0] == "broken_record"
    assert readings[1].raw.value == 'q2,"b\nq3,"c" d'
    assert readings[2].record.question == "q4"


def test_empty_header_cells_may_repeat(tmp_path: Path) -> None:
    (example,) = examples(write(tmp_path / "a.csv", "question,answer,,", "q,a,,"))
    assert (example.question, example.answer) == ("q", "a")


def test_alpaca_input_follows_the_instruction_on_its_own_line(tmp_path: Path) -> None:
    found = examples(
        write(
            tmp_path / "a.jsonl",
            {"instruction": "翻译成英文", "input": "高血压", "output": "hypertension"},
            {"instruction": "什么是心悸？", "input": "", "output": "自觉心跳不适。", "history": [["你好", "您好"]]},
            {"instruction": "什么是心悸？", "output": "自觉心跳不适。", "history": "[]"},
        )
    )
    assert (found[0].question, found[0].answer, found[0].context) == ("翻译成英文\n高血压", "hypertension", None)
    assert found[1].history == (("你好", "您好"),)
    assert found[2].history == ()


def test_turns_inside_an_instruction_become_history(tmp_path: Path) -> None:
    text = " <user>: 肝癌能治吗？ <bot>: 能。 <user>: 怎么治？"
    (example,) = examples(write(tmp_path / "a.jsonl", {"instruction": text, "input": "", "output": "手术。"}))
    assert (example.history, example.question) == ((("肝癌能治吗？", "能。"),), "怎么治？")


SHAREGPT = [
    {"from": "system", "value": "你是医生。"},
    {"from": "human", "value": "头痛"},
    {"from": "gpt", "value": "多久了？"},
    {"from": "human", "value": "三天"},
    {"from": "gpt", "value": "建议就诊。"},
]
MESSAGES = [
    {"role": {"human": "user", "gpt": "assistant"}.get(t["from"], t["from"]), "content": t["value"]} for t in SHAREGPT
]


@pytest.mark.parametrize("record", [{"conversations": SHAREGPT}, {"messages": MESSAGES}])
def test_dialogues(tmp_path: Path, record: dict[str, Any]) -> None:
    (example,) = examples(write(tmp_path / "a.jsonl", record))
    assert (example.system, example.history) == ("你是医生。", (("头痛", "多久了？"),))
    assert (example.question, example.answer) == ("三天", "建议就诊。")


@pytest.mark.parametrize(
    "turns",
    [
        [{"from": "tool", "value": "x"}],
        [{"from": {"name": "human"}, "value": "x"}],
        [{"from": "human", "value": [{"type": "text", "text": None}]}, SHAREGPT[2]],
        [],
        "x",
    ],
)
def test_a_dialogue_that_is_not_in_turns_is_rejected(tmp_path: Path, turns: Any) -> None:
    (reading,) = read(write(tmp_path / "a.jsonl", {"conversations": turns}))
    assert reading.error is not None
    assert reading.error[0] == "broken_record"


def test_plain_text_and_carried_fields(tmp_path: Path) -> None:
    found = examples(
        write(
            tmp_path / "a.jsonl",
            {"text": "心脏分四腔。", "id": 7},
            {"question": "q", "answer": "2", "key": "k", "split": "Validation", "id": "x"}
            | {"options": {"A": "1", "B": "2"}, "answer_idx": "B"},
        )
    )
    assert found[0] == PlainText("7", "心脏分四腔。", source="a.jsonl")
    assert (found[1].key, found[1].split, found[1].id) == ("k", "val", "x")
    assert (found[1].choices, found[1].label) == (("1", "2"), "B")


def test_an_object_of_records_gives_its_keys_as_ids(tmp_path: Path) -> None:
    records = {"111": {"QUESTION": "q?", "CONTEXTS": ["c1", "c2"], "LONG_ANSWER": "a", "final_decision": "yes"}}
    path = tmp_path / "pubmed.json"
    path.write_text(json.dumps(records, indent=1))
    assert examples(path) == [Example("111", "q?", "a", context="c1\nc2", label="yes", source="pubmed.json")]


def test_records_under_the_same_key_are_all_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('\n{"k": {"question": "q1", "answer": "a"},\n "k": {"question": "q2",\n "answer": "b"},\n\n'
                    ' "l" : {"question": "q3", "answer": "c", "answer": "d"}}\n')  # fmt: skip
    readings = read(path)
    assert [(r.raw.line, r.raw.key) for r in readings] == [(2, "k"), (3, "k"), (6, "l")]
    assert [r.record and r.record.question for r in readings] == ["q1", "q2", None]


@pytest.mark.parametrize("layout", ["{}\n{}", "[{},\n{}]"])
@pytest.mark.parametrize("outer", ["{}", '{{"question": "q", "answer": "a", "more": [{}]}}'])
def test_a_key_with_two_values_costs_the_record(tmp_path: Path, layout: str, outer: str) -> None:
    twice = outer.format('{"question": "q", "answer": "a", "answer": "b"}')
    harmless = '{"question": "q", "answer": "a", "answer": "a"}'
    path = tmp_path / "a.json"
    path.write_text(layout.format(twice, harmless))
    broken, sound = read(path)
    assert broken.error == ("broken_record", "key 'answer' stands twice, with two values")
    assert broken.raw.value == twice
    assert sound.record.answer == "a"


def test_deep_nesting_is_told_the_same_at_any_depth(tmp_path: Path) -> None:
    def nested(depth: int) -> str:
        return '{"question": "q", "answer": "a", "x": ' + "[" * depth + "]" * depth + "}"

    deep = [nested(depth) for depth in (100, 900, 5_000, 100_000)]
    readings = read(write(tmp_path / "a.jsonl", nested(99), *deep))
    assert readings[0].error is None
    assert [reading.error for reading in readings[1:]] == [("broken_json", "nested too deeply")] * 4
    assert [reading.raw.value for reading in readings[1:]] == deep
    assert (
        len(examples(write(tmp_path / "b.jsonl", '{"question": "q", "answer": "a", "x": [' + "{}, " * 200 + "0]}")))
        == 1
    )


def test_named_columns_go_before_known_ones(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "title,Ask,answer,note", "t,q,a,n")
    (example,) = examples(path, question="ask", context="note")
    assert (example.question, example.answer, example.context) == ("q", "a", "n")
    (reading,) = read(path, question="frage")
    assert reading.error[0] == "unknown_columns"
    assert "title, Ask, answer, note" in reading.error[1]


def test_an_error_quotes_little_of_a_file_without_header(tmp_path: Path) -> None:
    cells = ["病历" * 50, *map(str, range(100))]
    (reading,) = read(write(tmp_path / "a.csv", ",".join(cells), ",".join(cells)))
    assert reading.error[0] == "unknown_columns"
    assert len(reading.error[1]) < 200
    assert reading.error[1].endswith("and 81 more")


def test_broken_lines_cost_only_themselves(tmp_path: Path) -> None:
    good = {"question": "什么是高血压？", "answer": "血压持续升高。"}
    path = write(tmp_path / "a.jsonl", '{"question": "q", "ans', good, "[1]", '{"question": 1, "answer": ["x", {}]}')
    with path.open("ab") as file:
        file.write("高血压".encode("gb18030") + b"\n" + b"[" * 100_000 + b"\n")
        file.write(b'{"question": "\\ud83d", "answer": "a"}\n{"question": NaN, "answer": 5}\n{"question": "half')
    readings = read(path)
    assert [reading.raw.line for reading in readings] == list(range(1, 10))
    assert [reading.error and reading.error[0] for reading in readings] == [
        "broken_json", None, "broken_record", "broken_record", "bad_encoding", "broken_json", "broken_record", None,
        "broken_json",
    ]  # fmt: skip
    assert readings[0].error[1] == "unterminated string, column 19"
    # A number is text, a NaN (pandas' way to write nothing) is empty.
    assert (readings[7].record.question, readings[7].record.answer) == ("", "5")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "empty"),
        ("a.json", b"\xef\xbb\xbf \n", "empty"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0), "empty"),
        ("a.docx", b"PK", "unknown kind of file: known are .json"),
        ("a.xlsx", b"PK", "not a whole XLSX file"),
        ("a.xlsx", b"PK\3\4 and no more", "not a whole XLSX file"),
        ("a.xlsx", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "save it as .xlsx without a password"),
        ("a.json", b"PK\3\4 and no more", "a ZIP archive: unpack it"),
        ("a.parquet", b"PAR1 and no more", "not a whole Parquet file"),
        ("a.csv", b"question,Answer,answer\nq,a,b\n", "line 1: the header names 'answer' 2 times"),
    ],
)  # fmt: skip
def test_a_file_that_is_broken_as_a_whole_is_one_error(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=str(path)) as caught:
        read(path)
    assert said in str(caught.value)


def test_absent_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read(tmp_path / "none.json")
    with pytest.raises(UserError, match="is a folder"):
        read(tmp_path)


def test_an_example_survives_json() -> None:
    full = Example("1", "q", "a", "c", "s", (("x", "y"),), ("A", "B"), "A", "f", "k", "test")
    assert Example.from_dict(json.loads(json.dumps(full.to_dict()))) == full
    assert Example("1", "q", "a").to_dict() == {"id": "1", "question": "q", "answer": "a"}


def test_shared_sets_are_understood(shared_data: Path) -> None:
    counts = {"huanhuan/huanhuan.json": 3729, "medqa_us/medqa_us_4opt_test.jsonl": 1273, "pubmedqa/ori_pqal.json": 1000}
    for name, count in counts.items():
        assert len(examples(shared_data / name)) == count
    dialogues = examples(shared_data / "huatuo_llama/liver_cancer.json")
    assert len(dialogues) == 1000
    assert max(len(example.history) for example in dialogues) > 0
    assert not any("<user>" in example.question for example in dialogues)
