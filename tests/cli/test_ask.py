"""`ms-medqa ask`: what stands on standard output and what beside it, and what bad input gets."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
import tiny

from ms_medqa import MedicalQA
from ms_medqa.cli.main import main

QUICK = ["--max-new-tokens", "6"]


def ask(*arguments: str) -> int:
    return main(["ask", "--model", str(tiny.folder()), *QUICK, *arguments])


@pytest.fixture(autouse=True)
def _one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command shares one loaded model where none of them brings an adapter; each would compile anew."""
    from ms_medqa.generation import qa

    real = qa.load_model

    def shared(path: str, adapter: str | None, merge: bool, dtype: str) -> object:
        plain = Path(path) == tiny.folder() and adapter is None
        return tiny.model() if plain else real(path, adapter, merge, dtype)

    monkeypatch.setattr(qa, "load_model", shared)


def test_the_answer_alone_is_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("--greedy", "头痛怎么办？") == 0
    out, err = capsys.readouterr()
    assert out == tiny.qa().answer("头痛怎么办？", temperature=0, max_new_tokens=6) + "\n"
    assert "不能替代医生的诊断" in err
    assert "Traceback" not in err


def test_pieces_are_flushed_as_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Recorder(io.StringIO):
        def write(self, text: str) -> int:
            events.append(text)
            return len(text)

        def flush(self) -> None:
            events.append("<flush>")

    monkeypatch.setattr(sys, "stdout", Recorder())
    assert ask("--greedy", "头痛怎么办？") == 0
    pieces = [text for text in events if text != "<flush>"]
    assert len(pieces) > 2
    assert all(events[place + 1] == "<flush>" for place, text in enumerate(events) if text in pieces)


def test_context_and_seed_and_overrides_reach_the_model(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["generate.temperature=5.0", "generate.top_p=1", "generate.top_k=0"]
    expected = tiny.qa().answer("头痛怎么办？", "多休息", temperature=5.0, top_p=1, top_k=0, seed=3, max_new_tokens=6)
    outs = []
    for seed in ("3", "3", "4"):
        assert ask("--seed", seed, "--context", "多休息", "头痛怎么办？", *options) == 0
        outs.append(capsys.readouterr().out)
    assert outs[0] == outs[1] == expected + "\n"
    assert outs[2] != outs[0]


def test_a_question_may_hold_an_equals_sign(capsys: pytest.CaptureFixture[str]) -> None:
    assert ask("--greedy", "BMI=28算肥胖吗？") == 0
    assert capsys.readouterr().out == tiny.qa().answer("BMI=28算肥胖吗？", temperature=0, max_new_tokens=6) + "\n"


def test_an_adapter_changes_the_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter = tiny.write_adapter(tmp_path / "adapter")
    assert ask("--greedy", "头痛怎么办？") == 0
    base = capsys.readouterr().out
    answers = []
    for options in ([], ["--no-merge"]):
        assert ask("--greedy", "--adapter", str(adapter), *options, "头痛怎么办？") == 0
        answers.append(capsys.readouterr().out)
    assert answers[0] == answers[1] != base


def test_records_choose_among_named_adapters_and_the_first_answers_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapters = {name: tiny.write_adapter(tmp_path / name, seed) for seed, name in enumerate(("first", "second"), 1)}
    named = [part for name, folder in adapters.items() for part in ("--adapter", f"{name}={folder}")]
    choices = [{}, {"adapter": "second"}, {"adapter": None}, {"adapter": "third"}]
    lines = [json.dumps({"question": "头痛怎么办？", **choice}) for choice in choices]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert ask("--greedy", *named, *files) == 0
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    qa = MedicalQA(tiny.model(), adapters=adapters)
    expected = [qa.answer("头痛怎么办？", adapter=name, temperature=0, max_new_tokens=6) for name in (*adapters, None)]
    assert [line.get("answer") for line in out[:3]] == expected
    assert len(set(expected)) == 3
    assert "there are: first, second" in out[3]["error"]
    assert "3 answered, 1 failed" in capsys.readouterr().err


def test_a_record_cannot_choose_the_base_where_the_adapter_lies_in_the_weights(tmp_path: Path) -> None:
    adapter = tiny.write_adapter(tmp_path / "adapter")
    (tmp_path / "in.jsonl").write_text('{"question": "头痛", "adapter": null}\n"头痛"\n', encoding="utf-8")
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert ask("--greedy", "--adapter", str(adapter), *files) == 0
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert "--adapter NAME=DIR" in out[0]["error"]
    assert "answer" in out[1]


def test_a_long_context_is_cut_where_that_is_wished_and_how_much_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = "高血压患者应低盐饮食。" * 40
    options = {"temperature": 0, "max_new_tokens": 6, "truncate_context": True}
    cut = tiny.qa().prepare("能吃咸菜吗", context, settings=tiny.qa().changed(**options)).cut
    with pytest.warns(UserWarning, match="of the context only"):
        expected = tiny.qa().answer("能吃咸菜吗", context, **options)
    assert ask("--greedy", "--context", context, "能吃咸菜吗") == 2
    assert "--truncate-context" in capsys.readouterr().err
    assert ask("--greedy", "--truncate-context", "--context", context, "能吃咸菜吗") == 0
    captured = capsys.readouterr()
    assert captured.out == expected + "\n"
    assert f"only the first {cut.kept} of {cut.total} tokens fit" in captured.err
    records = [{"question": "能吃咸菜吗", "context": context}, {"question": "头痛", "context": "多休息"}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    assert ask("--greedy", "generate.truncate_context=true", *files) == 0
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (out[0]["answer"], out[0]["context_tokens_cut"]) == (expected, cut.total - cut.kept)
    assert set(out[1]) == {"id", "question", "answer"}
    assert "2 answered (1 with a cut context), 0 failed" in capsys.readouterr().err


def test_a_file_is_answered_line_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ['{"id": "a", "question": "头痛怎么办？"}', "{broken", '"发热怎么办？"']
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert ask("--greedy", "--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")) == 0
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["id"] for line in out] == ["a", 2, 3]
    assert out[0]["answer"] == tiny.qa().answer("头痛怎么办？", temperature=0, max_new_tokens=6)
    assert set(out[1]) == {"id", "error"}
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "2 answered, 1 failed" in captured.err


def test_a_file_without_one_good_record_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_text('{broken\n{"text": "头痛"}\n', encoding="utf-8")
    assert ask("--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")) == 1
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [set(line) for line in out] == [{"id", "error"}] * 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("ms-medqa ask: error: none of the 2 records could be answered (line 1: not valid JSON")
    assert last.endswith(f"{tmp_path / 'out.jsonl'} says why")


def test_a_dialogue_reads_standard_input_to_its_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("头痛怎么办？\n/reset\n头痛怎么办？\n"))
    assert ask("--greedy", "--interactive") == 0
    answer = tiny.qa().answer("头痛怎么办？", temperature=0, max_new_tokens=6)
    captured = capsys.readouterr()
    assert captured.out == f"{answer}\n{answer}\n"
    assert "a new dialogue" in captured.err
    assert captured.err.count(" tokens/s") == 2


def test_at_a_terminal_a_file_gets_the_answers_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = io.StringIO("头痛怎么办？\n")
    monkeypatch.setattr(typed, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", typed)
    assert ask("--greedy", "--interactive") == 0
    captured = capsys.readouterr()
    assert captured.out == tiny.qa().answer("头痛怎么办？", temperature=0, max_new_tokens=6) + "\n"
    assert captured.err.count("> ") == 2
    assert "/help" in captured.err


def test_a_dialogue_with_an_adapter_shows_the_bases_answer_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    adapter = tiny.write_adapter(tmp_path / "tuned")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"头痛怎么办？\n/base\n/save {tmp_path / 'd.jsonl'}\n"))
    monkeypatch.setenv("COLUMNS", "60")
    assert ask("--greedy", "--interactive", "--adapter", str(adapter)) == 0
    captured = capsys.readouterr()
    [line] = (tmp_path / "d.jsonl").read_text(encoding="utf-8").splitlines()
    answer = json.loads(line)["messages"][1]
    assert captured.out == answer["content"] + "\n"
    assert answer["adapter"] == "tuned"
    assert captured.err.index("\nbase:\n") < captured.err.index("\ntuned:\n")
    assert answer["content"] != tiny.qa().answer("头痛怎么办？", temperature=0, max_new_tokens=6)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give one of"),
        (["  "], "question is empty"),
        (["一", "二"], "quotes"),
        (["一", "--interactive"], "give one of"),
        (["--input", "in.jsonl"], "go together"),
        (["一", "--output", "out.jsonl"], "go together"),
        (["--input", "x", "--output", "x"], "same file"),
        (["--input", "absent.jsonl", "--output", "out.jsonl"], "no such file"),
        (["--input", "x", "--output", "y", "--context", "c"], "--context"),
        (["头痛", "generate.temprature=1"], "generate.temperature"),
        (["头痛", "generate.top_p=7"], "generate.top_p"),
        (["药" * 400], "256 positions"),
        (["头痛", "--adapter", "absent"], "no such folder"),
        (["头痛", "--adapter", "a=absent"], "no such folder"),
        (["头痛", "--adapter", "a=x", "--adapter", "a=y"], "is taken"),
        (["--interactive", "--adapter", "absent"], "no such folder"),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ask(*arguments) == 2
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if "不能替代" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("ms-medqa ask: error: ")
    assert words in lines[0]
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("fault", "words"), [("folder", "not a regular file"), ("absent", "no such file")])
def test_a_fault_of_the_files_shows_before_a_model_is_loaded(
    fault: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "in.jsonl").write_text('"头痛"\n', encoding="utf-8")
    files = ["--input", str(tmp_path / "in.jsonl"), "--output", str(tmp_path / "out.jsonl")]
    # There is no such model either, which would be said where it was looked for.
    command = ["ask", "--model", str(tmp_path / "no-model")]
    assert main([*command, "--input", str(tmp_path / fault), *files[2:]]) == 2
    assert words in capsys.readouterr().err
    assert main([*command, *files[:3], str(tmp_path / "in.jsonl" / "out.jsonl")]) == 2
    assert "in.jsonl" in capsys.readouterr().err
    assert main([*command, *files]) == 2
    assert "no-model" in capsys.readouterr().err


def test_a_home_folder_behind_an_equals_sign_is_no_folder_named_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "in.jsonl").write_text('"头痛"\n', encoding="utf-8")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert ask("--greedy", "--input=~/in.jsonl", "--output=~/out.jsonl") == 0
    assert (tmp_path / "home" / "out.jsonl").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_line_of_another_encoding_does_not_end_a_dialogue(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = "头痛怎么办？\n".encode("gbk") + "头痛怎么办？\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed), encoding="utf-8"))
    assert ask("--greedy", "--interactive") == 0
    captured = capsys.readouterr()
    assert captured.out == tiny.qa().answer("头痛怎么办？", temperature=0, max_new_tokens=6) + "\n"
    assert "error: this line is not text in the terminal's encoding" in captured.err


def test_an_answer_goes_to_a_terminal_that_has_not_all_of_unicode(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Screen(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    shown = io.BytesIO()
    # A file is another matter: there, an answer that was lost would be found too late.
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert ask("--greedy", "头痛怎么办？") == 1
    assert "standard output is written in ascii, which has no " in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdout", Screen(shown, encoding="ascii"))
    assert ask("--greedy", "头痛怎么办？") == 0
    answer = tiny.qa().answer("头痛怎么办？", temperature=0, max_new_tokens=6)
    assert not answer.isascii()
    assert shown.getvalue() == f"{answer}\n".encode("ascii", "replace")


def test_a_folder_that_is_no_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", "--model", str(tmp_path), "头痛"]) == 2
    assert "config.json" in capsys.readouterr().err
    assert main(["ask", "--model", str(tmp_path / "absent"), "头痛"]) == 2
    assert "no such folder" in capsys.readouterr().err


def test_an_adapter_of_another_model_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(tiny.folder(), other)
    tiny.write_model(other, hidden_size=32)
    adapter = tiny.write_adapter(tmp_path / "adapter")
    assert main(["ask", "--model", str(other), "--adapter", str(adapter), "头痛"]) == 2
    assert "made for another model" in capsys.readouterr().err


def test_several_answers(capsys: pytest.CaptureFixture[str]) -> None:
    qa = MedicalQA(tiny.folder())
    for options, settings in (
        (["--n", "2", "--seed", "3"], {"n": 2, "seed": 3}),
        (["--n", "2", "--num-beams", "3"], {"n": 2, "num_beams": 3}),
    ):
        assert ask("感冒了怎么办？", *options) == 0
        first, second = qa.answers("感冒了怎么办？", max_new_tokens=6, **settings)
        assert capsys.readouterr().out == f"[1] {first}\n[2] {second}\n"
    assert ask("感冒了怎么办？", "--n", "5", "--num-beams", "3") == 2
    assert "3 beams find at most 3 answers" in capsys.readouterr().err
    assert ask("--interactive", "--n", "2") == 2
    assert "a dialogue goes on with one answer" in capsys.readouterr().err
