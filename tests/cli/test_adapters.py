"""What `--adapter` may look like."""

from __future__ import annotations

from pathlib import Path

import pytest

from ms_medqa.cli.adapters import any_adapters, named_adapters
from ms_medqa.config import UserError


def test_names_and_folders() -> None:
    assert named_adapters(["a=x/y", "b.2=~/z=1"]) == {"a": "x/y", "b.2": "~/z=1"}
    assert any_adapters(["a=x", "b=y"]) == ({"a": "x", "b": "y"}, True)
    assert any_adapters([]) == ({}, True)


def test_a_folder_alone_has_its_own_name() -> None:
    assert any_adapters(["out/tuned"]) == ({"tuned": "out/tuned"}, False)
    assert any_adapters(["a=x", "out/tuned/"]) == ({"a": "x", "tuned": "out/tuned/"}, False)


def test_an_equals_sign_in_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Where no such folder exists, what stands before the sign is a name, unless it cannot be one.
    assert any_adapters(["lr=1/adapter"]) == ({"lr": "1/adapter"}, True)
    assert any_adapters(["./lr=1/adapter", "runs/lr=2"]) == ({"adapter": "./lr=1/adapter", "lr=2": "runs/lr=2"}, False)
    (tmp_path / "lr=1" / "adapter").mkdir(parents=True)
    assert any_adapters(["lr=1/adapter"]) == ({"adapter": "lr=1/adapter"}, False)
    assert any_adapters(["lr=./1/adapter"]) == ({"lr": "./1/adapter"}, True)
    assert any_adapters([f"a={tmp_path}/lr=1/adapter"]) == ({"a": f"{tmp_path}/lr=1/adapter"}, True)


@pytest.mark.parametrize("arguments", [["a=x", "a=y"], ["x/a", "y/a"]])
def test_a_name_is_given_once(arguments: list[str]) -> None:
    with pytest.raises(UserError, match=r"name a is taken.*NAME=DIR"):
        any_adapters(arguments)


def test_a_server_wants_names() -> None:
    with pytest.raises(UserError, match="not of the form NAME=DIR"):
        named_adapters(["out/tuned"])
