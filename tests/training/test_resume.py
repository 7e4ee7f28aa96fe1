"""Resume: after a kill at any step the run ends to the bit as if nothing had happened, or says why it cannot go on."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import decoders
import killed
import numpy as np
import pytest
import trainable

from ms_medqa.evaluation.overlap_check import training_data_of
from ms_medqa.training.checkpoint import Checkpoints, load_checkpoint

pytestmark = pytest.mark.usefixtures("graph_mode")

STEPS = 9  # three epochs of three steps, the last of each with an empty row
# float16 with a loss scale that is halved and grows: its state has to come back as well.
SETTINGS: dict[str, dict[str, Any]] = {
    "train": {"epochs": 3, "save_steps": 2, "keep_checkpoints": 9, "loss_scale": 2**18, "loss_scale_window": 3},
    "runtime": {"dtype": "float16"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    output = tmp_path_factory.mktemp("resume") / "whole"
    assert trainable.train(trainable.write_config(output, **SETTINGS)) == 0
    return output


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """A copy of it to work on, with its config beside it."""
    shutil.copytree(whole, tmp_path / "copy")
    return tmp_path / "copy"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def steps_saved(output: Path) -> set[int]:
    return {int(path.name[5:]) for path in Checkpoints(output / "checkpoints", 9).complete()}


def same_numbers(one: Path, other: Path) -> bool:
    return all(
        part.keys() == other_part.keys() and all(np.array_equal(part[name], other_part[name]) for name in part)
        for part, other_part in zip(load_checkpoint(one)[:2], load_checkpoint(other)[:2], strict=True)
    )


@pytest.mark.slow
def test_a_run_killed_again_and_again_ends_to_the_bit_as_if_nothing_had_happened(whole: Path, tmp_path: Path) -> None:
    late = [f"micro-batch:{step}:{micro}" for step in (7, 8, 9) for micro in (0, 1)]
    late += [f"saving:{step}:{file}" for step in (8, 9) for file in range(4)]
    moments = ["saving:4:2", "micro-batch:6:1", random.SystemRandom().choice(late)]  # all in the later epochs
    output = tmp_path / moments[-1].replace(":", "-")  # a failure shows it
    config = trainable.write_config(output, **SETTINGS)
    for moment, saved in zip(moments, [{2, 3}, {2, 3, 4}, {2, 3, 4, 6}], strict=True):
        command = [sys.executable, str(killed.SCRIPT), moment, "train", str(config), "--resume"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == -signal.SIGKILL, (moment, done.stderr)
        assert {path.name for path in tmp_path.iterdir()} == {output.name, config.name}
        assert not (output / "adapter").exists()
        assert steps_saved(output) >= saved, moment
        # What the kill left of a checkpoint is there, but has no mark.
        kind, step, file = moment.split(":")
        if kind == "saving":
            assert int(step) not in steps_saved(output)
            assert len(list((output / "checkpoints").glob(f"*step-{int(step):06d}/*"))) == int(file) + 1

    assert trainable.train(config, "--resume") == 0
    for kind in ("train", "eval"):
        assert trainable.metrics(output, kind) == trainable.metrics(whole, kind)
    assert steps_saved(output) == steps_saved(whole)
    for step in steps_saved(whole):
        name = f"checkpoints/step-{step:06d}"
        assert same_numbers(output / name, whole / name), name
    assert files(output / "adapter") == files(whole / "adapter")


def test_what_it_is_compared_with_is_worth_it(whole: Path) -> None:
    lines = trainable.metrics(whole, "train")
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    # An overflow halves the scale at the start, and once more in the last epoch, after it has grown.
    overflows = [line["step"] for line in lines if line["overflow"]]
    assert overflows[0] == 1
    assert overflows[-1] > 6
    scales = [line["loss_scale"] for line in lines]
    assert any(later == 2 * sooner for sooner, later in pairwise(scales))
    assert steps_saved(whole) == {2, 3, 4, 6, 8, 9}
    losses = [line["loss"] for line in lines]
    assert len(set(losses)) == STEPS


def test_a_finished_run_has_nothing_to_resume(copy: Path) -> None:
    config = trainable.write_config(copy, **SETTINGS)
    before = files(copy)
    assert trainable.train(config, "--resume") == 0
    after = files(copy)
    for name in before:
        if name.startswith(("adapter/", "checkpoints/", "metrics", "data.json")):
            assert after[name] == before[name], name
    # An evaluation finds by it what the adapter was trained on, wherever the run's folder is.
    data = trainable.place() / "data"
    manifest = json.loads((data / "manifest.json").read_text(encoding="utf-8"))
    assert json.loads(after["data.json"]) == {
        "path": str(data.resolve()),
        "train_sha256": manifest["files"]["train.jsonl"]["sha256"],
    }
    assert training_data_of(copy / "adapter") == data.resolve()


def other_model(folder: Path) -> Path:
    shutil.copytree(trainable.place() / "model", folder)
    decoders.write(folder, trainable.CONFIG | {"num_hidden_layers": 2})
    return folder


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"train": {"learning_rate": 0.02}}, "train.learning_rate"),
        ({"train": {"seed": 1}}, "train.seed"),
        ({"train": {"epochs": 4}}, "train.epochs"),
        ({"train": {"max_steps": 8}}, "train.max_steps"),
        ({"train": {"batch_size": 4}}, "global batch"),
        ({"lora": {"r": 8}}, "lora"),
        ({"lora": {"target_modules": ["q_proj", "k_proj", "v_proj"]}}, "lora"),
        ({"lora": None}, "lora"),
        ({"data": {"packing": True}}, "data.packing"),
        ({"runtime": {"dtype": "float32"}}, "runtime.dtype"),
        ({"model": {"path": "other"}}, "model"),
    ],
    ids=str,
)
def test_other_settings_are_refused_by_name(
    copy: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], key: str
) -> None:
    sections: dict[str, Any] = {name: dict(values) for name, values in SETTINGS.items()}
    for name, values in change.items():
        sections[name] = values if values is None else sections.get(name, {}) | values
    if "model" in change:
        sections["model"] = {"path": str(other_model(copy.with_name("other")))}
    before = files(copy)
    assert trainable.train(trainable.write_config(copy, **sections), "--resume") == 2
    error = capsys.readouterr().err
    assert f"step-{STEPS:06d} was written under other settings: " in error
    assert key in error.split("other settings: ")[1].split(":")[0].split(", ")
    assert files(copy) == before


def test_a_spoiled_checkpoint_is_refused_and_an_earlier_one_can_be_named(
    copy: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goes on from another folder's checkpoint, whose best is not here, and with the batch cut in another way."""
    newest = copy / "checkpoints" / f"step-{STEPS:06d}" / "weights.safetensors"
    data = bytearray(newest.read_bytes())
    data[-1] ^= 64
    newest.write_bytes(data)
    assert trainable.train(trainable.write_config(copy, **SETTINGS), "--resume") == 2
    assert f"{newest}: changed or missing since it was written" in capsys.readouterr().err

    output = tmp_path / "onwards"
    (output / "adapter").mkdir(parents=True)
    sections = SETTINGS | {"train": SETTINGS["train"] | {"batch_size": 4, "gradient_accumulation_steps": 1}}
    config = trainable.write_config(output, **sections)
    assert trainable.train(config, f"train.resume={copy / 'checkpoints' / 'step-000006'}") == 0
    assert "resuming from" in capsys.readouterr().out
    assert (output / "previous-1" / "adapter").is_dir()  # what was there is of another run
    lines = trainable.metrics(output, "train")
    assert [line["step"] for line in lines] == [7, 8, 9]
    expected = trainable.metrics(whole, "train")[6:]
    for name in ("epoch", "learning_rate", "tokens"):
        assert [line[name] for line in lines] == [line[name] for line in expected]
    # The masks of dropout follow the micro-batches; the rows of each step are the same.
    assert [line["loss"] for line in lines] == pytest.approx([line["loss"] for line in expected], rel=0.05)
    evals = trainable.metrics(output, "eval")
    assert [line["step"] for line in evals] == [9]
    state = json.loads((output / "checkpoints" / "step-000009" / "trainer_state.json").read_text(encoding="utf-8"))
    assert (state["best_step"], state["best"]) == (9, evals[0]["loss"])
    assert (output / "adapter" / "adapter_model.safetensors").exists()


def test_a_run_that_only_overflows_stops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(trainable.place() / "model", folder)
    weights = decoders.random_weights(trainable.CONFIG)
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = np.nan
    decoders.write(folder, trainable.CONFIG, weights)
    output = tmp_path / "out"
    config = trainable.write_config(output, model={"path": str(folder)}, train={"epochs": 9})
    assert trainable.train(config) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("ms-medqa train: error: step 20: 20 steps in a row had non-finite gradients")
    named = re.findall(r"'([^']+)'", error.split("here records ")[1])
    ids = trainable.rows_of("data", "train").records.ids
    assert 0 < len(set(named)) <= 4  # the rows of one step
    assert set(named) <= set(ids)
    assert error.endswith(f"the last good checkpoint is {output / 'checkpoints' / 'step-000018'}")
    lines = trainable.metrics(output, "train")
    assert {line["loss"] for line in lines} == {line["grad_norm"] for line in lines} == {None}
    assert [line["skipped"] for line in lines] == list(range(1, 20))
    assert {line["loss"] for line in trainable.metrics(output, "eval")} == {None}
    assert not (output / "adapter").exists()
    state = json.loads((output / "checkpoints" / "step-000018" / "trainer_state.json").read_text(encoding="utf-8"))
    assert state["best_step"] is None
