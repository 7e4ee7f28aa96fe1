"""`export`, `merge` and `import-bin` as a user calls them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from ms_medqa.cli.main import main
from ms_medqa.data.prompt import Prompt
from ms_medqa.generation import MedicalQA


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter with a prompt of its own."""
    folder = tiny.write_adapter(tmp_path / "adapter")
    Prompt.named("plain", tiny.qa().tokenizer).save(folder)
    return folder


def test_merged_model_answers_as_the_unmerged_one(
    adapter: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    base, out = str(tiny.folder()), tmp_path / "merged model"
    arguments = ["--model", base, "--adapter", str(adapter), "--output", str(out), "--max-shard-size", "100KB"]
    assert main(["merge", *arguments, "--check"]) == 0
    text, errors = capfd.readouterr()
    assert errors == ""
    assert "27 tensors: 4 changed by the adapter, 23 unchanged" in text
    assert "largest difference" in text
    assert "rounding to float32 explains up to" in text
    assert f"ms-medqa ask --model '{out}'" in text
    assert f'pipeline("text-generation", "{out}")' in text
    question = "感冒了怎么办？"
    apart = MedicalQA(base, adapter, merge=False)
    expected = apart.answer(question, temperature=0, max_new_tokens=12)
    assert MedicalQA(out).answer(question, temperature=0, max_new_tokens=12) == expected
    assert MedicalQA(out).prompt.name == "plain"
    assert MedicalQA(base).answer(question, temperature=0, max_new_tokens=12) != expected


def test_merge_is_export_in_hf_format(adapter: Path, tmp_path: Path) -> None:
    base = str(tiny.folder())
    for name, out in (("merge", tmp_path / "a"), ("export", tmp_path / "b")):
        assert main([name, "--model", base, "--adapter", str(adapter), "--output", str(out)]) == 0
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "b").iterdir())
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_checkpoint(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = ["--model", str(tiny.folder()), "--format", "ckpt", "--dtype", "float16", "--output", str(out)]
    assert main(["export", *arguments]) == 0
    # What it tells the user to write is a whole program.
    code = capfd.readouterr().out.partition("load it in Python with:\n")[2]
    found: dict[str, Any] = {}
    exec(textwrap.dedent(code), found)
    expected = tiny.qa().model.model.norm.weight.asnumpy()
    np.testing.assert_allclose(found["model"].model.norm.weight.asnumpy(), expected, rtol=1e-3)
    assert json.loads((out / "config.json").read_text("utf-8"))["torch_dtype"] == "float16"


def test_a_shipped_model_by_name(tmp_path: Path) -> None:
    assert main(["export", "--model", "medqa-tiny", "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "tokenizer.json").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["merge", "--model", "{base}", "--output", "{out}"], "--adapter"),
        (["export", "--model", "{base}", "--output", "{out}", "--format", "gguf"], "invalid choice: 'gguf'"),
        (["export", "--model", "{base}", "--output", "{out}", "--max-shard-size", "5 apples"], "is not a size"),
        (["export", "--model", "{base}", "--output", "{base}"], "overlaps"),
        (["export", "--model", "{out}", "--output", "{out}"], "no such folder"),
        (["merge", "--model", "{base}", "--adapter", "{base}", "--output", "{out}"], "is this an adapter folder?"),
        (["import-bin", "{base}", "--output", "{out}"], "safetensors, which are read as they are"),
    ],
)
def test_faults_of_the_user(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    places = {"base": tiny.folder(), "out": tmp_path / "out"}
    assert main([text.format(**places) for text in arguments]) == 2
    text, errors = capfd.readouterr()
    assert text == ""
    assert message in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_failed_check_is_a_failure(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from ms_medqa.peft import export as module

    monkeypatch.setattr(module, "changes", lambda adapter, naming: {})
    arguments = ["--model", str(tiny.folder()), "--adapter", str(adapter), "--output", str(tmp_path / "out")]
    assert main(["merge", *arguments, "--check"]) == 1
    assert "do not use this export" in capfd.readouterr().out


def test_pickles_become_a_model_that_answers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch", reason="import-bin needs PyTorch")
    from safetensors.torch import load_file

    shutil.copytree(tiny.folder(), tmp_path / "old")
    weights = load_file(tmp_path / "old" / "model.safetensors")
    (tmp_path / "old" / "model.safetensors").unlink()
    torch.save(weights, tmp_path / "old" / "pytorch_model.bin")
    assert main(["import-bin", str(tmp_path / "old"), "--output", str(tmp_path / "new")]) == 0
    assert "27 tensors" in capfd.readouterr().out
    question = "感冒了怎么办？"
    expected = tiny.qa().answer(question, temperature=0, max_new_tokens=8)
    assert MedicalQA(tmp_path / "new").answer(question, temperature=0, max_new_tokens=8) == expected


@pytest.mark.usefixtures("hangup_counts")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_an_export_that_is_told_to_end_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    # The weights are written, the files beside them are not.
    code = """
import sys, time
from ms_medqa.cli.main import main
from ms_medqa.models.companions import Companions
Companions.write = lambda self, folder: time.sleep(60)
sys.exit(main(sys.argv[1:]))
"""
    place = tmp_path / "here"
    place.mkdir()
    command = [sys.executable, "-c", code, "export", "--model", str(tiny.folder()), "--output", str(place / "out")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not (place / ".out.partial" / "model.safetensors").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    assert errors == f"ms-medqa export: ended by {number.name}\n"
    assert list(place.iterdir()) == []
