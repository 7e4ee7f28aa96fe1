"""A file of questions: order, bad records, seeds, nothing half written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import tiny

from ms_medqa.config import UserError
from ms_medqa.config.schema import GenerateSection
from ms_medqa.generation.batch import Request, answer_file, read_requests

GREEDY = GenerateSection(temperature=0, max_new_tokens=8, batch_size=4)

LINES = [
    b'\xef\xbb\xbf{"id": "a", "question": "\xe5\xa4\xb4\xe7\x97\x9b\xe6\x80\x8e\xe4\xb9\x88\xe5\x8a\x9e"}',
    '"发热怎么办"'.encode(),
    b"",
    b'{"id": 7, "question": "broken',
    b'{"id": "no-question", "text": "x"}',
    b'{"id": "empty", "question": "  "}',
    b'{"id": "number", "question": 5}',
    b'{"question": "ok?", "context": ["list"]}',
    '"发热怎么办"'.encode("gb18030"),
    b"[1, 2]",
    json.dumps({"id": "long", "question": "药" * 300}).encode(),
    json.dumps({"id": "b", "question": "阿托品", "context": "有机磷中毒用阿托品解毒", "other": 1}).encode(),
]


def run(tmp_path: Path, lines: list[bytes], settings: GenerateSection = GREEDY) -> list[dict]:
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    requests = read_requests(tmp_path / "in.jsonl", tiny.qa(), settings)
    answer_file(tiny.qa(), requests, tmp_path / "out.jsonl", settings)
    return [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_record_has_one_line_in_order(tmp_path: Path) -> None:
    out = run(tmp_path, LINES)
    assert [line["id"] for line in out] == ["a", 2, 4, "no-question", "empty", "number", 8, 9, 10, "long", "b"]
    good = [line for line in out if "answer" in line]
    assert [line["id"] for line in good] == ["a", 2, "b"]
    assert [set(line) for line in good] == [{"id", "question", "answer"}] * 3
    assert [set(line) for line in out if "answer" not in line] == [{"id", "error"}] * 8
    errors = {str(line["id"]): line["error"] for line in out if "error" in line}
    for name, words in {
        "4": "line 4: not valid JSON",
        "no-question": "no key 'question'",
        "empty": "empty",
        "number": "'question' must be a string",
        "8": "'context' must be a string",
        "9": "not UTF-8",
        "10": "must be a JSON object or a string",
        "long": "256 positions",
    }.items():
        assert words in errors[name]


def test_the_answers_are_those_of_single_questions(tmp_path: Path) -> None:
    good = {line["id"]: line["answer"] for line in run(tmp_path, LINES) if "answer" in line}
    options = {"settings": GREEDY}
    assert good["a"] == tiny.qa().answer("头痛怎么办", **options)
    assert good["b"] == tiny.qa().answer("阿托品", "有机磷中毒用阿托品解毒", **options)


def test_a_seed_gives_a_record_the_answer_that_it_gets_alone(tmp_path: Path) -> None:
    options = {"temperature": 4.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 8, "seed": 3}
    qa = tiny.qa()
    alone = [qa.answer("头痛怎么办", **options), qa.answer("阿托品", "有机磷中毒用阿托品解毒", **options)]
    out = run(tmp_path, LINES, GenerateSection(batch_size=4, **options))
    assert [line["answer"] for line in out if line["id"] in ("a", "b")] == alone
    assert qa.answer_batch(["头痛怎么办", "阿托品"], [None, "有机磷中毒用阿托品解毒"], **options) == alone


def test_without_a_seed_equal_questions_get_draws_of_their_own(tmp_path: Path) -> None:
    settings = GenerateSection(temperature=5.0, top_p=1.0, top_k=0, max_new_tokens=8, batch_size=4)
    out = run(tmp_path, ['"头痛怎么办"'.encode()] * 4, settings)
    assert len({line["answer"] for line in out}) == 4


def test_ids_and_keys_that_are_no_text_do_not_cost_the_other_answers(tmp_path: Path) -> None:
    lines = [
        b'{"id": "\\ud83d", "question": "ok?"}',
        b'{"\\ud83d": 1}',
        b'{"question": "\\ud83d"}',
        b'{"id": NaN, "question": "ok?"}',
        b"9" * 5000,
        b"[" * 100_000,
    ]
    out = run(tmp_path, lines)
    assert [line["id"] for line in out] == ["\ud83d", 2, 3, 4, 5, 6]
    assert [set(line) - {"id"} for line in out] == [
        {"question", "answer"},
        {"error"},
        {"error"},
        {"question", "answer"},
        {"error"},
        {"error"},
    ]
    assert "a number is too long" in out[4]["error"]
    assert "nested too deeply" in out[5]["error"]


def test_a_place_where_no_file_can_be_is_refused_before_any_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unwanted(*_: object, **__: object) -> None:
        pytest.fail("answered in vain")

    monkeypatch.setattr(tiny.qa(), "answer_prepared", unwanted)
    requests = [Request(id=1, question="头痛", prepared=tiny.qa().prepare("头痛"))]
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(UserError, match="not a regular file"):
            answer_file(tiny.qa(), requests, tmp_path / name, GREEDY)
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(OSError, match="file"):
        answer_file(tiny.qa(), requests, tmp_path / "file" / "out.jsonl", GREEDY)
    assert (tmp_path / "pipe").is_fifo()


def test_a_link_stays_a_link_to_the_file_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "answers.jsonl").write_text("old", encoding="utf-8")
    (tmp_path / "out.jsonl").symlink_to(tmp_path / "far" / "answers.jsonl")
    out = run(tmp_path, LINES[:2])
    assert (tmp_path / "out.jsonl").is_symlink()
    assert [line["id"] for line in out] == ["a", 2]
    assert [path.name for path in (tmp_path / "far").iterdir()] == ["answers.jsonl"]


def test_mending_one_record_does_not_move_the_draws_of_the_others(tmp_path: Path) -> None:
    settings = GenerateSection(temperature=4.0, top_p=1.0, top_k=0, max_new_tokens=8, batch_size=4, seed=3)
    mended = [*LINES]
    mended[5] = json.dumps({"id": "empty", "question": "咳嗽"}).encode()
    before, after = run(tmp_path, LINES, settings), run(tmp_path, mended, settings)
    assert [a for a in after if a["id"] == "b"] == [b for b in before if b["id"] == "b"]
    alone = run(tmp_path, LINES, settings.model_copy(update={"batch_size": 1}))
    assert alone == before


def test_a_file_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no question"):
        run(tmp_path, [b"", b"  "])
    with pytest.raises(UserError, match="no such file"):
        read_requests(tmp_path / "absent.jsonl", tiny.qa(), GREEDY)


def test_an_interruption_leaves_the_old_file_as_it_was(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl"
    output.write_text("old", encoding="utf-8")

    def interrupt() -> None:
        raise KeyboardInterrupt

    requests = [Request(id=1, question="头痛", prepared=tiny.qa().prepare("头痛"))]
    with pytest.raises(KeyboardInterrupt):
        answer_file(tiny.qa(), requests, output, GREEDY, interrupt)
    assert output.read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
