"""Which models a command line names, and what each is compared with."""

from __future__ import annotations

from pathlib import Path

import pytest

from ms_medqa.config import UserError
from ms_medqa.evaluation.contestants import contestants

DEFAULT = "medqa-tiny"


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("m", "n", "run-a/adapter", "run-b/adapter"):
        Path(name).mkdir(parents=True)


def told(*named: tuple[str, str], base: bool = False) -> list[tuple[str, str, str | None, str | None]]:
    return [(one.name, one.model, one.adapter, one.base) for one in contestants(named, DEFAULT, base)]


def test_a_model_alone_and_an_adapter_alone() -> None:
    assert told() == [("model", DEFAULT, None, None)]
    assert told(("adapter", "a")) == [("tuned", DEFAULT, "a", None)]


@pytest.mark.usefixtures("folders")
def test_the_base_comes_first_and_once_for_all_adapters() -> None:
    assert told(("model", "m"), ("adapter", "run-a/adapter"), base=True) == [
        ("base", "m", None, None),
        ("tuned", "m", "run-a/adapter", "base"),
    ]
    assert told(("model", "m"), ("adapter", "run-a/adapter"), ("adapter", "run-b/adapter"), base=True) == [
        ("base", "m", None, None),
        ("run-a", "m", "run-a/adapter", "base"),
        ("run-b", "m", "run-b/adapter", "base"),
    ]


@pytest.mark.usefixtures("folders")
def test_adapters_with_different_prompts_have_a_base_each() -> None:
    Path("run-b/adapter/prompt.json").write_text("{}")
    found = contestants([("model", "m"), ("adapter", "run-a/adapter"), ("adapter", "run-b/adapter")], DEFAULT, True)
    assert [(one.name, one.base, one.prompt_of) for one in found] == [
        ("base", None, "run-a/adapter"),
        ("run-a", "base", "run-a/adapter"),
        ("base (2)", None, "run-b/adapter"),
        ("run-b", "base (2)", "run-b/adapter"),
    ]


@pytest.mark.usefixtures("folders")
def test_pairs_of_models_and_adapters_are_compared_with_their_own_base_or_the_first() -> None:
    named = [("model", "m"), ("adapter", "x=run-a/adapter"), ("model", "n"), ("adapter", "run-b/adapter")]
    assert told(*named, base=True) == [
        ("base m", "m", None, None),
        ("x", "m", "run-a/adapter", "base m"),
        ("base n", "n", None, None),
        ("run-b", "n", "run-b/adapter", "base n"),
    ]
    assert told(*named) == [("x", "m", "run-a/adapter", None), ("run-b", "n", "run-b/adapter", "x")]
    # A model that is named by itself is the base of its adapters.
    assert told(("model", "m"), ("model", "m"), ("adapter", "run-a/adapter")) == [
        ("m", "m", None, None),
        ("run-a", "m", "run-a/adapter", "m"),
    ]


@pytest.mark.usefixtures("folders")
def test_a_model_keeps_its_name_as_a_base() -> None:
    assert told(("model", "big=m"), ("adapter", "run-a/adapter"), base=True) == [
        ("big", "m", None, None),
        ("tuned", "m", "run-a/adapter", "big"),
    ]


@pytest.mark.usefixtures("folders")
def test_what_cannot_be_told_apart_or_compared_is_refused() -> None:
    with pytest.raises(UserError, match="two models are called 'run-a'"):
        told(("adapter", "run-a/adapter"), ("adapter", "run-a/adapter"))
    with pytest.raises(UserError, match="compare-base"):
        told(("model", "m"), base=True)
    with pytest.raises(UserError, match="before the first --model"):
        told(("adapter", "run-a/adapter"), ("model", "m"))
