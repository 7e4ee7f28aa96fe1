"""The commands of a dialogue, as a user types them."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from ms_medqa.config import RunError
from ms_medqa.config.schema import DataSection, GenerateSection
from ms_medqa.evaluation.items import read_items
from ms_medqa.generation import MedicalQA
from ms_medqa.generation.dialogue import HELP, Dialogue
from ms_medqa.generation.request import Output
from ms_medqa.generation.session import Session

GREEDY = GenerateSection(temperature=0, max_new_tokens=6)
QUESTION = "头痛怎么办"


def visible(text: str) -> str:
    """A random model's answer without its control characters, which neither readers nor tables keep."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "", text).strip()


class Typist:
    """Types lines into a dialogue, and keeps what is written and noted."""

    def __init__(self, qa: MedicalQA, width: int = 120, adapter: str | None = None) -> None:
        self.written: list[str] = []
        self.notes: list[str] = []
        self.session = Session(qa, GREEDY, note=self.notes.append, adapter=adapter)
        self._dialogue = Dialogue(self.session, self.written.append, self.notes.append, lambda: width)

    def type(self, *lines: str) -> tuple[str, list[str]]:
        """What the lines add to the answers, and to the notes."""
        written, notes, source = len(self.written), len(self.notes), iter(lines)
        self._dialogue.run(lambda: next(source, None))
        return "".join(self.written[written:]), self.notes[notes:]


@pytest.fixture
def typist() -> Typist:
    """At the base model."""
    return Typist(tiny.qa())


def test_answers_go_one_way_and_their_numbers_another(typist: Typist) -> None:
    answer = tiny.qa().answer(QUESTION, settings=GREEDY)
    written, notes = typist.type(f" {QUESTION} ", "")
    assert written == f"{answer}\n"
    tokens = len(tiny.qa().encode(QUESTION))
    assert len(notes) == 1
    assert re.fullmatch(
        rf"\[prompt {tokens} tokens, answer 6 tokens, \d+\.\d tokens/s, the first after \d+\.\d\d s, "
        r"cut off by generate\.max_new_tokens\]",
        notes[0],
    )


def test_reset_forgets_and_quit_ends(typist: Typist) -> None:
    written, notes = typist.type(QUESTION, "/reset", QUESTION, "/quit", "不再回答")
    answer = tiny.qa().answer(QUESTION, settings=GREEDY)
    assert written == f"{answer}\n{answer}\n"
    assert notes[1] == "a new dialogue"


def test_help_names_every_command_and_an_unknown_one_is_not_asked(typist: Typist) -> None:
    written, notes = typist.type("/help", "/rest", "/helpme now")
    assert written == ""
    assert all(command in notes[0] for command in HELP)
    assert [note.split(":")[0] for note in notes[1:]] == ["unknown command '/rest'", "unknown command '/helpme'"]


def test_an_error_does_not_end_the_dialogue(typist: Typist) -> None:
    written, notes = typist.type("药" * 300, QUESTION)
    assert notes[0].startswith("error: ")
    assert "256 positions" in notes[0]
    assert written.count("\n") == 1


def test_a_context_file_counts_for_the_answers_that_follow(typist: Typist, tmp_path: Path) -> None:
    file = tmp_path / "some notes.txt"
    file.write_bytes("\ufeff多休息，\n多喝水。\n".encode())
    written, notes = typist.type("/context", f"/context {file}", "/context", QUESTION)
    assert written == tiny.qa().answer(QUESTION, "多休息，\n多喝水。", settings=GREEDY) + "\n"
    assert notes[:2] == ["no context is set", "context: 9 characters, 多休息， 多喝水。"]
    assert "/context - removes it" in notes[2]
    typist.type("/reset", "/context -")
    assert typist.type(QUESTION)[0] == tiny.qa().answer(QUESTION, settings=GREEDY) + "\n"


def test_a_context_that_cannot_be_read_is_an_error_and_the_old_one_stays(typist: Typist, tmp_path: Path) -> None:
    typist.session.context = "旧"
    (tmp_path / "gbk").write_bytes("头痛怎么办".encode("gbk"))
    (tmp_path / "large").write_bytes(b"x" * (2**20 + 1))
    (tmp_path / "blank").write_text(" \n")
    said = {"absent": "no such file", ".": "not a regular file", "gbk": "not UTF-8", "large": "1 MiB"}
    said["blank"] = "no text"
    _, notes = typist.type(*(f"/context {tmp_path / name}" for name in said))
    assert [words in note for words, note in zip(said.values(), notes, strict=True)] == [True] * 5
    assert typist.session.context == "旧"


def test_ctrl_c_ends_an_answer_and_the_dialogue_goes_on(typist: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    real = tiny.qa().engine.stream

    def interrupted(request: object, scheduler: object) -> object:
        for number, output in enumerate(real(request, scheduler)):
            if number == 3:
                raise KeyboardInterrupt
            yield output

    monkeypatch.setattr(tiny.qa().engine, "stream", interrupted)
    written, notes = typist.type(QUESTION)
    assert written.endswith("\n")
    assert notes == ["stopped; this turn is forgotten"]
    monkeypatch.undo()
    assert typist.type(QUESTION)[0] == tiny.qa().answer(QUESTION, settings=GREEDY) + "\n"


def test_ctrl_c_at_the_question_ends_the_dialogue() -> None:
    def interrupt() -> str:
        raise KeyboardInterrupt

    session = Session(tiny.qa(), GREEDY, note=print)
    with pytest.raises(KeyboardInterrupt):
        Dialogue(session, print, print).run(interrupt)


def test_a_saved_dialogue_is_read_again_and_nothing_else_is_overwritten(typist: Typist, tmp_path: Path) -> None:
    file = tmp_path / "new folder" / "dialogue.jsonl"
    assert "nothing to save" in typist.type(f"/save {file}")[1][0]
    typist.type(QUESTION)
    typist.session.context = "多喝水。"
    assert typist.type(f"/save {file}")[1] == [f"1 turn saved: {file}"]
    typist.type("还有呢")
    assert typist.type(f"/save {file}")[1] == [f"2 turns saved again: {file}"]
    read = read_items(file, DataSection())
    assert not read.skipped
    examples = [item.record for item in read.items]
    turns = [(turn.question, visible(turn.answer)) for turn in typist.session.turns]
    assert [(*examples[0].history, (examples[0].question, examples[0].answer))] == [tuple(turns)]
    assert examples[0].context == "多喝水。"
    before = file.read_bytes()
    other = tmp_path / "other.txt"
    other.write_text("precious")
    _, notes = typist.type("/reset", QUESTION, f"/save {file}", f"/save {other}", f"/save {tmp_path}", "/save")
    assert [("choose another name" in note) for note in notes[2:]] == [True, True, True, False]
    assert (file.read_bytes(), other.read_text()) == (before, "precious")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new folder", "other.txt"]


def test_a_folder_that_cannot_be_written_is_an_error(typist: Typist, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    typist.type(QUESTION)
    assert typist.type(f"/save {tmp_path / 'file' / 'dialogue.jsonl'}")[1][0].startswith("error: ")


def test_the_last_question_is_answered_again_by_the_base_side_by_side(tmp_path: Path) -> None:
    adapter = tiny.write_adapter(tmp_path / "adapter")
    qa = MedicalQA(tiny.model(), adapters={"tuned": adapter, "other": adapter})
    typist = Typist(qa, adapter="tuned")
    tuned, _ = typist.type(QUESTION)
    written, notes = typist.type("/base")
    base = tiny.qa().answer(QUESTION, settings=GREEDY)
    assert written == ""
    titles, _, answers = notes[0].splitlines()
    assert titles.split() == ["base", "│", "tuned"]
    assert [cell.strip() for cell in answers.split("│")] == [visible(base), visible(tuned)]
    assert notes[1].startswith("[base: prompt ")
    _, notes = typist.type("/adapter", "/adapter other", "/adapter third", "/adapter -", QUESTION, "/base")
    assert notes[0] == "tuned answers; adapters: tuned, other"
    assert notes[1] == "other answers"
    assert notes[2] == "error: there is no adapter 'third': there are: tuned, other"
    assert notes[3] == "the base model answers"
    assert "base model's already" in notes[-1]
    narrow = Typist(qa, width=60, adapter="tuned")
    narrow.type(QUESTION)
    assert narrow.type("/base")[1][0].splitlines()[::2] == ["base:", "tuned:"]


def test_no_failure_ends_the_dialogue_or_costs_its_turns(
    typist: Typist, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    typist.type(QUESTION)

    def fail(*_: object) -> None:
        raise RuntimeError("Allocate memory failed.\n\n---\n- C++ Call Stack")

    monkeypatch.setattr(tiny.qa().engine, "stream", fail)
    _, notes = typist.type("还有呢", "\udcb5\udcc4", "/save ~no-such-user/d.jsonl", "/context ~no-such-user/c")
    assert notes[0] == "error: RuntimeError: Allocate memory failed. --- - C++ Call Stack"
    assert notes[1].startswith("error: this line is not text")
    assert notes[2] == "error: ~no-such-user/d.jsonl: there is no such user: write the whole path"
    assert notes[3].startswith("error: ~no-such-user/c")
    monkeypatch.undo()
    assert typist.type(f"/save {tmp_path / 'd.jsonl'}")[1] == [f"1 turn saved: {tmp_path / 'd.jsonl'}"]


def test_an_answer_that_fails_midway_is_a_line_of_its_own(typist: Typist, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = typist.type(QUESTION, "/reset")[0]
    real = tiny.qa().engine.stream

    def fail(*given: Any) -> Iterator[Output]:
        yield from itertools.islice(real(*given), 4)
        raise RunError("the model gave logits that are not finite")

    with monkeypatch.context() as patch:
        patch.setattr(tiny.qa().engine, "stream", fail)
        broken, notes = typist.type(QUESTION)
    assert len(broken) > 1
    assert whole.startswith(broken.removesuffix("\n"))
    assert notes == ["error: the model gave logits that are not finite"]
    assert typist.type(QUESTION)[0] == whole
    assert broken.endswith("\n")


def test_where_nobody_reads_the_answers_the_dialogue_ends() -> None:
    def gone(piece: str) -> None:
        raise BrokenPipeError

    lines = iter([QUESTION, "还有呢"])
    with Session(tiny.qa(), GREEDY, note=print) as session, pytest.raises(BrokenPipeError):
        Dialogue(session, gone, print).run(lambda: next(lines, None))
    assert next(lines) == "还有呢"


def test_a_turn_without_an_answer_is_not_saved(typist: Typist, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`convert` would make one question of it and the next."""
    file = tmp_path / "d.jsonl"
    with monkeypatch.context() as patch:
        patch.setattr(tiny.qa().engine, "stream", lambda *_: (output for output in ()))
        assert typist.type(QUESTION)[0] == "\n"
        assert "nothing to save" in typist.type(f"/save {file}")[1][0]
    typist.type("还有呢")
    assert typist.type(f"/save {file}")[1] == [f"1 turn saved, 1 without an answer left out: {file}"]
    read = read_items(file, DataSection())
    [item] = read.items
    assert (item.record.question, list(item.record.history), read.skipped) == ("还有呢", [], [])


def test_without_adapters_their_commands_say_so(typist: Typist) -> None:
    _, notes = typist.type("/adapter x", "/base", QUESTION, "/base")
    assert ["--adapter NAME=DIR" in notes[0], "ask one first" in notes[1]] == [True, True]
    assert "base model's already" in notes[3]


def test_every_line_of_a_saved_dialogue_is_json_with_what_was_said(typist: Typist, tmp_path: Path) -> None:
    typist.session.context = "多休息。"
    typist.type(QUESTION, "/context -", "还有呢", f"/save {tmp_path / 'd.jsonl'}")
    [line] = (tmp_path / "d.jsonl").read_text(encoding="utf-8").splitlines()
    record = json.loads(line)
    assert [message["role"] for message in record["messages"]] == ["user", "assistant"] * 2
    assert record["messages"][0] == {"role": "user", "content": QUESTION, "context": "多休息。"}
    assert "context" not in record
