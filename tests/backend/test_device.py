"""Choosing a device and its compute type, and what a wish gets that cannot be met."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mindspore as ms
import pytest

from ms_medqa.backend import device as device_module
from ms_medqa.backend.device import Device, execution_mode, quiet_environment, resolve_dtype, setup
from ms_medqa.config import UserError


@pytest.fixture(autouse=True)
def _restore_mode() -> Iterator[None]:
    before = ms.get_context("mode")
    yield
    ms.set_context(mode=before)


@pytest.fixture
def _cpu_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "available_devices", lambda: ("CPU",))
    monkeypatch.delenv("DEVICE_TARGET", raising=False)


@pytest.mark.usefixtures("_cpu_only")
class TestSetup:
    """On a machine that has only its CPU."""

    @pytest.mark.parametrize("name", ["Ascend", "GPU"])
    def test_a_device_that_is_not_there(self, name: str) -> None:
        with pytest.raises(UserError, match=rf"runtime\.device = '{name}': this machine has CPU: .*doctor"):
            setup(name)

    def test_auto_takes_what_is_there(self) -> None:
        assert setup("auto") == Device("CPU", "float32")
        assert ms.get_context("device_target") == "CPU"

    @pytest.mark.parametrize("target", ["Ascend", "TPU"])
    def test_the_environment_chooses_for_auto_alone(self, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
        monkeypatch.setenv("DEVICE_TARGET", target)
        with pytest.raises(UserError, match=f"DEVICE_TARGET={target}: this machine has CPU"):
            setup("auto")
        assert setup("CPU").name == "CPU"

    def test_an_empty_device_target_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DEVICE_TARGET", "")
        assert setup("auto").name == "CPU"

    def test_mode(self) -> None:
        setup("CPU", mode="pynative")
        assert ms.get_context("mode") == ms.PYNATIVE_MODE
        setup("CPU", mode="graph")
        assert ms.get_context("mode") == ms.GRAPH_MODE

    def test_a_wish_for_bfloat16_is_answered(self) -> None:
        device = setup("CPU", dtype="bfloat16")
        assert device.dtype == "float32"
        assert device.notice is not None
        assert "bfloat16" in device.notice

    def test_threads_are_set_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[int] = []

        def threads_num(number: int) -> None:
            if calls:
                raise RuntimeError("The 'threads_num' can not be set repeatedly.")
            calls.append(number)

        monkeypatch.setattr(device_module, "_threads", None)
        monkeypatch.setattr(device_module, "take_cores", lambda count: None)
        monkeypatch.setattr(ms.device_context.cpu.op_tuning, "threads_num", threads_num)
        setup("CPU", threads=3)
        setup("CPU", threads=3)
        setup("CPU")
        with pytest.raises(UserError, match=r"runtime\.threads = 2: .* 3 already"):
            setup("CPU", threads=2)
        assert calls == [3]


@pytest.mark.parametrize(("text", "card"), [(None, 0), ("", 0), ("5", 5)])
def test_the_card_of_the_environment(monkeypatch: pytest.MonkeyPatch, text: str | None, card: int) -> None:
    cards: list[tuple[str, int]] = []
    monkeypatch.setattr(device_module, "available_devices", lambda: ("Ascend", "CPU"))
    monkeypatch.setattr(ms, "set_device", lambda *arguments: cards.append(arguments))
    monkeypatch.delenv("DEVICE_ID", raising=False)
    if text is not None:
        monkeypatch.setenv("DEVICE_ID", text)
    setup("Ascend")
    setup("Ascend", device_id=3)
    assert cards == [("Ascend", card), ("Ascend", 3)]


def test_a_card_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_module, "available_devices", lambda: ("Ascend", "CPU"))
    monkeypatch.setenv("DEVICE_ID", "0,1")
    with pytest.raises(UserError, match="DEVICE_ID=0,1: it must be the number of a card"):
        setup("Ascend")


@pytest.mark.parametrize(
    ("wish", "device", "dtype", "noticed"),
    [
        ("auto", "CPU", "float32", False),
        ("auto", "Ascend", "float16", False),
        ("auto", "GPU", "float16", False),
        ("float32", "Ascend", "float32", False),
        ("float16", "CPU", "float16", False),
        ("bfloat16", "Ascend", "bfloat16", False),
        ("bfloat16", "CPU", "float32", True),
        ("bfloat16", "GPU", "float32", True),
    ],
)
def test_compute_types(wish: str, device: str, dtype: str, noticed: bool) -> None:
    resolved, notice = resolve_dtype(wish, device)
    assert resolved == dtype
    assert (notice is not None) is noticed


@pytest.mark.parametrize(("inside", "outside"), [("graph", "pynative"), ("pynative", "graph")])
def test_execution_mode_is_restored(inside: str, outside: str) -> None:
    number = {"graph": ms.GRAPH_MODE, "pynative": ms.PYNATIVE_MODE}
    ms.set_context(mode=number[outside])
    with pytest.raises(KeyError), execution_mode(inside):  # noqa: PT012 - the mode inside is the point
        assert ms.get_context("mode") == number[inside]
        raise KeyError
    assert ms.get_context("mode") == number[outside]


def test_a_library_caller_gets_the_quiet_environment_before_mindspore_is_imported() -> None:
    code = """
import os, sys
import ms_medqa

class Spy:
    def find_spec(self, name, path=None, target=None):
        if name == "mindspore":
            print(os.environ["GLOG_v"], os.path.isdir(os.environ["MS_OM_PATH"]), os.environ["MS_SUBMODULE_LOG_v"])
            sys.exit()

sys.meta_path.insert(0, Spy())
ms_medqa.load_model
"""
    ours = ("GLOG_v", "MS_SUBMODULE_LOG_v", "MS_OM_PATH", "MS_COMPILER_CACHE_PATH", "ASCEND_WORK_PATH")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    root = Path(device_module.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=environment, check=False, capture_output=True, text=True
    )
    assert done.stdout == "3 True {CORE:4}\n", done.stderr


def test_nothing_is_silenced_for_a_caller_who_imported_mindspore_or_has_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLOG_v", "MS_SUBMODULE_LOG_v"):
        monkeypatch.delenv(name, raising=False)
    quiet_environment()
    assert not device_module.blanks_are_silent()
    with monkeypatch.context() as patch:
        patch.delitem(sys.modules, "mindspore")
        patch.setattr(device_module, "_has_driver", lambda name: name == "Ascend")
        quiet_environment()
        assert not device_module.blanks_are_silent()
        patch.setattr(device_module, "_has_driver", lambda name: False)
        patch.setenv("GLOG_v", "1")
        quiet_environment()
        assert "MS_SUBMODULE_LOG_v" not in os.environ
        patch.setenv("GLOG_v", "3")
        patch.setenv("MS_SUBMODULE_LOG_v", "{ANALYZER:1}")
        quiet_environment()
        assert not device_module.blanks_are_silent()
        patch.delenv("MS_SUBMODULE_LOG_v")
        quiet_environment()
        assert device_module.blanks_are_silent()


def test_the_log_level_of_the_user_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOG_v", "1")
    quiet_environment()
    assert dict(os.environ)["GLOG_v"] == "1"
    monkeypatch.delenv("GLOG_v")
    quiet_environment()
    assert dict(os.environ)["GLOG_v"] == "3"


def test_the_peak_is_that_of_this_process_and_not_of_the_one_that_started_it() -> None:
    weight = bytearray(b"x") * 400_000_000
    code = "from ms_medqa.backend.device import peak_memory; print(peak_memory('CPU'))"
    found = int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert 5_000_000 < found < len(weight)
