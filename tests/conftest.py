"""Fixtures that several rooms' tests share."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from made_once import FOLDER

ROOT = Path(__file__).resolve().parents[1]
_TEXT = (
    "高血压患者的饮食注意事项有哪些？低盐低脂，多吃蔬菜水果，规律运动，按医嘱服药。",
    "糖尿病患者可以吃水果吗？可以，但要控制量，优先选择升糖指数低的水果。",
    "回答医学问题:感冒了怎么办？\n回答:多休息，多喝水，发热时可以按说明书服用退烧药。",
    "基于以下医学知识回答问题:\n知识:布洛芬可以退热和止痛。\n问题:布洛芬有什么作用？\n回答:退热和止痛。",
    "What is a normal body temperature? About 36.5 degrees.",
)


def pytest_configure(config: pytest.Config) -> None:
    """Graphs that tests compile, and what they make for others, lie in a folder that the session's processes share."""
    # As `quiet_environment` has it; most tests import MindSpore before they call that.
    os.environ.setdefault("MS_SUBMODULE_LOG_v", "{CORE:4}")
    if FOLDER not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="ms-medqa-tests-")
        config.add_cleanup(folder.cleanup)
        os.environ[FOLDER] = folder.name
        os.environ.setdefault("MS_MEDQA_GRAPHS", str(Path(folder.name) / "graphs"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with many slow tests come first: begun last, one of them would keep a core busy while the others idle."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


def pytest_collection_finish() -> None:
    """The device is named before the first test computes; MindSpore refuses it afterwards, whichever test was first."""
    if "mindspore" in sys.modules:
        sys.modules["mindspore"].set_device("CPU")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Public development data beside the project; a test that needs it is skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development data folder ../shared/data is not here")
    return folder


@pytest.fixture(scope="module")
def graph_mode() -> Iterator[None]:
    """MindSpore on the CPU in graph mode, as training runs it."""
    yield from _mode("graph")


@pytest.fixture(scope="module")
def pynative_mode() -> Iterator[None]:
    """MindSpore on the CPU without compilation, which a model that computes once is not worth."""
    yield from _mode("pynative")


def _mode(mode: Literal["graph", "pynative"]) -> Iterator[None]:
    # Here, so that tests of rooms without MindSpore do not wait for it.
    import mindspore as ms

    from ms_medqa.backend.device import setup

    # The mode of before is restored, for other tests count on it.
    before = ms.get_context("mode")
    setup("CPU", mode=mode)
    yield
    ms.set_context(mode=before)


@pytest.fixture
def hangup_counts() -> Iterator[None]:
    """SIGHUP ends a child process, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def tiny_tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE tokenizer of 500 tokens with end token and chat template. Do not write into the folder."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    folder = tmp_path_factory.mktemp("tokenizer")
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=control, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(_TEXT, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    chat = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    settings = {"eos_token": control[0], "pad_token": control[0], "chat_template": chat}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
