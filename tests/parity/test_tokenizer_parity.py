"""The same ids as transformers, on real text, for real tokenizers and for one trained here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.data.train_tokenizer import train_tokenizer

transformers = pytest.importorskip("transformers", reason="parity with transformers needs transformers")
pytestmark = pytest.mark.parity


@pytest.fixture(scope="module")
def records(shared_data: Path) -> list[dict[str, str]]:
    path = shared_data / "huatuo_llama" / "llama_data.json"
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()][::8]


@pytest.fixture(scope="module")
def texts(records: list[dict[str, str]], shared_data: Path) -> list[str]:
    dialogues = json.loads((shared_data / "huatuo_llama" / "liver_cancer.json").read_text("utf-8"))[::10]
    mixed = ["", " a  b\n\n c\t", "e\u0301 ﬁ ㎎ 𠮷😀", "<think>2.5 mg/kg</think>", "x <|im_end|>\n", "It's 3°C.\r\n"]
    return [r[k] for r in records + dialogues for k in ("instruction", "output")] + mixed


@pytest.fixture(scope="module", params=["qwen2.5", "minimind", "own"])
def pair(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Tokenizer, Any]:
    if request.param == "own":
        sample = request.getfixturevalue("texts")[:300]
        folder = train_tokenizer(sample, 1000, tmp_path_factory.mktemp("own"))
    else:
        folder = shared_data / "tokenizers" / request.param
    return Tokenizer.load(folder), transformers.AutoTokenizer.from_pretrained(folder)


def test_ids_and_text(pair: tuple[Tokenizer, Any], texts: list[str]) -> None:
    ours, theirs = pair
    assert len(texts) > 2000
    parsed = [ours.encode(text, special=True) for text in texts]
    assert parsed == theirs(texts, add_special_tokens=False)["input_ids"]
    # No text of the sample but the mixed ones looks like a control token, so both ways of encoding agree on it.
    assert ours.encode_batch(texts[:-6]) == parsed[:-6]
    for ids in parsed[::5] + parsed[-6:]:
        for skip in (True, False):
            expected = theirs.decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
            assert ours.decode(ids, skip_special=skip) == expected


def test_special_tokens(pair: tuple[Tokenizer, Any]) -> None:
    ours, theirs = pair
    assert ours.eos_token_id == theirs.eos_token_id
    assert ours.pad_token_id == theirs.pad_token_id
    assert ours.bos_token_id == theirs.bos_token_id
    assert ours.vocab_size == len(theirs)
    assert ours.chat_template == theirs.chat_template


def rendered(theirs: Any, example: Example, answered: bool) -> list[int]:
    messages = [{"role": "system", "content": example.system}] if example.system else []
    for question, answer in example.history:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    messages.append({"role": "user", "content": example.question})
    if answered:
        messages.append({"role": "assistant", "content": example.answer})
    text = theirs.apply_chat_template(messages, tokenize=False, add_generation_prompt=not answered)
    return theirs(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("system", [None, "你是一名谨慎的医生。"])
@pytest.mark.parametrize("rounds", [0, 2])
def test_chat_prompt(
    pair: tuple[Tokenizer, Any], records: list[dict[str, str]], system: str | None, rounds: int
) -> None:
    ours, theirs = pair
    prompt = Prompt.named("chat", ours)
    turns = [(r["instruction"].strip(), r["output"].strip()) for r in records[:200]]
    for i in range(rounds, len(turns)):
        question, answer = turns[i]
        example = Example(str(i), question, answer, system=system, history=tuple(turns[i - rounds : i]))
        assert prompt.encode_prompt(example) == rendered(theirs, example, answered=False)
        assert prompt.encode(example).input_ids == rendered(theirs, example, answered=True)


def test_saved_copy_loads_in_transformers(pair: tuple[Tokenizer, Any], tmp_path: Path, texts: list[str]) -> None:
    ours, theirs = pair
    ours.save(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert again(texts[:50])["input_ids"] == theirs(texts[:50])["input_ids"]
    assert again.chat_template == theirs.chat_template
