"""What this machine has: versions, devices, CANN, resources, and whether MindSpore can compute."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from ms_medqa.backend.cores import cores_here
from ms_medqa.backend.few_rows_library import library

_PACKAGES = (
    "ms_medqa",
    "mindspore",
    "numpy",
    "tokenizers",
    "safetensors",
    "pydantic",
    "pandas",
    "scikit-learn",
    "openpyxl",
    "pyarrow",
    "protobuf",
)
_VARIABLES = (
    "ASCEND_HOME_PATH",
    "ASCEND_RT_VISIBLE_DEVICES",
    "DEVICE_ID",
    "DEVICE_TARGET",
    "LD_LIBRARY_PATH",
    "MS_ASCEND_CHECK_OVERFLOW_MODE",
    "MS_ROLE",
    "OMP_NUM_THREADS",
    "RANK_ID",
    "RANK_SIZE",
    "RANK_TABLE_FILE",
)
_CANN_FOLDERS = ("/usr/local/Ascend/cann", "/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/latest")
PROBE_SECONDS = 180


@dataclass(frozen=True)
class Probe:
    """How far a tiny MindSpore computation in its own process came.

    Attributes:
        import_error: why `import mindspore` failed, or None.
        devices: number of cards of each device that MindSpore can use; empty if it did not come so far.
        modes: `graph` and `pynative` -> error, or None where the product was right.
        crash: how the process ended if not by itself, or None.
        plugin_error: what MindSpore says when it cannot load its Ascend part, or None.
    """

    import_error: str | None = None
    devices: Mapping[str, int] = field(default_factory=dict)
    modes: Mapping[str, str | None] = field(default_factory=dict)
    crash: str | None = None
    plugin_error: str | None = None

    @property
    def works(self) -> bool:
        """Both modes gave the right product."""
        return self.crash is None and len(self.modes) == 2 and not any(self.modes.values())


@dataclass(frozen=True)
class Facts:
    """Everything that the checks look at. The defaults describe a sound machine without an Ascend.

    Attributes:
        versions: distribution -> version, None where it is not installed.
        mindspore_packages: installed distributions that bring a `mindspore` module.
        unmet: requirements of ms_medqa and MindSpore that do not hold, one line each.
        cann_version: as CANN's own file says, such as `8.5.0`; None without CANN.
        cann_modules: whether CANN's Python modules `te` and `hccl` can be found.
        cards: `/dev/davinciN` -> whether this user may open it.
        environment: the environment variables that matter.
        memory_gib, disk_gib: main memory; free space in the working folder.
        msrun, path_python: what `msrun` and `python` on PATH are; None where there is none.
        msrun_beside: whether the interpreter's own folder holds msrun.
        few_rows: whether the kernels for answers on a CPU were compiled at installation.
    """

    python: str = "3.11.0"
    executable: str = "python"
    versions: Mapping[str, str | None] = field(default_factory=dict)
    mindspore_packages: tuple[str, ...] = ("mindspore",)
    unmet: tuple[str, ...] = ()
    probe: Probe = Probe(devices={"CPU": 1}, modes={"graph": None, "pynative": None})
    cann_path: str | None = None
    cann_version: str | None = None
    cann_modules: bool = True
    driver_version: str | None = None
    npu_smi: str | None = None
    npu_info: str | None = None
    cards: Mapping[str, bool] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    cores: int = 2
    memory_gib: float = 16.0
    disk_gib: float = 100.0
    msrun: str | None = None
    msrun_beside: bool = True
    path_python: str | None = None
    encoding: str = "utf-8"
    few_rows: bool = True


def gather() -> Facts:
    """Look at this machine. Takes a few seconds: MindSpore is started once, in another process."""
    cann = _cann_folder()
    npu_smi = shutil.which("npu-smi")
    # abspath and not resolve: the python of a virtual environment is a link, and its folder is what matters.
    folder = Path(os.path.abspath(sys.executable)).parent
    return Facts(
        python=platform.python_version(),
        executable=sys.executable,
        versions={name: _version(name) for name in _PACKAGES},
        mindspore_packages=tuple(sorted(set(metadata.packages_distributions().get("mindspore", [])))),
        unmet=unmet_requirements(),
        probe=run_probe(),
        cann_path=None if cann is None else str(cann),
        cann_version=None if cann is None else cann_version(cann),
        cann_modules=all(importlib.util.find_spec(name) is not None for name in ("te", "hccl")),
        driver_version=_field(Path("/usr/local/Ascend/driver/version.info"), "Version"),
        npu_smi=npu_smi,
        npu_info=None if npu_smi is None else _output([npu_smi, "info"]),
        cards={str(p): os.access(p, os.R_OK | os.W_OK) for p in sorted(Path("/dev").glob("davinci[0-9]*"))},
        environment={name: os.environ[name] for name in _VARIABLES if name in os.environ},
        cores=cores_here(),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        disk_gib=shutil.disk_usage(Path.cwd()).free / 2**30,
        msrun=shutil.which("msrun"),
        msrun_beside=(folder / "msrun").exists(),
        path_python=shutil.which("python"),
        encoding=(sys.stdout.encoding or "ascii").lower(),
        few_rows=library() is not None,
    )


def summary(facts: Facts) -> list[tuple[str, str]]:
    """The rows of the doctor's table: (what, value)."""
    devices = ", ".join(f"{name} x {n}" if n > 1 else name for name, n in facts.probe.devices.items())
    rows = [("python", f"{facts.python} ({facts.executable})")]
    rows += [(name, version or "not installed") for name, version in facts.versions.items()]
    rows += [
        ("devices", devices or "none that MindSpore can use"),
        ("CANN", f"{facts.cann_version or 'version unknown'} ({facts.cann_path})" if facts.cann_path else "none"),
        ("NPU driver", facts.driver_version or "none"),
        ("NPU cards", ", ".join(facts.cards) or "none"),
        ("npu-smi", facts.npu_smi or "not found (it comes with the NPU driver)"),
        ("msrun", facts.msrun or ("beside the interpreter" if facts.msrun_beside else "not found")),
        ("machine", f"{facts.cores} cores, {facts.memory_gib:.0f} GiB memory, {facts.disk_gib:.0f} GiB free here"),
    ]
    rows.append(("answers on a CPU", "with compiled kernels" if facts.few_rows else "without compiled kernels"))
    for mode in ("graph", "pynative"):
        error = facts.probe.modes.get(mode, "did not run")
        rows.append((f"{mode} mode", "works" if error is None else "fails" if mode in facts.probe.modes else error))
    return rows


def run_probe(executable: str = sys.executable, seconds: float = PROBE_SECONDS) -> Probe:
    """Run `ms_medqa.launch.probe` in another process and read how far it came."""
    package_parent = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package_parent, os.environ.get("PYTHONPATH", "")]))
    # Level 2 makes MindSpore say why it cannot load its Ascend part.
    environment = {**os.environ, "PYTHONPATH": path, "GLOG_v": "2"}
    crash, stdout, stderr = None, "", ""
    try:
        done = subprocess.run(
            [executable, "-m", "ms_medqa.launch.probe"],
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
        stdout, stderr = done.stdout, done.stderr
        if done.returncode < 0:
            crash = f"killed by signal {-done.returncode}"
        elif done.returncode and '"import_error"' not in stdout:
            crash = f"exit status {done.returncode}"
    except subprocess.TimeoutExpired as error:
        crash = f"no result in {seconds:.0f} s"
        stdout = error.stdout.decode() if isinstance(error.stdout, bytes) else error.stdout or ""
    reports = [json.loads(line) for line in stdout.splitlines() if line.startswith("{")]
    merged = {key: value for report in reports if "mode" not in report for key, value in report.items()}
    missing = re.search(r"lib\w+\.so[.\d]*: cannot open shared object file", stderr)
    return Probe(
        import_error=merged.get("import_error"),
        devices=merged.get("devices", {}),
        modes={report["mode"]: report["error"] for report in reports if "mode" in report},
        crash=crash,
        plugin_error=missing.group(0) if missing else None,
    )


def unmet_requirements() -> tuple[str, ...]:
    """Requirements of ms_medqa and MindSpore that the installed packages do not meet, one line each."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return ("mindspore needs packaging, which is not installed",)
    unmet = []
    for owner in ("ms_medqa", "mindspore"):
        try:
            texts = metadata.requires(owner) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, texts):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
                continue
            version = _version(requirement.name)
            if version is None or not requirement.specifier.contains(version, prereleases=True):
                unmet.append(f"{owner} needs {requirement.name}{requirement.specifier}, found {version or 'none'}")
    return tuple(unmet)


def cann_version(folder: Path) -> str | None:
    """CANN's version as its own files give it, or None."""
    for path in sorted(folder.glob("*/ascend_toolkit_install.info")):
        if version := _field(path, "version"):
            return version
    return _field(folder / "compiler" / "version.info", "Version") or _field(folder / "version.cfg", "version")


def _cann_folder() -> Path | None:
    named = os.environ.get("ASCEND_HOME_PATH")
    candidates = [Path(named)] if named else []
    candidates += [Path(folder) for folder in _CANN_FOLDERS]
    return next((folder for folder in candidates if folder.is_dir()), None)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _field(path: Path, name: str) -> str | None:
    """The value of a `name=value` line, without brackets around it; None when file or line is absent."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    match = re.search(rf"^{name}=\[?([^\]\s]+)", text, re.MULTILINE)
    return match.group(1) if match else None


def _output(command: list[str]) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
