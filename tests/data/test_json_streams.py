"""JSON of any size is streamed, and what is whole of a broken file is read."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from ms_medqa.config.schema import DataSection
from ms_medqa.data.readers import Reading, read_records

GOOD = '{"question": "q%d", "answer": "a"}'


def read(path: Path, content: str | bytes) -> list[Reading]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_records(path, DataSection(), path.name)[1])


def outline(readings: list[Reading]) -> list[str]:
    """The question of each good record, the reason of each other."""
    return [r.error[0] if r.error else r.record.question for r in readings]


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize(
    ("content", "expected", "line"),
    [
        (f"[{GOOD % 1},\n {GOOD % 2},\n" + ' {"question": "q3", "ans', ["q1", "q2", "broken_json"], 3),
        (f"[{GOOD % 1}, {GOOD % 2}\n", ["q1", "q2", "broken_json"], 2),
        (f"[{GOOD % 1},", ["q1", "broken_json"], 1),
        ('[{"question": "头', ["broken_json"], 1),
    ],
)
def test_an_array_that_is_cut_off(tmp_path: Path, name: str, content: str, expected: list[str], line: int) -> None:
    readings = read(tmp_path / name, content)
    assert outline(readings) == expected
    assert readings[-1].error[1].startswith("the JSON array ends in the middle")
    assert readings[-1].raw.line == line


def test_an_object_of_records_that_is_cut_off(tmp_path: Path) -> None:
    readings = read(tmp_path / "a.json", f'{{"k1": {GOOD % 1},\n "k2": {GOOD % 2},\n "k3": {{"question')
    assert outline(readings) == ["q1", "q2", "broken_json"]
    assert [reading.raw.key for reading in readings] == ["k1", "k2", "k3"]
    assert readings[2].raw.value == '{"question'
    assert "the JSON object ends in the middle" in readings[2].error[1]


def test_a_broken_record_costs_only_itself(tmp_path: Path) -> None:
    unquoted = '{"question": "q", "answer": a}'
    readings = read(tmp_path / "a.json", f"[{GOOD % 1}, {unquoted}, {GOOD % 2}]")
    assert outline(readings) == ["q1", "broken_json", "q2"]
    assert readings[1].raw.value == unquoted
    # An unclosed quote confuses the brackets, but each record begins its own line.
    pretty = json.dumps([json.loads(GOOD % i) | {"more": [{"a": 1}, {"b": 2}]} for i in range(4)], indent=2)
    readings = read(tmp_path / "a.json", pretty.replace('"q1"', '"q1'))
    assert outline(readings) == ["q0", "broken_json", "q2", "q3"]
    assert [reading.raw.line for reading in readings] == [2, 14, 26, 38]
    assert readings[1].error[1].startswith("line 15: ")
    # In one line, records begin with the same key.
    unclosed = '{"question": "q", "answer": "a}'
    readings = read(tmp_path / "a.json", f"[{GOOD % 1}, {unclosed}, {GOOD % 2}, {GOOD % 3}]")
    assert outline(readings) == ["q1", "broken_json", "q2", "q3"]
    assert readings[1].raw.value == unclosed
    # Where nothing tells its end, all that is left is one record.
    readings = read(tmp_path / "a.json", f"[{unclosed}, {GOOD % 2}]")
    assert outline(readings) == ["broken_json"]
    assert readings[0].raw.value.endswith("]")


def test_a_list_that_is_nested_too_deeply_costs_only_itself(tmp_path: Path) -> None:
    deep = '{"x": ' + "[" * 100_000 + "]" * 100_000 + "}"
    readings = read(tmp_path / "a.json", f"[{GOOD % 1}, {deep}, {GOOD % 2}]")
    assert outline(readings) == ["q1", "broken_json", "q2"]
    assert readings[1].error[1] == "nested too deeply"


def test_more_text_behind_the_end_is_one_record(tmp_path: Path) -> None:
    readings = read(tmp_path / "a.json", f"[{GOOD % 1}]\n[{GOOD % 2}]")
    assert outline(readings) == ["q1", "broken_json"]
    assert "more text after the end of the JSON array" in readings[1].error[1]
    # Objects one after the other are records, over however many lines each goes.
    several = "\n".join(json.dumps(json.loads(GOOD % i), indent=1) for i in range(3))
    assert outline(read(tmp_path / "a.json", several)) == ["q0", "q1", "q2"]


def test_lines_are_lines_though_the_first_is_broken(tmp_path: Path) -> None:
    lines = "\n".join(GOOD % i for i in range(3))
    assert outline(read(tmp_path / "a.json", f"{GOOD[:20]}\n{lines}")) == ["broken_json", "q0", "q1", "q2"]
    assert outline(read(tmp_path / "a.json", f"[1]\n{lines}")) == ["broken_record", "q0", "q1", "q2"]
    assert outline(read(tmp_path / "a.json", f"[\n{GOOD % 1}\n]")) == ["q1"]


def test_one_record_of_thirty_megabytes(tmp_path: Path) -> None:
    long = json.dumps({"question": "q", "answer": "血" * 10_000_000}, ensure_ascii=False)
    readings = read(tmp_path / "a.json", f"[{GOOD % 1}, {long}, {GOOD % 2}]")
    assert outline(readings) == ["q1", "q", "q2"]
    assert len(readings[1].record.answer) == 10_000_000


@pytest.mark.parametrize("layout", ["array", "object", "lines", "csv", "gzip"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, layout: str) -> None:
    count = 4_000
    records = [json.dumps({"question": f"q{i}", "answer": "x" * 5000}) for i in range(count)]
    name, text = {
        "array": ("a.json", "[" + ", ".join(records) + "]"),
        "object": ("a.json", "{" + ", ".join(f'"k{i}": {r}' for i, r in enumerate(records)) + "}"),
        "lines": ("a.jsonl", "\n".join(records)),
        "gzip": ("a.jsonl.gz", "\n".join(records)),
        "csv": ("a.csv", "question,answer\n" + "".join(f"q{i},{'x' * 5000}\n" for i in range(count))),
    }[layout]
    path = tmp_path / name
    path.write_bytes(gzip.compress(text.encode(), 1) if layout == "gzip" else text.encode())
    del records, text
    tracemalloc.start()
    readings = read_records(path, DataSection(), "a")[1]
    positions = [reading.raw.position for reading in readings if reading.error is None]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(positions) == count
    assert positions == sorted(positions)
    assert positions[-1] == path.stat().st_size
    assert peak < 10_000_000, peak


def test_a_gzip_file_is_known_by_its_bytes(tmp_path: Path) -> None:
    lines = "\n".join(GOOD % i for i in range(2000))
    packed = gzip.compress(lines.encode())
    for name in ("a.jsonl.gz", "a.jsonl"):
        readings = read(tmp_path / name, packed)
        assert len(outline(readings)) == 2000
        assert readings[0].record.id == "a-1"
    # Two packed files in a row are one file, and zero bytes behind them are nothing.
    assert len(read(tmp_path / "a.jsonl.gz", packed + gzip.compress(b"\n" + (GOOD % 1).encode()) + b"\0" * 9)) == 2001


def test_a_gzip_file_that_is_cut_off_gives_what_is_whole(tmp_path: Path) -> None:
    packed = gzip.compress("\n".join(f'{{"question": "q{i}", "answer": "{i * 7919}"}}' for i in range(2000)).encode())
    readings = read(tmp_path / "a.jsonl.gz", packed[: len(packed) // 2])
    good = [reading for reading in readings if reading.error is None]
    assert len(good) > 500
    assert len(readings) - len(good) <= 2
    assert readings[-1].error == (
        "broken_file",
        "the gzip data ends in the middle: the file looks half-written, copy it again",
    )
    assert "follows the end" in read(tmp_path / "a.jsonl.gz", packed + b"more")[-1].error[1]
