"""`ms-medqa inspect`: a user sees what data holds before, and after, it is converted."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.cli.main import main
from ms_medqa.data.languages import language_of
from ms_medqa.data.tallies import RepeatTally, Reservoir, tally


def qa(number: int, **more: Any) -> dict[str, Any]:
    return {"question": f"第 {number} 种感冒怎么护理？", "answer": f"第 {number} 种：多休息，多喝水。", **more}


def write(path: Path, records: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (r if isinstance(r, str) else json.dumps(r, ensure_ascii=False) for r in records)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str]):
    """Runs the command; gives its text, or with `--json` the object. Standard error has a progress bar at most."""

    def run(*arguments: str | Path) -> Any:
        assert main(["inspect", *map(str, arguments)]) == 0
        out, err = capsys.readouterr()
        assert all(line.startswith("reading") for line in err.splitlines())
        return json.loads(out) if "--json" in arguments else out

    return run


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_folder: Path) -> Path:
    folder = tmp_path_factory.mktemp("inspect")
    raw = write(folder / "qa.jsonl", [*(qa(number) for number in range(60)), {"question": "谁？", "answer": ""}])
    output = folder / "out"
    assert (
        main(["convert", str(raw), "--output", str(output), "--model", str(tiny_tokenizer_folder), "data.aug_rate=0"])
        == 0
    )
    return output


def test_a_raw_file_is_described(inspect, tmp_path: Path) -> None:
    english = {"question": "What lowers a fever?", "answer": "Ibuprofen lowers a fever."}
    records = [
        *(qa(number) for number in range(8)),
        qa(3),
        qa(3, answer="多喝水。"),
        english,
        "{broken",
        {"question": "?"},
    ]
    path = write(tmp_path / "qa.jsonl", records)
    text = inspect(path)
    assert "JSON Lines" in text
    assert "UTF-8" in text
    assert "13 read = 11 usable + 2 not usable" in text
    assert "broken_json 1" in text
    assert "2 by question, 1 whole records" in text
    assert "Chinese 90.9%, English 9.1%" in text
    assert "█" in text
    assert text.count("\n— ") == 5
    assert "\x1b" not in text

    found = inspect(path, "--json", "--examples", "2")
    assert (found["kind"], found["read"], found["usable"], found["unit"]) == ("raw file", 13, 11, "characters")
    assert found["duplicates"] == {"question": 2, "record": 1, "exact": True}
    assert found["languages"]["English"] == 1
    assert found["lengths"]["answer"]["max"] == len(english["answer"])
    assert sum(found["lengths"]["record"]["histogram"]["counts"]) == 11
    assert len(found["examples"]) == 2


def test_with_a_model_the_trained_tokens_of_a_raw_file_are_marked(
    inspect, tmp_path: Path, tiny_tokenizer_folder: Path
) -> None:
    path = write(tmp_path / "qa.jsonl", [qa(1)])
    assert "answer: ⟦第 1 种：多休息，多喝水。⟧" in inspect(path)
    text = inspect(path, "--model", tiny_tokenizer_folder)
    assert "回答医学问题:第 1 种感冒怎么护理？\n回答:⟦第 1 种：多休息，多喝水。<|endoftext|>⟧" in text
    assert "tokens in a record" in text


def test_the_choice_of_examples_is_the_seeds(inspect, tmp_path: Path) -> None:
    path = write(tmp_path / "qa.jsonl", [qa(number) for number in range(500)])

    def ids(*arguments: str) -> list[str]:
        return [shown["id"] for shown in inspect(path, "--json", *arguments)["examples"]]

    assert ids("--seed", "1") == ids("--seed", "1") != ids("--seed", "2")
    assert len(ids("--examples", "9")) == 9
    assert ids("--examples", "0") == []


def test_a_folder_tells_each_file_and_why_one_is_of_no_use(inspect, tmp_path: Path) -> None:
    write(tmp_path / "a" / "qa.jsonl", [qa(number) for number in range(3)])
    write(tmp_path / "b" / "codes.csv", ["code,disease", "J00,急性鼻咽炎"])
    (tmp_path / "scan.bin").write_bytes(b"\x00\x01\x02" * 50)
    (tmp_path / "empty.jsonl").touch()
    write(tmp_path / ".hidden.jsonl", [qa(9)])
    found = inspect(tmp_path, "--json")
    sources = {source["name"]: source for source in found["sources"]}
    assert set(sources) == {"a/qa.jsonl", "b/codes.csv", "scan.bin", "empty.jsonl"}
    assert [sources[name]["usable"] for name in ("a/qa.jsonl", "b/codes.csv", "scan.bin", "empty.jsonl")] == [
        3,
        0,
        0,
        0,
    ]
    assert sources["b/codes.csv"]["first_not_usable"]["line"] == 2
    assert sources["scan.bin"]["fault"]
    text = inspect(tmp_path)
    assert text.count("nothing usable") == 3
    assert "4 records = 3 usable + 1 not usable" in text


def test_columns_can_be_named(inspect, tmp_path: Path) -> None:
    path = write(tmp_path / "qa.jsonl", [{"frage": "感冒怎么护理？", "antwort": "多休息。"}])
    assert "nothing usable" in inspect(path)
    found = inspect(path, "data.columns.question=frage", "data.columns.answer=antwort", "--json")
    assert found["usable"] == 1


def test_a_text_cannot_steer_the_terminal(inspect, tmp_path: Path) -> None:
    path = write(tmp_path / "qa.jsonl", [qa(1, answer="多休息\u001b[2J\u001b]0;x\u0007，多喝水。\u202e")])
    assert not set(inspect(path)) & {"\x1b", "\x07", "\u202e"}


def test_a_raw_file_is_read_without_mindspore(tmp_path: Path) -> None:
    path = write(tmp_path / "qa.jsonl", [qa(1)])
    code = (
        "import sys; from ms_medqa.cli.main import main; status = main(sys.argv[1:]); "
        "assert 'mindspore' not in sys.modules; sys.exit(status)"
    )
    subprocess.run([sys.executable, "-c", code, "inspect", path], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("no_color", "term", "coloured"), [("", "xterm", True), ("1", "xterm", False), ("", "dumb", False)]
)
def test_colours_are_for_terminals_alone(
    inspect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_color: str, term: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setenv("TERM", term)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    text = inspect(write(tmp_path / "qa.jsonl", [qa(1)]))
    assert ("\x1b[32m第 1 种：多休息，多喝水。\x1b[0m" in text) == coloured
    assert ("\x1b[90m第 1 种感冒怎么护理？\x1b[0m" in text) == coloured
    assert ("⟦第 1 种：多休息，多喝水。⟧" in text) != coloured


def test_wrong_arguments_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["inspect", str(tmp_path / "absent")]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["inspect", str(tmp_path), str(tmp_path)]) == 2
    assert main(["inspect", str(tmp_path), "--examples", "-1"]) == 2


def test_a_converted_folder_is_described(inspect, converted: Path, tiny_tokenizer_folder: Path) -> None:
    text = inspect(converted, "--model", tiny_tokenizer_folder)
    assert "converted folder" in text
    assert "61 read = 60 kept + 1 rejected (empty 1)" in text
    assert "0 questions in two parts" in text
    assert "回答:⟦第 " in text
    assert "<|endoftext|>⟧" in text

    found = inspect(converted, "--model", tiny_tokenizer_folder, "--json")
    kept = json.loads((converted / "report.json").read_text(encoding="utf-8"))["kept"]
    assert {source["name"]: source["read"] for source in found["sources"]} == kept
    tokens = json.loads((converted / "manifest.json").read_text(encoding="utf-8"))["tokens"]
    assert {source["name"]: source["tokens"] for source in found["sources"]} == tokens
    assert found["lengths"]["record"]["mean"] > found["lengths"]["trained"]["mean"] > 0
    assert found["notes"] == []


def test_without_the_model_a_converted_folder_shows_its_texts(inspect, converted: Path) -> None:
    text = inspect(converted)
    assert "answer: ⟦第 " in text
    assert "note: --model DIR" in text


def test_another_model_than_that_of_the_conversion_is_refused(
    capsys: pytest.CaptureFixture[str], converted: Path
) -> None:
    assert main(["inspect", str(converted), "--model", "medqa-tiny"]) == 2
    assert "another tokenizer" in capsys.readouterr().err


def test_a_changed_folder_is_shown_with_a_warning(inspect, converted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(converted, folder)
    with (folder / "val.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"id": "new", **qa(99)}) + "\n")
    text = inspect(folder)
    assert "val.jsonl: changed since it was converted" in text
    assert "rows of tokens for" in text


def test_one_mindrecord_file_is_enough(inspect, converted: Path, tmp_path: Path, tiny_tokenizer_folder: Path) -> None:
    inside = inspect(converted / "val.mindrecord", "--json")
    assert inside["kind"] == "part of a converted folder"
    assert [source["name"] for source in inside["sources"]] == ["val"]
    for name in ("val.mindrecord", "val.mindrecord.db"):
        shutil.copy(converted / name, tmp_path / name)
    alone = inspect(tmp_path / "val.mindrecord", "--json", "--model", tiny_tokenizer_folder)
    assert alone["kind"] == "MindRecord file"
    assert alone["lengths"] == inside["lengths"]
    assert alone["languages"]["Chinese"] == alone["read"] == inside["read"]
    assert "⟦" in inspect(tmp_path / "val.mindrecord.db")


def test_the_development_data(inspect, shared_data: Path) -> None:
    sources = {}
    for folder in ("huatuo_llama", "pubmedqa", "medqa_us", "icd10_zh", "medical_synonyms_zh"):
        found = inspect(shared_data / folder, "--json")
        sources |= {source["name"]: source for source in found["sources"]}
    assert sources["llama_data.json"]["usable"] == 8_658
    assert sources["ori_pqal.json"]["usable"] == 1_000
    assert sources["medqa_us_4opt_test.jsonl"]["usable"] == 1_273
    assert sources["question.json"]["usable"] == sources["disease.csv"]["usable"] == 0
    for source in sources.values():
        assert source["usable"] or source["fault"] or source["first_not_usable"]


def test_repeats_in_real_data_are_found(inspect, shared_data: Path) -> None:
    assert inspect(shared_data / "huanhuan" / "huanhuan.json", "--json")["duplicates"]["record"] == 112


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("高血压患者口服 amlodipine 5 mg，每日一次。", "Chinese"),
        ("Hypertension is persistently raised blood pressure.", "English"),
        ("高血圧とは何ですか。", "other"),
        ("고혈압이란 무엇입니까?", "other"),
        ("Артериальная гипертензия", "other"),
        ("L’hypertension artérielle est une élévation prolongée de la pression.", "other"),
        ("120/80", "no letters"),
    ],
)
def test_languages_are_told_by_their_script(text: str, language: str) -> None:
    assert language_of(text) == language


def test_memory_does_not_grow_with_the_input() -> None:
    repeats = RepeatTally(most=1_000)
    for number in range(40_000):
        repeats.add(str(number % 30_000))
    assert not repeats.exact
    assert repeats.repeats() == pytest.approx(10_000, rel=0.15)
    lengths = tally([*range(100), 1_000_000, 10**9])
    assert lengths.summary()["p50"] == 50
    assert lengths.summary()["max"] == 10**9
    assert sum(lengths.histogram()[1]) == 102
    sample: Reservoir[int] = Reservoir(100, seed=0)
    for number in range(10_000):
        sample.offer(number)
    assert sum(sample.items()) / 100 == pytest.approx(5_000, rel=0.15)
