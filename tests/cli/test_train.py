"""`ms-medqa train`: what a run leaves, what it says, and what bad input gets."""

from __future__ import annotations

import contextlib
import io
import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import trainable
import yaml

from ms_medqa.config import load_config
from ms_medqa.models import load_model
from ms_medqa.training.checkpoint import load_checkpoint

pytestmark = pytest.mark.usefixtures("graph_mode")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What MindSpore drops into the working folder would show up in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DEVICE_TARGET", raising=False)
    monkeypatch.setattr("ms_medqa.backend.device.available_devices", lambda: ("CPU",))


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Output folder and what was said."""
    output = tmp_path_factory.mktemp("my runs") / "lora"
    settings = {"learning_rate": 0.3, "min_learning_rate": 0.075, "warmup_ratio": 0.4}
    settings |= {"eval_steps": 1, "keep_checkpoints": 1}
    config = trainable.write_config(output, train=settings)
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert trainable.train(config, "train.seed=7") == 0
    return output, said.getvalue()


class TestLoraRun:
    """One run whose learning rate is so high that validation worsens after its best step."""

    def test_the_folder_holds_what_it_should(self, run: tuple[Path, str]) -> None:
        output = run[0]
        assert {path.name for path in output.iterdir()} == {
            *("config.yaml", "data.json", "metrics.jsonl", "tensorboard", "loss.png", "checkpoints", "adapter")
        }
        assert {path.name for path in (output / "adapter").iterdir()} == {
            *("adapter_config.json", "adapter_model.safetensors", "base.json", "prompt.json"),
            *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"),
        }
        assert (output / "loss.png").read_bytes().startswith(b"\x89PNG")
        assert any("tfevents" in path.name for path in (output / "tensorboard").iterdir())

    def test_the_resolved_config_can_be_used_as_it_is(self, run: tuple[Path, str]) -> None:
        config = load_config(run[0] / "config.yaml")
        assert config.train.seed == 7
        assert config.train.learning_rate == 0.3
        written = yaml.safe_load((run[0] / "config.yaml").read_text(encoding="utf-8"))
        assert written["train"]["beta2"] == 0.999  # keys that nobody named are there as well

    def test_every_step_is_in_the_metrics(self, run: tuple[Path, str]) -> None:
        lines = trainable.metrics(run[0], "train")
        rows = len(trainable.rows_of("data", "train"))
        steps = -(-rows // 4)
        assert [line["step"] for line in lines] == list(range(1, 2 * steps + 1))
        assert [line["epoch"] for line in lines] == [round((n + 1) / steps, 4) for n in range(2 * steps)]
        fields = {"kind", "step", "epoch", "loss", "learning_rate", "grad_norm", "loss_scale", "tokens"}
        assert all(set(line) >= fields for line in lines)
        assert sum(line["tokens"] for line in lines) == 2 * trainable.rows_of("data", "train").token_counts.sum()
        assert [line["learning_rate"] for line in lines[:2]] == pytest.approx([0.15, 0.3])
        assert lines[-1]["learning_rate"] == pytest.approx(0.075)
        assert {line["loss_scale"] for line in lines} == {1.0}
        evals = trainable.metrics(run[0], "eval")
        assert [line["step"] for line in evals] == [line["step"] for line in lines]
        assert all(line["perplexity"] == pytest.approx(np.exp(line["loss"])) for line in evals)

    def test_the_first_loss_is_that_of_the_base(self, run: tuple[Path, str]) -> None:
        weights = trainable.tensors(trainable.place() / "model" / "model.safetensors")
        rows = trainable.rows_of("data", "train")
        losses = []
        for number in range(len(rows)):
            tokens, mask = rows.records.record(number)
            losses.append(decoders.token_losses(weights, trainable.CONFIG, tokens.tolist())[mask[1:] == 1])
        first = trainable.metrics(run[0], "train")[0]["loss"]
        means = [loss.mean() for loss in losses]
        assert min(means) < first < max(means)

    def test_the_best_adapter_by_validation_is_the_result(self, run: tuple[Path, str]) -> None:
        output, said = run
        losses = [line["loss"] for line in trainable.metrics(output, "eval")]
        best = int(np.argmin(losses)) + 1
        assert best < len(losses)
        assert losses[-1] > min(losses) + 0.01
        kept = sorted(path.name for path in (output / "checkpoints").iterdir())
        assert kept == [f"step-{best:06d}", f"step-{len(losses):06d}"]
        weights, _, state = load_checkpoint(output / "checkpoints" / kept[0])
        assert (state.best_step, state.best) == (best, losses[best - 1])
        adapter = trainable.tensors(output / "adapter" / "adapter_model.safetensors")
        assert len(adapter) == len(weights) == 4
        for name, value in adapter.items():
            stored = name.removeprefix("base_model.model.").replace(".lora_A.weight", ".lora_a")
            assert np.array_equal(weights[stored.replace(".lora_B.weight", ".lora_b")], value)
        assert f"best validation loss {min(losses):.4f} at step {best}" in said

    def test_validation_is_without_dropout_and_over_all_records(self, run: tuple[Path, str]) -> None:
        losses = [line["loss"] for line in trainable.metrics(run[0], "eval")]
        expected = trainable.validation_loss(trainable.with_adapter(run[0] / "adapter"))
        assert min(losses) == pytest.approx(expected, rel=1e-4)

    def test_what_is_said(self, run: tuple[Path, str]) -> None:
        output, said = run
        total = sum(value.size for value in trainable.tensors(trainable.place() / "model/model.safetensors").values())
        size = 4 * (32 + 32) + 4 * (32 + 16)
        assert f"{size:,} trainable of {total + size:,}" in said
        assert "LoRA r=4 alpha=8 on q_proj, v_proj" in said
        assert f"result: {output / 'adapter'}" in said
        ask = next(line for line in said.splitlines() if "ms-medqa ask" in line)
        model = ["--model", str(trainable.place() / "model"), "--adapter", str(output / "adapter")]
        assert shlex.split(ask) == ["ms-medqa", "ask", *model, "QUESTION"]


def test_all_weights_into_a_folder_that_holds_an_earlier_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`lora: null` trains everything, writes OUT/model, and moves the files of the run before it aside."""
    output = tmp_path / "out"
    for name in ("adapter/adapter_config.json", "checkpoints/step-000001/complete.json", "metrics.jsonl", "data.json"):
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text('{"kind": "train", "step": 1, "loss": 9}', encoding="utf-8")
    (output / "notes.txt").write_text("mine", encoding="utf-8")
    (output / "previous-1").mkdir()
    config = trainable.write_config(output, lora=None, train={"epochs": 1, "learning_rate": 1e-3})
    assert trainable.train(config) == 0
    said = capsys.readouterr().out
    assert f"it was moved to {output / 'previous-2'}" in said
    assert ": all weights" in said
    assert set(files(output / "previous-2")) == {
        *("adapter/adapter_config.json", "checkpoints/step-000001/complete.json", "metrics.jsonl", "data.json")
    }
    assert (output / "notes.txt").read_text(encoding="utf-8") == "mine"
    assert not (output / "adapter").exists()
    assert all(line["loss"] < 9 for line in trainable.metrics(output, "train"))
    check_model(output, "data")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a pre-training from random weights; the `lora` section of the config plays no part."""
    output = tmp_path_factory.mktemp("pretrain") / "out"
    settings = {"stage": "pretrain", "epochs": 1, "learning_rate": 3e-3, "eval_steps": 2, "max_steps": 4}
    config = trainable.write_config(
        output, train=settings, model={"init": "random"}, data={"path": str(trainable.place() / "text")}
    )
    assert trainable.train(config) == 0
    return output


def test_pretraining_starts_from_nothing_and_learns_every_token(pretrained: Path) -> None:
    lines = trainable.metrics(pretrained, "train")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[0]["loss"] == pytest.approx(np.log(400), abs=0.1)  # weights near zero know nothing
    losses = [line["loss"] for line in trainable.metrics(pretrained, "eval")]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    check_model(pretrained, "text")


@pytest.mark.parity
def test_transformers_reads_what_was_pretrained(pretrained: Path) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.set_num_threads(1)
    ids = [[5, 300, 20, 7, 399, 12]]
    model = transformers.AutoModelForCausalLM.from_pretrained(pretrained / "model", dtype=torch.float32)
    expected = decoders.logits(trainable.tensors(pretrained / "model/model.safetensors"), trainable.CONFIG, ids[0])
    with torch.no_grad():
        np.testing.assert_allclose(model(torch.tensor(ids)).logits[0].numpy(), expected, atol=1e-4)
    assert len(transformers.AutoTokenizer.from_pretrained(pretrained / "model")("rest").input_ids) > 0


def check_model(output: Path, data: str) -> None:
    """OUT/model is a model folder whose weights are those of the best validation loss."""
    folder = output / "model"
    start = trainable.tensors(trainable.place() / "model" / "model.safetensors")
    loaded = {parameter.name: parameter.asnumpy() for parameter in load_model(folder).get_parameters()}
    assert loaded.keys() == start.keys()
    assert not any(np.array_equal(value, start[name]) for name, value in loaded.items())
    stored = trainable.tensors(folder / "model.safetensors")
    assert all(np.array_equal(value, stored[name]) for name, value in loaded.items())
    best = min(line["loss"] for line in trainable.metrics(output, "eval"))
    assert trainable.validation_loss(stored, data) == pytest.approx(best, rel=1e-4)
    assert (folder / "tokenizer.json").exists()


class TestDryRun:
    """Everything is checked, nothing is trained."""

    @pytest.mark.parametrize(("most", "taken"), [(6, 6), (1000, 11)])
    def test_only_the_first_records_are_trained_where_so_many_are_wanted(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], most: int, taken: int
    ) -> None:
        config = trainable.write_config(tmp_path / "out", train={"max_train_samples": most})
        assert trainable.train(config, "--dry-run") == 0
        said = capsys.readouterr().out
        assert f"{taken} training and 3 validation records" in said
        assert f"{taken} of {trainable.LENGTH} tokens" in said

    @pytest.mark.parametrize("more", [[], ["--resume"]])
    def test_it_prints_the_plan_and_writes_nothing(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str]
    ) -> None:
        config = trainable.write_config(tmp_path / "deep" / "out")
        assert trainable.train(config, "--dry-run", *more) == 0
        said = capsys.readouterr().out
        for word in ("trainable of", "training and", "of 4 rows", "dry run: nothing was trained"):
            assert word in said
        assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["deep", "deep/out.yaml"]

    def test_faults_show(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        config = trainable.write_config(tmp_path / "out", lora={"target_modules": ["query"]})
        assert trainable.train(config, "--dry-run") == 2
        assert "no layer named query" in capsys.readouterr().err


def other_tokenizer(tmp_path: Path) -> dict[str, Any]:
    shutil.copytree(trainable.place() / "model", tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    raw = json.loads(path.read_text(encoding="utf-8"))
    raw["model"]["merges"].pop()
    path.write_text(json.dumps(raw), encoding="utf-8")
    return {"model": {"path": str(tmp_path / "other")}}


def spoiled_data(tmp_path: Path) -> dict[str, Any]:
    shutil.copytree(trainable.place() / "data", tmp_path / "spoiled")
    path = tmp_path / "spoiled" / "train.mindrecord"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return {"data": {"path": str(tmp_path / "spoiled")}}


def no_weights(tmp_path: Path) -> dict[str, Any]:
    shutil.copytree(trainable.place() / "model", tmp_path / "bare")
    (tmp_path / "bare" / "model.safetensors").unlink()
    return {"model": {"path": str(tmp_path / "bare")}}


FAULTS: dict[str, tuple[Any, str]] = {
    "no data": ({"data": {"path": None}}, "data.path is not set: give the folder"),
    "data that is not there": ({"data": {"path": "nowhere"}}, "data nowhere: no such folder"),
    "a folder that is no data": ({"data": {"path": "."}}, "no manifest.json"),
    "data that has changed": (spoiled_data, "train.mindrecord: changed since it was converted"),
    "questions for a pre-training": ({"train": {"stage": "pretrain"}}, "holds sft records, train.stage is 'pretrain'"),
    "text for fine-tuning": (lambda _: {"data": {"path": str(trainable.place() / "text")}}, "set train.stage=pretrain"),
    "another prompt": ({"data": {"prompt": "alpaca"}}, "prompt"),
    "another tokenizer": (other_tokenizer, "made with another tokenizer"),
    "records longer than the rows": ({"data": {"max_length": 40}}, "more than max_length = 40"),
    "more than the model has positions": ({"data": {"max_length": 81}}, "data.max_length = 81: model has 80 positions"),
    "no such model": ({"model": {"path": "nowhere"}}, "model nowhere: no such folder"),
    "a model without weights": (no_weights, "weights must be *.safetensors"),
    "an unknown layer": ({"lora": {"target_modules": ["q_proj", "wq"]}}, "lora.target_modules: no layer named wq"),
    "a device that is not there": ({"runtime": {"device": "Ascend"}}, "runtime.device = 'Ascend'"),
    "an unknown key": ({"train": {"learningrate": 1}}, "did you mean 'train.learning_rate'"),
    "a checkpoint that is not there": ({"train": {"resume": "nowhere"}}, "train.resume = 'nowhere': no such folder"),
    "a checkpoint that is none": ({"train": {"resume": "."}}, "not a complete checkpoint"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_bad_input_gets_one_line_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    make, words = FAULTS[name]
    sections = make(tmp_path) if callable(make) else make
    output = tmp_path / "out"
    config = trainable.write_config(output, **sections)
    assert trainable.train(config) == 2
    error = capsys.readouterr().err.strip()
    assert words in error
    assert error.startswith("ms-medqa train: error: ")
    assert "\n" not in error
    assert not output.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["absent.yaml"], "config absent.yaml: no such file"),
        (["{config}", "stray"], "unexpected argument 'stray'"),
        (["{config}", "train.epochs=none"], "train.epochs"),
        (["{config}", "train.epoch=2"], "did you mean 'train.epochs'"),
        (["{config}", "--resum"], "did you mean --resume"),
        ([], "CONFIG"),
    ],
)
def test_bad_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
    config = trainable.write_config(tmp_path / "out")
    assert trainable.main(["train", *(argument.format(config=config) for argument in arguments)]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
