"""Several adapters beside one model: each question chooses one, or none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from ms_medqa import MedicalQA, load_model
from ms_medqa.config import UserError
from ms_medqa.config.schema import GenerateSection
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.generation.batch import answer_file, read_requests
from ms_medqa.generation.opening import open_comparable
from ms_medqa.generation.session import Session

GREEDY = GenerateSection(temperature=0, max_new_tokens=8, batch_size=4)
QUESTION, CONTEXT = "头痛怎么办？", "多休息，多喝水。"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters, the second with a prompt of its own."""
    place = tmp_path_factory.mktemp("adapters")
    first, second = tiny.write_adapter(place / "first"), tiny.write_adapter(place / "second", seed=2)
    Prompt.named("alpaca", Tokenizer.load(tiny.folder())).save(second)
    return {"first": first, "second": second}


@pytest.fixture(scope="module")
def qa(folders: dict[str, Path]) -> MedicalQA:
    """Both beside the model that all tests share."""
    return MedicalQA(tiny.model(), adapters=folders, settings=GREEDY)


@pytest.fixture(scope="module")
def alone(folders: dict[str, Path]) -> dict[str | None, str]:
    """What a model of its own answers for each adapter, and the base."""
    tiny.model()
    answers = {
        name: MedicalQA(load_model(tiny.folder(), folder), settings=GREEDY, prompt=_prompt(folder)).answer(
            QUESTION, CONTEXT
        )
        for name, folder in folders.items()
    }
    return {None: tiny.qa().answer(QUESTION, CONTEXT, settings=GREEDY), **answers}


def _prompt(folder: Path) -> Prompt:
    name = "alpaca" if folder.name == "second" else "medqa"
    return Prompt.named(name, Tokenizer.load(tiny.folder()))


def test_each_question_is_answered_by_the_adapter_it_names_with_that_ones_prompt(
    qa: MedicalQA, alone: dict[str | None, str]
) -> None:
    assert qa.adapters == ("first", "second")
    assert len(set(alone.values())) == 3
    assert {name: qa.answer(QUESTION, CONTEXT, adapter=name) for name in alone} == alone
    assert "".join(qa.stream(QUESTION, CONTEXT, adapter="second")) == alone["second"]
    assert qa.answer_batch([QUESTION] * 2, [CONTEXT] * 2, adapter="first") == [alone["first"]] * 2
    assert "### Input:" in qa.tokenizer.decode(qa.encode(QUESTION, CONTEXT, adapter="second"))


def test_an_unknown_adapter_is_named_with_those_that_there_are(qa: MedicalQA) -> None:
    with pytest.raises(UserError, match=r"no adapter 'third': there are: first, second"):
        qa.answer(QUESTION, adapter="third")
    with pytest.raises(UserError, match=r"no adapter 'third': none was loaded"):
        tiny.qa().answer(QUESTION, adapter="third")


def test_one_inside_and_several_beside_exclude_each_other(folders: dict[str, Path]) -> None:
    with pytest.raises(UserError, match="exclude"):
        MedicalQA(tiny.model(), folders["first"], adapters=folders)
    with pytest.raises(UserError, match="no such folder"):
        MedicalQA("no-such-model", adapters={"a": "no-such-adapter"})


def test_records_of_a_file_choose(qa: MedicalQA, alone: dict[str | None, str], tmp_path: Path) -> None:
    choices: list[dict[str, Any]] = [{}, {"adapter": "second"}, {"adapter": None}, {"adapter": "third"}, {"adapter": 3}]
    lines = [json.dumps({"question": QUESTION, "context": CONTEXT, **choice}) for choice in choices]
    (tmp_path / "in.jsonl").write_text("\n".join(lines), encoding="utf-8")
    requests = read_requests(tmp_path / "in.jsonl", qa, GREEDY, "first")
    assert answer_file(qa, requests, tmp_path / "out.jsonl", GREEDY) == (3, 2)
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line.get("answer") for line in out[:3]] == [alone["first"], alone["second"], alone[None]]
    assert [line.get("adapter", "absent") for line in out[:3]] == ["absent", "second", None]
    assert "no adapter 'third'" in out[3]["error"]
    assert "'adapter' must be a string" in out[4]["error"]


def test_a_dialogue_changes_adapters_and_compares_with_the_base(qa: MedicalQA, alone: dict[str | None, str]) -> None:
    session = Session(qa, GREEDY, CONTEXT, adapter="first", note=print)
    with pytest.raises(UserError, match="no question"):
        session.ask_base()
    assert "".join(session.ask(QUESTION)) == alone["first"]
    turn, base = session.ask_base()
    assert turn.answer == alone["first"]
    assert "".join(base) == alone[None]
    assert len(session.turns) == 1
    session.adapter = None
    "".join(session.ask(QUESTION))
    with pytest.raises(UserError, match="already"):
        session.ask_base()


def test_an_adapter_with_whole_modules_is_put_inside_and_the_base_loaded_when_it_is_asked(tmp_path: Path) -> None:
    folder = tiny.write_adapter(tmp_path / "whole")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps({**config, "modules_to_save": ["norm"]}), encoding="utf-8")
    path = folder / "adapter_model.safetensors"
    norm = np.linspace(-1, 1, 64, dtype=np.float32)
    save_file({**load_file(path), "base_model.model.model.norm.weight": norm}, path)
    notes: list[str] = []
    opened, load_base = open_comparable(
        tiny.folder(), folder, "whole", settings=GREEDY, merge=True, dtype="auto", note=notes.append
    )
    assert len(notes) == 1
    session = Session(opened, GREEDY, note=notes.append, load_base=load_base)
    tuned = "".join(session.ask(QUESTION))
    answers = ["".join(session.ask_base()[1]) for _ in range(2)]
    assert answers == [tiny.qa().answer(QUESTION, settings=GREEDY)] * 2
    assert tuned != answers[0]
    assert notes[1:] == ["loading the base model, beside the one with the adapter …"]
