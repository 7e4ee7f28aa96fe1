"""Every trap is found from its facts, and a sound machine has none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ms_medqa.launch.checks import CHECKS, diagnose
from ms_medqa.launch.environment import Facts, Probe

SOUND = Facts(
    python="3.11.7",
    executable="/venv/bin/python",
    versions={"mindspore": "2.10.0", "numpy": "1.26.4"},
    path_python="/venv/bin/python",
)
ATLAS = replace(
    SOUND,
    probe=Probe(devices={"Ascend": 8, "CPU": 1}, modes={"graph": None, "pynative": None}),
    cann_path="/usr/local/Ascend/ascend-toolkit/latest",
    cann_version="8.5.0",
    driver_version="25.5.0",
    npu_smi="/usr/local/bin/npu-smi",
    cards={f"/dev/davinci{n}": True for n in range(8)},
    environment={
        "ASCEND_HOME_PATH": "/usr/local/Ascend/ascend-toolkit/latest",
        "LD_LIBRARY_PATH": "/usr/local/Ascend/ascend-toolkit/latest/lib64",
    },
)
CPU_ONLY = Probe(devices={"CPU": 1}, modes={"graph": None, "pynative": None})

# (machine, what is different, level, word of the problem, word of the fix)
TRAPS = [
    (SOUND, {"python": "3.9.18"}, "broken", "Python 3.9.18", "3.10"),
    (SOUND, {"python": "3.13.0"}, "broken", "Python 3.13.0", "3.12"),
    (SOUND, {"versions": {"mindspore": "2.10.0", "numpy": "2.1.0"}}, "broken", "NumPy 2.1.0", "numpy<2"),
    (SOUND, {"versions": {"mindspore": None}, "mindspore_packages": ()}, "broken", "not installed", "mindspore>="),
    (SOUND, {"versions": {"mindspore": "2.6.0"}}, "broken", "2.6.0", "mindspore>=2.7.1"),
    (SOUND, {"versions": {"mindspore": "2.11.0"}}, "broken", "2.11.0", "<2.11"),
    (SOUND, {"mindspore_packages": ("mindspore", "mindspore-dev")}, "broken", "mindspore-dev", "uninstall"),
    (SOUND, {"probe": Probe(import_error="ImportError: no libgomp\n  more")}, "broken", "no libgomp", "reinstall"),
    (
        SOUND,
        {"probe": Probe(devices={"CPU": 1}, modes={"graph": "RuntimeError: x", "pynative": None})},
        "broken",
        "graph mode: RuntimeError",
        "probe",
    ),
    (SOUND, {"probe": Probe(crash="killed by signal 11")}, "broken", "signal 11", "probe"),
    (SOUND, {"unmet": ("mindspore needs protobuf>=7.34, found 3.20",)}, "warning", "protobuf", "install"),
    (SOUND, {"unmet": ("ms_medqa needs numpy<2,>=1.25, found 1.24.4",)}, "warning", "numpy", "install"),
    (SOUND, {"environment": {"DEVICE_TARGET": "Ascend"}}, "broken", "DEVICE_TARGET=Ascend", "unset DEVICE_TARGET"),
    (SOUND, {"environment": {"RANK_ID": "3"}}, "warning", "RANK_ID", "unset RANK_ID"),
    (SOUND, {"environment": {"OMP_NUM_THREADS": "1"}}, "warning", "OMP_NUM_THREADS", "unset"),
    (SOUND, {"environment": {"RANK_TABLE_FILE": "/none.json"}}, "warning", "/none.json", "unset RANK_TABLE_FILE"),
    (SOUND, {"environment": {"RANK_TABLE_FILE": __file__}}, "warning", "overflow", "unset RANK_TABLE_FILE"),
    (SOUND, {"msrun_beside": False}, "warning", "msrun", "reinstall"),
    (SOUND, {"path_python": "/usr/bin/python"}, "warning", "/usr/bin/python", "activate"),
    (SOUND, {"path_python": None}, "warning", "no `python`", "activate"),
    (SOUND, {"encoding": "ascii"}, "warning", "ascii", "PYTHONUTF8"),
    (SOUND, {"few_rows": False}, "warning", "not compiled", "g++"),
    (SOUND, {"memory_gib": 2.0}, "warning", "2.0 GiB of memory", "larger"),
    (SOUND, {"disk_gib": 0.2}, "warning", "0.2 GiB of free disk", "folder"),
    (ATLAS, {"npu_smi": None}, "warning", "CANN is installed, but there is no `npu-smi`", "driver"),
    (ATLAS, {"cards": {}, "probe": CPU_ONLY}, "warning", "/dev/davinci", "--device"),
    (ATLAS, {"cann_version": "8.1.RC1", "driver_version": None}, "warning", "CANN 8.1.RC1", "9.1"),
    (ATLAS, {"driver_version": "25.2.0"}, "warning", "driver 25.2.0", "25.5.0"),
    (ATLAS, {"cann_modules": False}, "warning", "te", "set_env.sh"),
    (ATLAS, {"cards": {"/dev/davinci0": False}}, "broken", "/dev/davinci0", "HwHiAiUser"),
    (ATLAS, {"probe": replace(CPU_ONLY, plugin_error="libge_runner.so: cannot open")}, "broken", "libge", "set_env.sh"),
    (
        ATLAS,
        {"environment": {}},
        "broken",
        "environment is not set",
        "source /usr/local/Ascend/ascend-toolkit/set_env.sh",
    ),
    (
        ATLAS,
        {"environment": {}, "cann_path": "/usr/local/Ascend/cann"},
        "broken",
        "environment is not set",
        "source /usr/local/Ascend/cann/set_env.sh",
    ),
    (
        ATLAS,
        {"environment": {**ATLAS.environment, "MS_ASCEND_CHECK_OVERFLOW_MODE": "SATURATION_MODE"}},
        "warning",
        "INFNAN_MODE",
        "unset",
    ),
    (ATLAS, {"cann_path": None, "cann_version": None, "probe": CPU_ONLY}, "broken", "no CANN", "install the CANN"),
]


@pytest.mark.parametrize("facts", [SOUND, ATLAS], ids=["cpu", "atlas"])
def test_a_sound_machine_has_no_findings(facts):
    assert diagnose(facts) == []


@pytest.mark.parametrize(("machine", "difference", "level", "problem", "fix"), TRAPS)
def test_a_trap_is_found_with_its_fix(machine, difference, level, problem, fix):
    findings = diagnose(replace(machine, **difference))
    assert len(findings) == 1
    assert findings[0].level == level
    assert problem in findings[0].problem
    assert fix in findings[0].fix
    assert "\n" not in findings[0].problem + findings[0].fix


def test_every_check_is_tried_by_a_trap():
    tried = {check for machine, difference, *_ in TRAPS for check in CHECKS if check(replace(machine, **difference))}
    assert {check.__name__ for check in CHECKS} == {check.__name__ for check in tried}


def test_cards_without_npu_smi_and_without_cann():
    facts = replace(ATLAS, cann_path=None, cann_version=None, npu_smi=None, probe=CPU_ONLY)
    problems = [finding.problem for finding in diagnose(facts)]
    assert problems == ["8 NPU cards, but no CANN", "there are NPU cards, but there is no `npu-smi`"]


def test_what_has_a_finding_of_its_own_is_not_told_twice():
    unmet = ("ms_medqa needs numpy<2,>=1.25, found 2.1.0", "ms_medqa needs mindspore<2.11,>=2.7.1, found 2.6.0")
    facts = replace(SOUND, unmet=unmet, versions={"mindspore": "2.6.0", "numpy": "2.1.0"})
    assert len(diagnose(facts)) == 2


def test_trouble_with_cards_stops_nobody_who_wants_the_cpu():
    facts = replace(ATLAS, environment={"DEVICE_TARGET": "CPU"}, cards={"/dev/davinci0": False})
    assert {finding.level for finding in diagnose(facts)} == {"warning"}


def test_broken_things_come_first():
    facts = replace(SOUND, encoding="ascii", versions={"mindspore": "2.10.0", "numpy": "2.1.0"})
    assert [finding.level for finding in diagnose(facts)] == ["broken", "warning"]


@pytest.mark.parametrize("version", ["2.7.1", "2.7.1.post1", "2.7.2", "2.8.0", "2.9.0", "2.10.0"])
def test_released_versions_in_range_are_accepted(version):
    assert diagnose(replace(SOUND, versions={"mindspore": version, "numpy": "1.26.4"})) == []
