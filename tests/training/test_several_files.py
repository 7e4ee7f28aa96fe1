"""Data whose training part is several MindRecord files."""

from __future__ import annotations

import json
from pathlib import Path

import trainable

from ms_medqa.cli.main import main


def test_a_part_of_several_files_is_trained_and_resumed(tmp_path: Path) -> None:
    records = [
        {"question": f"What helps after {n} nights of this?", "answer": f"sleep, {n} times."} for n in range(4000)
    ]
    raw = tmp_path / "raw.jsonl"
    raw.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    settings = [f"data.max_length={trainable.LENGTH}", "data.length_margin=0", "data.aug_rate=0"]
    settings += ["data.near_duplicates=null", "data.cluster_similarity=1", "data.shard_megabytes=1"]
    model, data = trainable.place() / "model", tmp_path / "data"
    assert main(["convert", str(raw), "--output", str(data), "--model", str(model), *settings]) == 0
    assert len(list(data.glob("train.mindrecord*[0-9]"))) > 1
    config = trainable.write_config(tmp_path / "run", data={"path": str(data)}, train={"max_steps": 2, "save_steps": 1})
    assert trainable.train(config) == 0
    # What was trained on is the same when it is looked at again.
    first = tmp_path / "run" / "checkpoints" / "step-000001"
    assert trainable.train(config, f"train.resume={first}", f"output_dir={tmp_path / 'again'}") == 0
    assert trainable.metrics(tmp_path / "again", "train")[-1] == trainable.metrics(tmp_path / "run", "train")[-1]
