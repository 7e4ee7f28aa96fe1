"""Rows of one batch with different adapters: each answers as a model of its own would."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tiny
from safetensors.numpy import load_file, save_file

from ms_medqa.config import UserError
from ms_medqa.generation import SamplingParams, generate, load_model
from ms_medqa.generation.request import Request
from ms_medqa.generation.scheduler import Scheduler
from ms_medqa.models.cache import CachedDecoder
from ms_medqa.models.row_adapters import RowAdapters
from ms_medqa.peft.rows import load_row_adapters

GREEDY = SamplingParams(temperature=0, repetition_penalty=1.0)
PROMPT = list(range(20, 60))
NEW = 10


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters of unlike ranks, the second of which leaves layer 0 alone."""
    place = tmp_path_factory.mktemp("adapters")
    first, second = tiny.write_adapter(place / "first"), tiny.write_adapter(place / "second", seed=2)
    config = json.loads((second / "adapter_config.json").read_text(encoding="utf-8"))
    changes = {"r": 2, "lora_alpha": 6, "layers_to_transform": [1]}
    (second / "adapter_config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
    path = second / "adapter_model.safetensors"
    kept = {name: value for name, value in load_file(path).items() if ".layers.1." in name}
    halves = {name: value[:2] if "lora_A" in name else value[:, :2] for name, value in kept.items()}
    save_file({name: np.ascontiguousarray(value) for name, value in halves.items()}, path)
    return {"first": first, "second": second}


@pytest.fixture(scope="module")
def adapters(folders: dict[str, Path]) -> RowAdapters:
    """Both beside the model that all tests share."""
    return load_row_adapters(tiny.model(), folders)


@pytest.fixture(scope="module")
def expected(folders: dict[str, Path]) -> dict[str | None, list[int]]:
    """The answer of a model of its own for each adapter, and of the base."""
    models = {None: tiny.model(), **{name: load_model(tiny.folder(), folder) for name, folder in folders.items()}}
    options = {"max_new_tokens": NEW, "greedy": True, "eos_token_id": []}
    return {name: generate(model, [PROMPT], **options)[0] for name, model in models.items()}


def test_each_row_answers_with_its_own(adapters: RowAdapters, expected: dict[str | None, list[int]]) -> None:
    assert len({tuple(answer) for answer in expected.values()}) == 3
    batch = Scheduler(tiny.model(), 4, adapters)
    names = ["second", None, "first", "second"]
    running = [batch.add(Request(PROMPT, GREEDY, NEW, adapter=name)) for name in names]
    while batch.running:
        batch.step()
    assert [one.tokens for one in running] == [expected[name] for name in names]
    # A common start is of use only to the same adapter: keys and values are another's otherwise.
    assert [one.shared for one in running] == [0, 0, 0, len(PROMPT) - 1]


def test_prompts_that_are_read_together_have_an_adapter_each(
    adapters: RowAdapters, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = {"second": PROMPT[:20], None: PROMPT[5:30], "first": PROMPT[7:40]}
    options = {"max_new_tokens": NEW, "greedy": True, "eos_token_id": []}
    models = {None: tiny.model(), **{name: load_model(tiny.folder(), folder) for name, folder in folders.items()}}
    expected = [generate(models[name], [tokens], **options)[0] for name, tokens in prompts.items()]
    batch = Scheduler(tiny.model(), 4, adapters)
    running = [batch.add(Request(tokens, GREEDY, NEW, adapter=name)) for name, tokens in prompts.items()]
    # All in one piece.
    monkeypatch.setattr(CachedDecoder, "read", None)
    while batch.running:
        batch.step()
    assert [one.tokens for one in running] == expected


def test_the_model_itself_stays_as_it_is(folders: dict[str, Path]) -> None:
    model = load_model(tiny.folder())
    before = {parameter.name: parameter.asnumpy().copy() for parameter in model.get_parameters()}
    options = {"max_new_tokens": NEW, "greedy": True, "eos_token_id": []}
    expected = generate(model, [PROMPT], **options)
    batch = Scheduler(model, 2, load_row_adapters(model, folders))
    for name in folders:
        batch.add(Request(PROMPT, GREEDY, NEW, adapter=name))
    while batch.running:
        batch.step()
    after = {parameter.name: parameter.asnumpy() for parameter in model.get_parameters()}
    assert after.keys() == before.keys()
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value)
    assert generate(model, [PROMPT], **options) == expected


def test_an_unknown_adapter_is_refused(adapters: RowAdapters) -> None:
    for batch in (Scheduler(tiny.model(), 1, adapters), Scheduler(tiny.model(), 1)):
        with pytest.raises(UserError, match="no adapter 'third'"):
            batch.add(Request(PROMPT, GREEDY, 1, adapter="third"))


def test_an_adapter_with_whole_modules_is_refused(tmp_path: Path) -> None:
    folder = tiny.write_adapter(tmp_path / "adapter")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    (folder / "adapter_config.json").write_text(json.dumps({**config, "modules_to_save": ["norm"]}), encoding="utf-8")
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), "base_model.model.model.norm.weight": np.ones(64, np.float32)}, path)
    with pytest.raises(UserError, match=r"holds model.norm.weight whole.*merge"):
        load_row_adapters(tiny.model(), {"whole": folder})
