"""Choose the device, set MindSpore up for it, and say what it can compute with."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ms_medqa.backend.cores import take_cores
from ms_medqa.config.errors import RunError, UserError
from ms_medqa.config.schema import RuntimeSection
from ms_medqa.config.scratch import redirect_droppings

# What the drivers of Ascend and NVIDIA put under /dev.
_DEVICE_FILES = {"Ascend": ("/dev/davinci_manager",), "GPU": ("/dev/nvidiactl", "/dev/dxg")}

_ERRORS = "3"
# The part of MindSpore that reads graphs logs no errors any more; those that stop it are raised as before. Not on a
# machine with an Ascend, where no graph is looked for that may not be there.
_CORE_LEVEL = ("MS_SUBMODULE_LOG_v", "{CORE:4}")

_threads: int | None = None


@dataclass(frozen=True)
class Device:
    """A device that is ready for use.

    Attributes:
        name: `CPU`, `GPU` or `Ascend`.
        dtype: name of the compute type that `runtime.dtype` came to.
        notice: what was changed from the user's wish and why, or None.
    """

    name: str
    dtype: str
    notice: str | None = None


def quiet_environment() -> None:
    """Keep MindSpore's own warnings off the terminal and its files out of the user's folder; what the user set wins.

    Must run before the first import of MindSpore: its C++ log level is read once.
    """
    level = os.environ.setdefault("GLOG_v", _ERRORS)
    if level == _ERRORS and "mindspore" not in sys.modules and not _has_driver("Ascend"):
        os.environ.setdefault(*_CORE_LEVEL)
    redirect_droppings()


def blanks_are_silent() -> bool:
    """Whether MindSpore says nothing of an empty file among its graphs, see `compile_cache`; else two errors."""
    name, level = _CORE_LEVEL
    return os.environ.get(name) == level


def _has_driver(name: str) -> bool:
    return any(Path(file).exists() for file in _DEVICE_FILES[name])


@lru_cache(maxsize=1)
def available_devices() -> tuple[str, ...]:
    """Device names that this MindSpore can use here, the fastest first."""
    quiet_environment()
    import mindspore as ms

    found = []
    for name in _DEVICE_FILES:
        # MindSpore answers "no" with a page of warnings, so it is asked only where the driver shows a device.
        if not _has_driver(name):
            continue
        # Asking for a back end that is not installed raises, and which error differs between versions.
        with contextlib.suppress(RuntimeError, ValueError, AttributeError):
            if ms.hal.is_available(name) and ms.hal.device_count(name) > 0:
                found.append(name)
    return (*found, "CPU")


def setup(
    device: str = "auto",
    *,
    device_id: int | None = None,
    mode: str = "graph",
    dtype: str = "auto",
    threads: int | None = None,
) -> Device:
    """Set MindSpore up. Call once, before the first tensor.

    Args:
        device: `auto`, `CPU`, `GPU` or `Ascend`.
        device_id: the card; None takes DEVICE_ID of the environment (msrun and rank-table starts set it), else 0.
        mode: `graph` or `pynative`.
        dtype: `auto`, `float32`, `float16` or `bfloat16`.
        threads: on a CPU, cores for this process (`cores.take_cores`).

    Raises:
        UserError: the device that was asked for is not here, DEVICE_ID is no number, or `threads` is not that of an
            earlier call.
        RunError: MindSpore cannot use the device.
    """
    quiet_environment()
    import mindspore as ms

    logging.getLogger("mindspore").setLevel(logging.ERROR)
    target = os.environ.get("DEVICE_TARGET") if device == "auto" else None
    wish = target or device
    names = available_devices()
    name = names[0] if wish == "auto" else wish
    if name not in names:
        key = f"DEVICE_TARGET={target}" if target else f"runtime.device = {wish!r}"
        raise UserError(f"{key}: this machine has {', '.join(names)}", "`ms-medqa doctor` says what is missing")
    try:
        if name == "CPU":
            ms.set_device("CPU")
        else:
            ms.set_device(name, _device_id() if device_id is None else device_id)
    except RuntimeError as error:
        raise RunError(f"MindSpore cannot use device {name}: {str(error).splitlines()[0]}") from error
    ms.set_context(mode=ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE)
    if name == "CPU":
        if threads is not None:
            _set_threads(threads)
        take_cores(threads)
    resolved, notice = resolve_dtype(dtype, name)
    return Device(name, resolved, notice)


def _device_id() -> int:
    text = os.environ.get("DEVICE_ID") or "0"
    if not text.isdecimal():
        raise UserError(f"DEVICE_ID={text}: it must be the number of a card, such as 0")
    return int(text)


def _set_threads(threads: int) -> None:
    # MindSpore takes the number once in a process, and refuses even the same one later.
    global _threads
    import mindspore as ms

    if _threads is None:
        ms.device_context.cpu.op_tuning.threads_num(threads)
        _threads = threads
    elif _threads != threads:
        raise UserError(f"runtime.threads = {threads}: this process computes with {_threads} already")


def setup_runtime(runtime: RuntimeSection, mode: str | None = None) -> Device:
    """`setup` as the config's section `runtime` says; `mode` goes before the section's own."""
    return setup(
        runtime.device,
        device_id=runtime.device_id,
        mode=mode or runtime.mode,
        dtype=runtime.dtype,
        threads=runtime.threads,
    )


def resolve_dtype(dtype: str, device: str) -> tuple[str, str | None]:
    """The compute type used for a wish on a device, and a notice where the wish cannot be met.

    MindSpore's CPU kernels have no bfloat16 arithmetic, and its CUDA plug-in has none before compute capability 8.
    """
    if dtype == "auto":
        return ("float32" if device == "CPU" else "float16"), None
    if dtype == "bfloat16" and device != "Ascend":
        return "float32", f"runtime.dtype: {device} has no bfloat16 arithmetic, float32 is used"
    return dtype, None


def peak_memory(device: str) -> int:
    """Most memory so far, in bytes: of this process on a CPU, else what MindSpore took of the card."""
    if device == "CPU":
        return _largest_resident_set()
    import mindspore as ms

    return int(ms.runtime.max_memory_allocated())


def _largest_resident_set() -> int:
    # On Linux, ru_maxrss also counts what the process that started this one had in memory.
    with contextlib.suppress(OSError), Path("/proc/self/status").open(encoding="utf-8") as file:
        for line in file:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    # macOS counts in bytes, others in KiB.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@contextlib.contextmanager
def execution_mode(mode: str) -> Iterator[None]:
    """Run a block in `graph` or `pynative` mode and restore the mode after it."""
    import mindspore as ms

    before = ms.get_context("mode")
    ms.set_context(mode=ms.GRAPH_MODE if mode == "graph" else ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=before)
