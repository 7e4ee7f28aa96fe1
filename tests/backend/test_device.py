"""Choosing a device and its compute type, and what a wish gets that cannot be met."""

from __future__ import annotations

import os
from collections.abc import Iterator

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
        with pytest.raises(UserError, match=f"'{target}': this machine has CPU"):
            setup("auto")
        assert setup("CPU").name == "CPU"

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
        monkeypatch.setattr(ms.device_context.cpu.op_tuning, "threads_num", threads_num)
        setup("CPU", threads=3)
        setup("CPU", threads=3)
        setup("CPU")
        with pytest.raises(UserError, match=r"runtime\.threads = 2: .* 3 already"):
            setup("CPU", threads=2)
        assert calls == [3]


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


def test_the_log_level_of_the_user_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOG_v", "1")
    quiet_environment()
    assert dict(os.environ)["GLOG_v"] == "1"
    monkeypatch.delenv("GLOG_v")
    quiet_environment()
    assert dict(os.environ)["GLOG_v"] == "3"
