"""The folder that `ms-medqa convert` makes is whole or absent, is checked when it is read, and replaces no other."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conversions import FILES, Convert, leftovers, lines, qa, read, write

from ms_medqa.cli.main import main
from ms_medqa.config import RunError, UserError
from ms_medqa.data import manifest
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer


def test_nothing_left_says_why_and_leaves_the_rejected(convert: Convert, tmp_path: Path) -> None:
    said = convert(write(tmp_path / "qa.jsonl", [{"question": "q", "answer": ""}] * 3), status=2)
    beside = tmp_path / "out.rejected.jsonl"
    assert "all 3 records were rejected (empty 3)" in said
    assert str(beside) in said
    assert len(lines(beside)) == 3
    assert not convert.output.exists()
    assert "no record in" in convert(write(tmp_path / "e.json", ["[", "]"]), status=2)


def test_the_rejected_stand_beside_the_output_however_it_is_called(
    convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "qa.jsonl", [{"question": "q", "answer": ""}] * 3)
    monkeypatch.setenv("HOME", str(tmp_path))
    convert(source, "--output", "~/mine", status=2)
    assert len(lines(tmp_path / "mine.rejected.jsonl")) == 3
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    convert(source, "--output", "../new/../there", status=2)
    assert len(lines(tmp_path / "there.rejected.jsonl")) == 3
    # An input is never overwritten.
    source = source.rename(tmp_path / "out.rejected.jsonl")
    before = source.read_bytes()
    assert "all 3 records were rejected" in convert(source, status=2)
    assert source.read_bytes() == before


def test_the_current_folder_is_not_replaced(convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "qa.jsonl", [qa(i) for i in range(5)])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert "is the current folder" in convert(source, "--output", ".", status=2)


def test_a_write_protected_result_stays(convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write(tmp_path / "qa.jsonl", [qa(i) for i in range(5)])
    convert(source)
    before = (convert.output / "manifest.json").read_bytes()
    # Permissions do not stop root, who may be running the tests.
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != convert.output)
    assert "write-protected" in convert(source, "data.seed=1", status=2)
    assert (convert.output / "manifest.json").read_bytes() == before


def test_a_new_result_counts_even_if_the_old_one_cannot_be_removed(
    convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "qa.jsonl", [qa(i) for i in range(5)])
    convert(source)
    remove = shutil.rmtree

    def busy(path: Path, **options: Any) -> None:
        if path.name == ".out.old":
            raise OSError(16, "Device or resource busy", str(path))
        remove(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", busy)
        convert(source, "data.seed=1")
    assert read(convert.output / "report.json")["seed"] == 1
    convert(source, "data.seed=2")
    assert leftovers(tmp_path) == []


def test_folders_of_the_user_are_never_replaced(convert: Convert, tmp_path: Path) -> None:
    source = write(tmp_path / "qa.jsonl", [qa(i) for i in range(5)])
    convert.output.mkdir()
    convert(source)
    note = convert.output / "notes.txt"
    note.write_text("mine")
    assert "holds 'notes.txt'" in convert(source, status=2)
    (convert.output / "manifest.json").unlink()
    assert "not empty" in convert(source, status=2)
    assert note.read_text() == "mine"
    assert "a file of this name is there" in convert(source, "--output", source, status=2)
    result = tmp_path / "result"
    convert(source, "--output", result)
    assert "qa.jsonl: is a file, not a folder" in convert(source, "--output", source / "out", status=2)
    assert "File name too long" in convert(source, "--output", tmp_path / ("x" * 300), status=2)
    assert "File name too long" in convert(tmp_path / ("x" * 300), status=2)
    assert "lies in the output folder" in convert(result / "train.jsonl", "--output", result, status=2)
    assert (result / "train.jsonl").exists()


@pytest.mark.parametrize("name", sorted(FILES - {"manifest.json"}))
def test_a_changed_or_missing_file_is_noticed(
    convert: Convert, tmp_path: Path, name: str, tiny_tokenizer_folder: Path
) -> None:
    convert(write(tmp_path / "qa.jsonl", [*(qa(i) for i in range(30)), "{"]))
    tokenizer = Tokenizer.load(tiny_tokenizer_folder)
    manifest.check(convert.output, tokenizer)
    path = convert.output / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"{name}: changed .* convert the data anew"):
        manifest.check(convert.output)
    part = name.split(".")[0]
    if ".mindrecord" in name:
        with pytest.raises(UserError, match=f"{name}: changed"):
            manifest.load_split(convert.output, part, tokenizer, None)
    path.unlink()
    with pytest.raises(UserError, match=f"{name}: missing"):
        manifest.check(convert.output)


def test_another_tokenizer_or_prompt_is_refused(convert: Convert, tmp_path: Path) -> None:
    convert(write(tmp_path / "qa.jsonl", [qa(i) for i in range(5)]))
    tokenizer = Tokenizer.load(convert.model)
    manifest.check(convert.output, tokenizer, Prompt.named("medqa", tokenizer))
    with pytest.raises(UserError, match=r"made with prompt 'medqa', not 'chat'.*data.prompt=medqa"):
        manifest.load_split(convert.output, "train", tokenizer, Prompt.named("chat", tokenizer))
    other = tmp_path / "other"
    shutil.copytree(convert.model, other)
    settings = read(other / "tokenizer_config.json") | {"eos_token": "<|im_end|>"}
    (other / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match="another tokenizer"):
        manifest.load_split(convert.output, "train", Tokenizer.load(other), None)
    with pytest.raises(UserError, match="no such folder"):
        manifest.check(tmp_path / "none")
    with pytest.raises(UserError, match=r"no manifest\.json"):
        manifest.check(tmp_path)


def test_a_killed_conversion_leaves_nothing_that_passes_for_whole(convert: Convert, tmp_path: Path) -> None:
    source = write(tmp_path / "qa.jsonl", [qa(i) for i in range(4000)])
    command = [sys.executable, "-m", "ms_medqa.cli.main", "convert", source, "--output", convert.output]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [*map(str, command), "--model", str(convert.model)], env=environment, stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        # The lines of one part are written, MindRecord and the manifest are not.
        while not (tmp_path / ".out.partial" / "train.jsonl").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGSTOP)
        assert "another process is writing it" in convert(source, status=2)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not convert.output.exists()
    assert (tmp_path / ".out.partial").exists()
    convert(write(tmp_path / "qa.jsonl", [qa(i) for i in range(5)]))
    assert read(convert.output / "report.json")["read"] == 5
    manifest.check(convert.output)
    assert leftovers(tmp_path) == []


def test_an_interrupted_or_failed_write_leaves_the_earlier_result(
    convert: Convert, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write(tmp_path / "qa.jsonl", [qa(i) for i in range(5)])
    convert(source)
    before = (convert.output / "manifest.json").read_bytes()

    def fail(error: BaseException) -> None:
        def write_records(*_: Any) -> int:
            raise error

        monkeypatch.setattr("ms_medqa.data.writing.write_records", write_records)

    fail(RunError(f"no space left writing {tmp_path / '.out.partial' / 'x'}"))
    assert f"no space left writing {convert.output / 'x'}" in convert(source, "data.seed=1", status=1)
    fail(OSError(28, "No space left on device"))
    assert "no space left" in convert(source, "data.seed=1", status=1)
    fail(KeyboardInterrupt())
    assert main(["convert", str(source), "--output", str(convert.output), "--model", str(convert.model)]) == 130
    assert (convert.output / "manifest.json").read_bytes() == before
    assert leftovers(tmp_path) == []
