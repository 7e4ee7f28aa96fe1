"""The traps that users of MindSpore and Ascend meet, each with its fix. Every check looks at `Facts` alone."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ms_medqa.launch.environment import Facts

MINDSPORE_RANGE = ("2.7.1", "2.11")

# The CANN versions that each MindSpore wheel itself accepts (its run_check), newest last.
CANN_ACCEPTED = {
    "2.7.1": ("8.2", "8.3"),
    "2.7.2": ("8.5",),
    "2.8": ("8.2", "8.3", "8.5"),
    "2.9": ("8.2", "8.3", "8.5", "9.0"),
    "2.10": ("8.2", "8.3", "8.5", "9.0", "9.1"),
}
# The driver that is released with each CANN.
DRIVER_OF_CANN = {"8.2": "25.2.0", "8.3": "25.3.RC1", "8.5": "25.5.0", "9.0": "26.0.RC1"}


@dataclass(frozen=True)
class Finding:
    """One trap that this machine is in.

    Attributes:
        level: `broken` (nothing will run), or `warning` (something will surprise).
        problem: what is wrong.
        fix: what to do.
    """

    level: Literal["broken", "warning"]
    problem: str
    fix: str


Check = Callable[[Facts], "Finding | None"]


def diagnose(facts: Facts) -> list[Finding]:
    """All findings, the broken ones first."""
    findings = [finding for check in CHECKS if (finding := check(facts)) is not None]
    return sorted(findings, key=lambda finding: finding.level != "broken")


def check_python(facts: Facts) -> Finding | None:
    """MindSpore has wheels for 3.9 to 3.12, ms_medqa needs 3.10."""
    if (3, 10) <= _numbers(facts.python)[:2] <= (3, 12):
        return None
    return Finding("broken", f"Python {facts.python}", "use Python 3.10, 3.11 or 3.12")


def check_numpy(facts: Facts) -> Finding | None:
    """MindSpore's compiled modules are built for NumPy 1."""
    version = facts.versions.get("numpy")
    if version is None or _numbers(version)[0] < 2:
        return None
    return Finding("broken", f"NumPy {version}: MindSpore's compiled modules need NumPy 1", "pip install 'numpy<2'")


def check_mindspore_version(facts: Facts) -> Finding | None:
    """MindSpore is installed, in the range that ms_medqa is made for."""
    version = facts.versions.get("mindspore")
    low, high = MINDSPORE_RANGE
    fix = f"pip install 'mindspore>={low},<{high}'"
    if version is None:
        # A nightly or device build has another distribution name.
        return None if facts.mindspore_packages else Finding("broken", "MindSpore is not installed", fix)
    if _numbers(low) <= _numbers(version) < _numbers(high):
        return None
    return Finding("broken", f"MindSpore {version} is outside {low} to <{high}", fix)


def check_mindspore_twice(facts: Facts) -> Finding | None:
    """A nightly beside a release overwrites half of its files."""
    if len(facts.mindspore_packages) < 2:
        return None
    names = " ".join(facts.mindspore_packages)
    fix = f"pip uninstall -y {names}, then pip install 'mindspore>={MINDSPORE_RANGE[0]},<{MINDSPORE_RANGE[1]}'"
    return Finding("broken", f"several packages share the module `mindspore`: {names}", fix)


def check_import(facts: Facts) -> Finding | None:
    """`import mindspore` works."""
    error = facts.probe.import_error
    if error is None or not facts.mindspore_packages:
        return None
    return Finding(
        "broken", f"`import mindspore` fails: {_first_line(error)}", "see the other findings, then reinstall"
    )


def check_compute(facts: Facts) -> Finding | None:
    """A product of two small matrices is right in both modes."""
    if facts.probe.import_error is not None or facts.probe.works:
        return None
    failed = [f"{mode} mode: {_first_line(error)}" for mode, error in facts.probe.modes.items() if error]
    problem = "; ".join(failed) or facts.probe.crash or "it ended early"
    fix = "run `python -m ms_medqa.launch.probe` to see all that MindSpore says"
    return Finding("broken", f"MindSpore cannot multiply two matrices ({problem})", fix)


def check_requirements(facts: Facts) -> Finding | None:
    """The installed versions are those that ms_medqa and MindSpore ask for."""
    # What has a line of its own is not said twice.
    told = [name for name, check in (("numpy", check_numpy), ("mindspore", check_mindspore_version)) if check(facts)]
    unmet = [line for line in facts.unmet if not any(re.search(rf"needs {name}\b", line) for name in told)]
    if not unmet:
        return None
    level: Literal["broken", "warning"] = "warning" if facts.probe.works else "broken"
    return Finding(level, "; ".join(unmet), "install ms_medqa again in this environment: pip install .")


def check_cards_without_cann(facts: Facts) -> Finding | None:
    """Cards need CANN."""
    if not facts.cards or facts.cann_path is not None:
        return None
    fix = "install the CANN toolkit and operator packages, or set DEVICE_TARGET=CPU"
    return Finding(_unless_cpu(facts), f"{len(facts.cards)} NPU cards, but no CANN", fix)


def check_cann_sourced(facts: Facts) -> Finding | None:
    """CANN's set_env.sh sets ASCEND_HOME_PATH and LD_LIBRARY_PATH."""
    if facts.cann_path is None:
        return None
    if "ASCEND_HOME_PATH" in facts.environment and "/lib64" in facts.environment.get("LD_LIBRARY_PATH", ""):
        return None
    # set_env.sh lies beside `latest` up to CANN 8 and inside the folder since CANN 9.
    folder = Path(facts.cann_path)
    script = folder.parent / "set_env.sh" if folder.name == "latest" else folder / "set_env.sh"
    return Finding(_unless_cpu(facts), "CANN is installed, but its environment is not set", f"source {script}")


def check_cann_version(facts: Facts) -> Finding | None:
    """This MindSpore accepts this CANN."""
    version = facts.versions.get("mindspore")
    if facts.cann_version is None or version is None:
        return None
    accepted = next((cann for of, cann in CANN_ACCEPTED.items() if f"{version}.".startswith(f"{of}.")), None)
    if accepted is None or _major_minor(facts.cann_version) in accepted:
        return None
    fix = f"install CANN {accepted[-1]} (accepted: {', '.join(accepted)}), or another MindSpore"
    return Finding("warning", f"MindSpore {version} does not know CANN {facts.cann_version}", fix)


def check_driver(facts: Facts) -> Finding | None:
    """An older driver than the one released with CANN fails in odd places."""
    if facts.cann_version is None or facts.driver_version is None:
        return None
    wanted = DRIVER_OF_CANN.get(_major_minor(facts.cann_version))
    if wanted is None or _numbers(facts.driver_version)[:2] >= _numbers(wanted)[:2]:
        return None
    problem = f"NPU driver {facts.driver_version} is older than the one released with CANN {facts.cann_version}"
    return Finding("warning", problem, f"install driver and firmware {wanted}")


def check_npu_smi(facts: Facts) -> Finding | None:
    """npu-smi comes with the driver; a container needs it mounted."""
    if facts.npu_smi is not None or (facts.cann_path is None and not facts.cards):
        return None
    there = "CANN is installed" if facts.cann_path is not None else "there are NPU cards"
    fix = "install the NPU driver; in a container, mount /usr/local/bin/npu-smi, /usr/local/dcmi and the driver folder"
    return Finding("warning", f"{there}, but there is no `npu-smi`", fix)


def check_cards(facts: Facts) -> Finding | None:
    """CANN without a card computes nothing."""
    if facts.cann_path is None or facts.cards:
        return None
    fix = "load the NPU driver; in a container, pass --device=/dev/davinci0 (and davinci_manager, devmm_svm, hisi_hdc)"
    return Finding("warning", "CANN is installed, but there is no /dev/davinci* card: runs use the CPU", fix)


def check_card_access(facts: Facts) -> Finding | None:
    """Cards belong to the group HwHiAiUser."""
    closed = [path for path, readable in facts.cards.items() if not readable]
    if not closed:
        return None
    fix = "sudo usermod -aG HwHiAiUser $USER, then log in again"
    return Finding(_unless_cpu(facts), f"this user may not open {', '.join(closed)}", fix)


def check_ascend_seen(facts: Facts) -> Finding | None:
    """Cards and CANN are there, and MindSpore sees them."""
    if not facts.cards or facts.cann_path is None or not facts.probe.devices or "Ascend" in facts.probe.devices:
        return None
    reason = f" ({facts.probe.plugin_error})" if facts.probe.plugin_error else ""
    fix = "source CANN's set_env.sh, and check CANN's version against MindSpore's (docs/ascend.md)"
    return Finding(_unless_cpu(facts), f"MindSpore does not see the NPU cards{reason}", fix)


def check_device_target(facts: Facts) -> Finding | None:
    """`runtime.device: auto` follows DEVICE_TARGET."""
    target = facts.environment.get("DEVICE_TARGET")
    if target in (None, "", "auto", *facts.probe.devices) or not facts.probe.devices:
        return None
    problem = f"DEVICE_TARGET={target}, but MindSpore can use {', '.join(facts.probe.devices)} here"
    return Finding("broken", problem, f"unset DEVICE_TARGET, or set it to one of these; {target} needs its driver")


def check_cann_modules(facts: Facts) -> Finding | None:
    """MindSpore imports `te` for operators and `hccl` for several cards."""
    if facts.cann_path is None or facts.cann_modules:
        return None
    fix = "source CANN's set_env.sh; if that is done, pip install the te-*.whl and hccl-*.whl of its lib64 folder"
    return Finding("warning", "CANN's Python modules `te` and `hccl` are not found", fix)


def check_rank_table_variable(facts: Facts) -> Finding | None:
    """msrun needs no rank table, and MindSpore leaves out its fused overflow check when one is set."""
    path = facts.environment.get("RANK_TABLE_FILE")
    if path is None:
        return None
    problem = "RANK_TABLE_FILE is set: MindSpore leaves out its fused overflow check, and msrun needs no rank table"
    if not Path(path).is_file():
        problem = f"RANK_TABLE_FILE names no file ({path})"
    return Finding("warning", problem, "unset RANK_TABLE_FILE, unless your cluster demands it")


def check_overflow_mode(facts: Facts) -> Finding | None:
    """Atlas A2 cards support INFNAN_MODE only."""
    mode = facts.environment.get("MS_ASCEND_CHECK_OVERFLOW_MODE")
    if mode in (None, "INFNAN_MODE"):
        return None
    problem = f"MS_ASCEND_CHECK_OVERFLOW_MODE={mode}: Atlas A2 cards (910B) support INFNAN_MODE only"
    return Finding("warning", problem, "unset MS_ASCEND_CHECK_OVERFLOW_MODE, unless the cards are 910A")


def check_leftover_ranks(facts: Facts) -> Finding | None:
    """Outside a launcher these variables make one process wait for others."""
    names = [name for name in ("MS_ROLE", "RANK_ID", "RANK_SIZE") if name in facts.environment]
    if not names:
        return None
    problem = f"{', '.join(names)} set in this shell: a single run takes itself for a part of a distributed one"
    return Finding("warning", problem, f"unset {' '.join(names)}")


def check_msrun(facts: Facts) -> Finding | None:
    """Several cards need msrun."""
    if facts.msrun is not None or facts.msrun_beside or not facts.mindspore_packages:
        return None
    return Finding("warning", "`msrun` is not found: no run on several cards", "reinstall MindSpore")


def check_python_on_path(facts: Facts) -> Finding | None:
    """A bare `msrun` starts the `python` that PATH finds first, whatever interpreter msrun itself belongs to."""
    if facts.msrun is None and not facts.msrun_beside:
        return None
    if facts.path_python is not None and _same_folder(facts.path_python, facts.executable):
        return None
    found = "no `python`" if facts.path_python is None else facts.path_python
    problem = f"PATH finds {found}, and a bare `msrun` would use it instead of {facts.executable}"
    return Finding("warning", problem, "activate the environment; run/run_distribute_train.sh does it by itself")


def check_encoding(facts: Facts) -> Finding | None:
    """Chinese answers need a terminal that can show them."""
    if facts.encoding.replace("-", "").replace("_", "") == "utf8":
        return None
    return Finding("warning", f"standard output is {facts.encoding}, not UTF-8", "export PYTHONUTF8=1")


def check_threads(facts: Facts) -> Finding | None:
    """One OpenMP thread makes training on a CPU slow."""
    if facts.environment.get("OMP_NUM_THREADS") != "1" or facts.cores == 1 or "Ascend" in facts.probe.devices:
        return None
    return Finding("warning", "OMP_NUM_THREADS=1: training on the CPU uses one core", "unset OMP_NUM_THREADS")


def check_resources(facts: Facts) -> Finding | None:
    """The shipped demo needs about 3 GiB of memory and 1 GiB of disk."""
    short = []
    if facts.memory_gib < 3.5:
        short.append(f"{facts.memory_gib:.1f} GiB of memory")
    if facts.disk_gib < 1:
        short.append(f"{facts.disk_gib:.1f} GiB of free disk")
    return (
        Finding("warning", f"only {' and '.join(short)}", "use a larger machine or another folder") if short else None
    )


def check_few_rows(facts: Facts) -> Finding | None:
    """Without the kernels, the tokens of an answer on a CPU take half as long again or more."""
    if facts.few_rows or facts.probe.devices.keys() - {"CPU"}:
        return None
    problem = "the kernels that make answers on a CPU faster were not compiled, or were for another version"
    return Finding("warning", problem, "install a C++ compiler with OpenMP (g++), then ms_medqa again")


CHECKS: tuple[Check, ...] = tuple(value for name, value in list(globals().items()) if name.startswith("check_"))


def _unless_cpu(facts: Facts) -> Literal["broken", "warning"]:
    """Trouble with the cards stops nobody who has asked for the CPU."""
    return "warning" if facts.environment.get("DEVICE_TARGET") == "CPU" else "broken"


def _same_folder(left: str, right: str) -> bool:
    return os.path.realpath(os.path.dirname(left)) == os.path.realpath(os.path.dirname(right))


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)) or (0,)


def _major_minor(version: str) -> str:
    return ".".join(map(str, _numbers(version)[:2]))


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")
