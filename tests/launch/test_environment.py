"""Facts about this machine, and the probe that runs MindSpore."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ms_medqa.launch.environment import Facts, Probe, cann_version, gather, run_probe, summary


@pytest.fixture(scope="module")
def facts():
    # A target that is not here must not hide what is.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEVICE_TARGET", "TPU")
        return gather()


def test_mindspore_computes_here(facts):
    assert facts.probe.works, facts.probe
    assert facts.probe.devices["CPU"] == 1


def test_facts_are_those_of_this_interpreter(facts):
    import numpy

    assert facts.python == ".".join(map(str, sys.version_info[:3]))
    assert facts.versions["numpy"] == numpy.__version__
    assert facts.mindspore_packages == ("mindspore",)
    assert facts.cores >= 1
    assert facts.memory_gib > 0.5


def test_the_table_has_a_row_for_what_matters(facts):
    rows = dict(summary(facts))
    assert rows["graph mode"] == rows["pynative mode"] == "works"
    assert "CPU" in rows["devices"]


def test_the_table_tells_several_cards_and_a_failed_mode():
    probe = Probe(devices={"Ascend": 8, "CPU": 1}, modes={"graph": "RuntimeError: x"})
    rows = dict(summary(Facts(probe=probe, cann_path="/cann", cann_version="8.5.0")))
    assert rows["devices"] == "Ascend x 8, CPU"
    assert rows["graph mode"] == "fails"
    assert rows["pynative mode"] == "did not run"
    assert rows["CANN"] == "8.5.0 (/cann)"


def _fake_interpreter(folder: Path, body: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_a_probe_that_crashes_half_way_shows_how_far_it_came(tmp_path):
    body = """echo '{"devices": {"CPU": 1}}'; echo '{"mode": "graph", "error": null}'; kill -11 $$"""
    probe = run_probe(_fake_interpreter(tmp_path, body))
    assert probe.devices == {"CPU": 1}
    assert probe.modes == {"graph": None}
    assert probe.crash == "killed by signal 11"
    assert not probe.works


def test_a_probe_that_hangs_is_ended(tmp_path):
    probe = run_probe(_fake_interpreter(tmp_path, "exec sleep 60"), seconds=0.3)
    assert probe.crash == "no result in 0 s"


def test_a_failed_import_is_told(tmp_path):
    probe = run_probe(_fake_interpreter(tmp_path, """echo '{"import_error": "ImportError: x"}'; exit 1"""))
    assert probe.import_error == "ImportError: x"
    assert probe.crash is None


@pytest.mark.parametrize(
    ("name", "text", "version"),
    [
        ("aarch64-linux/ascend_toolkit_install.info", "package_name=Ascend-cann-toolkit\nversion=8.2.RC1\n", "8.2.RC1"),
        ("compiler/version.info", "Version=8.5.0\nversion_dir=cann\n", "8.5.0"),
        ("version.cfg", "# version: 1.0\nversion=[8.3.RC1]\n", "8.3.RC1"),
    ],
)
def test_cann_version_from_each_of_its_files(tmp_path, name, text, version):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    assert cann_version(tmp_path) == version


def test_cann_without_a_version_file(tmp_path):
    assert cann_version(tmp_path) is None
