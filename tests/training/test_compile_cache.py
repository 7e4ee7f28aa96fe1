"""`runtime.compile_cache`: the figures are those of a run without it, to the bit, whatever lies in the folder."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trainable

from ms_medqa.config import load_config
from ms_medqa.training.build import build_run
from ms_medqa.training.graph_key import graph_key

pytestmark = pytest.mark.usefixtures("graph_mode")

SETTINGS: dict[str, Any] = {"train": {"neftune_alpha": 5.0, "save_steps": 1, "keep_checkpoints": 9}}
LOADED = ["training step: compiled by an earlier run", "validation: compiled by an earlier run"]


def start(config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`ms-medqa train` in a process of its own: MindSpore counts a process's graphs from 0."""
    return subprocess.run(
        [sys.executable, "-m", "ms_medqa.cli.main", "train", str(config), *arguments],
        cwd=config.parent,
        env=os.environ | {"PYTHONPATH": str(trainable.ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def train(config: Path, *arguments: str) -> str:
    """A run that must succeed; what it says."""
    done = start(config, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def train_here(capsys: pytest.CaptureFixture[str], config: Path, *arguments: str) -> str:
    """The same in this process, sooner: where it does not matter how many graphs were compiled before."""
    capsys.readouterr()
    assert trainable.train(config, *arguments) == 0
    return capsys.readouterr().out


def about_cache(said: str) -> list[str]:
    """Lines about the cache, without folders."""
    return [line.split(",")[0] for line in said.splitlines() if line.startswith("note:") or "earlier run" in line]


def figures(output: Path) -> list[dict[str, Any]]:
    return trainable.metrics(output, "train") + trainable.metrics(output, "eval")


def config_of(folder: Path, name: str, **sections: Any) -> Path:
    """The config of a run in `folder / name`, with the cache in `folder / cache`."""
    sections = SETTINGS | sections
    return trainable.write_config(folder / name, **(sections | {"runtime": {"compile_cache": str(folder / "cache")}}))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `plain`, a run without the cache, `first`, the one that filled `cache`, and that."""
    folder = tmp_path_factory.mktemp("compiled")
    assert about_cache(train(config_of(folder, "plain"), "runtime.compile_cache=null")) == []
    assert about_cache(train(config_of(folder, "first"))) == []
    return folder


@pytest.fixture
def copy(filled: Path, tmp_path: Path) -> Path:
    """A copy of the cache, in `cache`, to work on."""
    shutil.copytree(filled / "cache", tmp_path / "cache")
    return tmp_path


def entries(folder: Path) -> list[Path]:
    """The folders of the graphs, by their names."""
    return sorted((folder / "cache").glob("*/rank_0/*"), key=lambda path: path.name)


@pytest.mark.slow
def test_a_second_run_loads_both_graphs_and_has_the_same_figures_to_the_bit(filled: Path, copy: Path) -> None:
    assert figures(filled / "first") == figures(filled / "plain")
    assert [path.name.rsplit("-", 1)[0] for path in entries(copy)] == ["training-step", "validation"]
    assert about_cache(train(config_of(copy, "second"))) == LOADED
    assert figures(copy / "second") == figures(filled / "plain")
    assert {path.name for path in copy.iterdir()} == {"cache", "second", "second.yaml"}


@pytest.mark.slow
def test_a_resumed_run_loads_graphs_that_were_compiled_with_other_weights(filled: Path, copy: Path) -> None:
    config = config_of(copy, "resumed")
    shutil.copytree(filled / "plain", copy / "resumed")
    for step in (3, 4, 5, 6):
        shutil.rmtree(copy / "resumed" / "checkpoints" / f"step-{step:06d}")
    assert about_cache(train(config, "--resume")) == LOADED
    assert figures(copy / "resumed") == figures(filled / "plain")


@pytest.mark.slow
def test_changed_constants_of_the_graph_are_compiled_anew(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """That each by itself makes a difference is told of the key, below."""
    overrides = ["train.learning_rate=0.02", "lora.alpha=16", "lora.dropout=0.2"]
    assert about_cache(train_here(capsys, config_of(copy, "cached"), *overrides)) == []
    train_here(capsys, config_of(copy, "plain"), *overrides, "runtime.compile_cache=null")
    assert figures(copy / "cached") == figures(copy / "plain")


@pytest.mark.slow
def test_all_weights_are_those_of_the_run_and_not_of_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert about_cache(train_here(capsys, config_of(tmp_path, "first", lora=None))) == []
    assert about_cache(train_here(capsys, config_of(tmp_path, "second", lora=None))) == LOADED
    assert figures(tmp_path / "first") == figures(tmp_path / "second")
    output = tmp_path / "second"
    for step in (2, 3, 4, 5, 6):
        shutil.rmtree(output / "checkpoints" / f"step-{step:06d}")
    assert about_cache(train(output.with_name("second.yaml"), "--resume")) == LOADED
    assert figures(tmp_path / "first") == figures(output)


@pytest.mark.slow
def test_two_ranks_load_both_graphs_and_a_resumed_run_of_them_too(tmp_path: Path) -> None:
    assert about_cache(trainable.launch(2, config_of(tmp_path, "first"))) == []
    shutil.copytree(tmp_path / "first", tmp_path / "resumed")
    for step in (3, 4):
        shutil.rmtree(tmp_path / "resumed" / "checkpoints" / f"step-{step:06d}")
    assert about_cache(trainable.launch(2, config_of(tmp_path, "resumed"), "--resume")) == LOADED
    assert figures(tmp_path / "resumed") == figures(tmp_path / "first")
    kept = sorted(path.name for path in (tmp_path / "cache").rglob("*.mindir"))
    assert kept == ["MS_WORKERcompile_cache_0.mindir"] * 4


@pytest.mark.slow
def test_a_graph_that_was_spoiled_before_it_was_kept_is_told_once_and_compiled_anew(
    filled: Path, copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its sum is right, so MindSpore itself has to find out. What the sums tell is tested with `kept_graphs`."""
    step = entries(copy)[0]
    path = next(step.glob("*.mindir"))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:1000])
    sums = json.loads((step / "entry.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    (step / "entry.json").write_text(json.dumps(dict.fromkeys(sums, digest)), encoding="utf-8")
    lines = about_cache(train(config_of(copy, "second")))
    assert str(step) in lines[0]
    assert "anew" in lines[0]
    assert sum("training-step" in line for line in lines) == 1
    assert figures(copy / "second") == figures(filled / "plain")
    # It could be found once more.
    assert about_cache(train_here(capsys, config_of(copy, "third"))) == LOADED
    assert figures(copy / "third") == figures(filled / "plain")


@pytest.mark.slow
def test_a_run_killed_while_it_keeps_a_graph_leaves_none(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_of(tmp_path, "killed")
    code = "\n".join(
        [
            "import os, signal, sys",
            "from pathlib import Path",
            "Path.rename = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)",
            "from ms_medqa.cli.main import main",
            f"sys.exit(main(['train', {str(config)!r}]))",
        ]
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=False, capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL
    assert about_cache(train_here(capsys, config_of(tmp_path, "second"))) == []
    assert figures(tmp_path / "second") == figures(filled / "plain")


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_costs_a_note(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    said = train(config_of(tmp_path, "out"))
    assert "cannot be kept" in said
    assert figures(tmp_path / "out") == figures(filled / "plain")


@pytest.mark.slow
def test_a_file_in_the_place_of_the_folder_costs_a_note(
    filled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("mine", encoding="utf-8")
    said = train_here(capsys, config_of(tmp_path, "out"))
    assert "cannot be kept" in said
    assert figures(tmp_path / "out") == figures(filled / "plain")
    assert (tmp_path / "cache").read_text(encoding="utf-8") == "mine"


class TestKey:
    """What a cached graph belongs to."""

    @pytest.fixture(autouse=True)
    def _cpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("ms_medqa.backend.device.available_devices", lambda: ("CPU",))

    def key(self, folder: Path, *overrides: str) -> dict[str, Any]:
        return graph_key(build_run(load_config(trainable.write_config(folder / "out"), overrides)), 40)

    @pytest.mark.parametrize(
        "override",
        [
            *("train.learning_rate=0.02", "train.epochs=3", "train.warmup_ratio=0.5", "train.weight_decay=0.1"),
            *("train.seed=1", "train.label_smoothing=0.1", "train.max_grad_norm=2", "train.lora_plus_ratio=2"),
            *("lora.alpha=9", "lora.dropout=0.1", "lora.r=2", "lora.use_rslora=true", "lora=null"),
            *("data.packing=true", "runtime.dtype=float16"),
        ],
    )
    def test_what_can_be_a_constant_of_the_graph_changes_the_key(self, tmp_path: Path, override: str) -> None:
        assert self.key(tmp_path, override) != self.key(tmp_path)

    def test_what_the_loop_alone_reads_does_not(self, tmp_path: Path) -> None:
        free = ["train.logging_steps=5", "train.save_steps=1", "train.eval_steps=1", "train.keep_checkpoints=2"]
        free += ["output_dir=elsewhere", "eval.limit=3", "generate.top_k=3", "runtime.compile_cache=here"]
        assert self.key(tmp_path, *free) == self.key(tmp_path)

    def test_the_length_of_the_label_list_changes_it(self, tmp_path: Path) -> None:
        run = build_run(load_config(trainable.write_config(tmp_path / "out")))
        assert graph_key(run, 40) != graph_key(run, 41)

    def test_a_switch_of_the_compiler_in_the_environment_changes_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = self.key(tmp_path)
        monkeypatch.setenv("MS_DEV_SOMETHING", "1")
        assert self.key(tmp_path) != before
