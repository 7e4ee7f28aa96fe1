"""The Qwen2.5-0.5B shape on a CPU: it loads within its bound, trains within the estimate, and answers."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ms_medqa.config.assets import MEDQA_MINI

ROOT = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-m", "ms_medqa.cli.main"]


def run(*command: str | Path) -> str:
    """What a process of its own printed: only there, its peak is that of one model."""
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


@pytest.fixture(scope="module")
def model(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """494 million random weights, 1 GB in bfloat16, with the tokenizer of the released model."""
    folder = tmp_path_factory.mktemp("half") / "model"
    script, tokenizer = ROOT / "benchmarks/make_checkpoint.py", shared_data / "tokenizers" / "qwen2.5"
    run(sys.executable, script, "--shape", "qwen2.5-0.5b", "--output", folder, "--tokenizer", tokenizer)
    return folder


@pytest.mark.slow
def test_loading_takes_little_more_than_the_model(model: Path) -> None:
    script = ROOT / "benchmarks/load.py"
    said = run(sys.executable, script, model, "--here", "load", "--state", "warm", "--as-is")
    found = json.loads(said.splitlines()[-1])
    assert found["size"] == 4 * 494_032_768
    assert found["peak"] <= 1.15 * found["size"] + 400e6


@pytest.mark.slow
def test_it_trains_within_the_estimate_and_answers(model: Path, tmp_path: Path) -> None:
    records = MEDQA_MINI.read_text(encoding="utf-8").splitlines()[:60]
    (tmp_path / "records.jsonl").write_text("\n".join(records), encoding="utf-8")
    config = {
        "model": {"path": str(model)},
        "data": {"path": str(tmp_path / "data"), "max_length": 128},
        "lora": {"r": 16, "target_modules": ["q_proj", "k_proj", "v_proj"]},
        "train": {"batch_size": 1, "gradient_accumulation_steps": 1, "max_steps": 1},
        "runtime": {"device": "CPU"},
        "output_dir": str(tmp_path / "run"),
    }
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    run(*COMMAND, "convert", tmp_path / "records.jsonl", "--output", tmp_path / "data", "--config", path)
    said = run(*COMMAND, "train", path)
    measured, estimated = map(
        float, re.search(r"([\d.]+) GB measured at the peak, ([\d.]+) GB estimated", said).groups()
    )
    assert abs(estimated - measured) <= 0.15 * measured
    adapter = tmp_path / "run" / "adapter"
    arguments = ["--adapter", adapter, "--greedy", "--max-new-tokens", "4", "高血压患者的饮食注意事项有哪些？"]
    assert run(*COMMAND, "ask", "--model", model, *arguments).strip()
