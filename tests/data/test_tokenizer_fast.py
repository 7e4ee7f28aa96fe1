"""The fast way to encode gives the ids of the slow one, and steps back where that is not certain."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library

from ms_medqa.config.assets import resolve_model
from ms_medqa.data import tokenizer_backend
from ms_medqa.data.byte_level import LLAMA3, QWEN
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.data.tokenizer_fast import FastBytePairs, fast_byte_pairs

QUESTION = "孩子 3 岁，发热 38.5℃，可以服用布洛芬（5-10 mg/kg）吗？"


def tiny_definition() -> dict[str, Any]:
    definition: dict[str, Any] = json.loads((resolve_model("medqa-tiny") / "tokenizer.json").read_text("utf-8"))
    return definition


def build(definition: dict[str, Any]) -> tuple[FastBytePairs | None, Library]:
    library = Library.from_str(json.dumps(definition))
    return fast_byte_pairs(definition, library), library


def fuzz(seed: int, count: int) -> list[str]:
    """Texts of characters that are taken, most of all those at which words are split."""
    generator = random.Random(seed)
    fast, _ = build(tiny_definition())
    assert fast is not None
    common = [chr(c) for c in range(0x10000) if not 0xD800 <= c < 0xE000 and fast.encode(chr(c)) is not None]
    assert len(common) > 21_000
    picky = " \n\t\r'sStTdDmM0123.-，。！ \u3000"
    texts = [
        "".join(generator.choice(generator.choice((common, picky, common[:300]))) for _ in range(length))
        for length in generator.choices(range(1, 60), k=count)
    ]
    return [*texts, *common, *(f"a{c}1 {c}{c}\n" for c in common), "<|im_end|>", "你好<|endoftext|><tool_call>", ""]


@pytest.mark.parametrize("pattern", [None, QWEN, LLAMA3, "gpt2"])
def test_every_way_to_split_words_gives_the_same_ids(pattern: str | None) -> None:
    definition = tiny_definition()
    *_, last = definition["pre_tokenizer"]["pretokenizers"]
    if pattern == "gpt2":
        definition["pre_tokenizer"] = last | {"use_regex": True}
    elif pattern is not None:
        definition["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = pattern
    fast, library = build(definition)
    assert fast is not None
    library.encode_special_tokens = True
    texts = fuzz(1, 5000)
    slow = [encoding.ids for encoding in library.encode_batch(texts, add_special_tokens=False)]
    assert [fast.encode(text) for text in texts] == slow


@pytest.mark.parametrize("name", ["qwen2.5", "minimind"])
def test_released_vocabularies_have_it_and_it_agrees(
    name: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (shared_data / "huatuo_llama/llama_data.json").read_text("utf-8").splitlines()[:2000]
    texts = [json.loads(line)["output"] for line in lines] + fuzz(2, 3000)
    found, taken = {}, Counter[bool]()
    encode = FastBytePairs.encode

    def counted(self: FastBytePairs, text: str) -> list[int] | None:
        ids = encode(self, text)
        taken[ids is not None] += 1
        return ids

    monkeypatch.setattr(FastBytePairs, "encode", counted)
    for many in (1, 10**9):
        monkeypatch.setattr(tokenizer_backend, "_MANY", many)
        found[many] = Tokenizer.load(shared_data / "tokenizers" / name).encode_batch(texts)
    assert found[1] == found[10**9]
    assert taken[True] > len(texts) - 20
    assert taken.total() == len(texts)


@pytest.mark.parametrize(
    "text", ["cafe\u0301", "\u212b", "\ufb01", "한국어", "🙂", "\x00", "a\x0bb", "字" * 300, "-" * 300, " " * 300]
)
def test_uncommon_characters_and_very_long_words_go_the_old_way(text: str) -> None:
    fast, _ = build(tiny_definition())
    assert fast is not None
    assert fast.encode(f"头痛{text}") is None
    # Ends of words in between keep a long text on the fast way.
    assert fast.encode(QUESTION * 100) is not None


def change(definition: dict[str, Any], how: str) -> None:
    model, split = definition["model"], definition["pre_tokenizer"]["pretokenizers"][0]
    if how == "other normaliser":
        definition["normalizer"] = {"type": "NFKC"}
    elif how == "other pattern":
        split["pattern"]["Regex"] = r"\p{L}+|\s+|."
    elif how == "other behaviour":
        split["behavior"] = "MergedWithNext"
    elif how == "byte fallback":
        model["byte_fallback"] = True
    elif how == "merges in another order":
        model["merges"][10], model["merges"][20] = model["merges"][20], model["merges"][10]
    elif how == "a merge is missing":
        del model["merges"][-1]
    elif how == "a token that its merges do not make":
        # "ab" and "bc" are tokens, and "abc" is said to be "a" and "bc": but "ab" comes first.
        names = {"a": 0, "b": 1, "c": 2, "ab": 3, "bc": 4, "abc": 5}
        bytes_ = [name for name in model["vocab"] if len(name) == 1 and name not in names]
        model["vocab"] = names | {name: 6 + i for i, name in enumerate(bytes_)}
        model["merges"] = ["a b", "b c", "a bc"]
        definition["added_tokens"] = []
    else:
        raise AssertionError(how)


@pytest.mark.parametrize(
    "how",
    [
        "other normaliser",
        "other pattern",
        "other behaviour",
        "byte fallback",
        "merges in another order",
        "a merge is missing",
        "a token that its merges do not make",
    ],
)
def test_a_vocabulary_for_which_it_is_not_certain_has_none(how: str) -> None:
    definition = tiny_definition()
    change(definition, how)
    assert build(definition)[0] is None


def test_a_tokenizer_that_is_asked_much_answers_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{QUESTION}{i}<|im_end|>한국" if i % 7 == 0 else f"{QUESTION}{i}<|im_end|>" for i in range(100)]
    tokenizer = Tokenizer.load(resolve_model("medqa-tiny"))
    slow = tokenizer.encode_batch(texts)
    monkeypatch.setattr(tokenizer_backend, "_MANY", 150)
    called: list[str] = []
    encode = FastBytePairs.encode

    def counted(self: FastBytePairs, text: str) -> list[int] | None:
        called.append(text)
        return encode(self, text)

    monkeypatch.setattr(FastBytePairs, "encode", counted)
    assert tokenizer.encode_batch(texts) == slow
    assert called == texts
