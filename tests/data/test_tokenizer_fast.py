"""The fast way to encode gives the ids of the slow one, and steps back where that is not certain."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as Library

from ms_medqa.config.assets import resolve_model
from ms_medqa.data import tokenizer_backend
from ms_medqa.data.byte_level import BYTE_NAMES, LLAMA3, QWEN
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.data.tokenizer_fast import FastBytePairs, fast_byte_pairs

QUESTION = "孩子 3 岁，发热 38.5℃，可以服用布洛芬（5-10 mg/kg）吗？"


def tiny_definition() -> dict[str, Any]:
    definition: dict[str, Any] = json.loads((resolve_model("medqa-tiny") / "tokenizer.json").read_text("utf-8"))
    return definition


def fast_of(definition: dict[str, Any]) -> FastBytePairs:
    fast = fast_byte_pairs(definition)
    assert fast is not None
    return fast


def fast_ids(fast: FastBytePairs, texts: Sequence[str]) -> list[list[int] | None]:
    return [None if ids is None else ids.tolist() for ids in fast.encode_batch(texts)]


def slow_ids(definition: dict[str, Any], texts: Sequence[str]) -> list[list[int]]:
    library = Library.from_str(json.dumps(definition))
    library.encode_special_tokens = True
    return [encoding.ids for encoding in library.encode_batch(list(texts), add_special_tokens=False)]


def fuzz(seed: int, count: int) -> list[str]:
    """Texts of characters that are taken, most of all those at which words are split."""
    generator = random.Random(seed)
    every = [chr(c) for c in range(0x10000) if not 0xD800 <= c < 0xE000]
    taken = fast_of(tiny_definition()).encode_batch(every)
    common = [character for character, ids in zip(every, taken, strict=True) if ids is not None]
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
    texts = fuzz(1, 5000)
    assert fast_ids(fast_of(definition), texts) == slow_ids(definition, texts)


@pytest.mark.parametrize("name", ["qwen2.5", "minimind"])
def test_released_vocabularies_have_it_and_it_agrees(
    name: str, shared_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = (shared_data / "huatuo_llama/llama_data.json").read_text("utf-8").splitlines()[:2000]
    texts = [json.loads(line)["output"] for line in lines] + fuzz(2, 3000)
    found = {}
    taken = count_texts(monkeypatch)
    for many in (1, 10**9):
        monkeypatch.setattr(tokenizer_backend, "_MANY", many)
        found[many] = Tokenizer.load(shared_data / "tokenizers" / name).encode_batch(texts)
    assert found[1] == found[10**9]
    assert taken[True] > len(texts) - 20
    assert taken.total() == len(texts)


def count_texts(monkeypatch: pytest.MonkeyPatch) -> Counter[bool]:
    """Counts the texts that come to the fast way, by whether it takes them."""
    taken = Counter[bool]()
    encode = FastBytePairs.encode_batch

    def counted(self: FastBytePairs, texts: Sequence[str]) -> Any:
        found = encode(self, texts)
        taken.update(ids is not None for ids in found)
        return found

    monkeypatch.setattr(FastBytePairs, "encode_batch", counted)
    return taken


def made_up(seed: int, ignore_merges: bool) -> tuple[dict[str, Any], list[str]]:
    """A vocabulary of pairs drawn at random, with tokens made twice and never, in any order; words of its letters."""
    generator = random.Random(seed)
    letters = "abcde"
    parts, merges = list(letters), list[str]()
    while len(merges) < 40:
        pair = generator.choice(parts), generator.choice(parts)
        if " ".join(pair) not in merges:
            merges.append(" ".join(pair))
            parts.append("".join(pair))
    never = ["".join(generator.choices(letters, k=generator.randint(2, 6))) for _ in range(5)]
    names = list(dict.fromkeys([*BYTE_NAMES.values(), *parts, *never]))
    generator.shuffle(names)
    definition = tiny_definition() | {"added_tokens": []}
    model = {"vocab": {name: i for i, name in enumerate(names)}, "merges": merges, "ignore_merges": ignore_merges}
    definition["model"] |= model
    words = ["".join(generator.choices(letters, k=generator.randint(1, 30))) for _ in range(500)]
    return definition, [*words, *never, *parts]


@pytest.mark.parametrize("ignore_merges", [False, True])
def test_pairs_are_joined_in_the_order_of_the_list_whatever_it_is(ignore_merges: bool) -> None:
    for seed in range(30):
        definition, words = made_up(seed, ignore_merges)
        assert fast_ids(fast_of(definition), words) == slow_ids(definition, words), seed


@pytest.mark.parametrize("text", ["cafe\u0301", "\u212b", "\ufb01", "한국어", "🙂", "\x00", "a\x0bb"])
def test_uncommon_characters_go_the_old_way(text: str) -> None:
    fast = fast_of(tiny_definition())
    found = fast_ids(fast, [QUESTION, f"头痛{text}", QUESTION])
    assert found[1] is None
    assert found[0] == found[2] == slow_ids(tiny_definition(), [QUESTION])[0]


def test_very_long_words_are_as_good_as_others() -> None:
    words = [character * 20_000 for character in "字a- 1"]
    assert fast_ids(fast_of(tiny_definition()), words) == slow_ids(tiny_definition(), words)


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
    elif how == "a byte is missing":
        model["vocab"] = {name: i for name, i in model["vocab"].items() if name != BYTE_NAMES[0]}
    elif how == "a gap in the ids":
        model["vocab"]["never made"] = 10 * len(model["vocab"])
    else:
        raise AssertionError(how)


@pytest.mark.parametrize(
    "how",
    [
        "other normaliser",
        "other pattern",
        "other behaviour",
        "byte fallback",
        "a byte is missing",
        "a gap in the ids",
    ],
)
def test_a_vocabulary_for_which_it_is_not_certain_has_none(how: str) -> None:
    definition = tiny_definition()
    change(definition, how)
    assert fast_byte_pairs(definition) is None


def test_a_tokenizer_that_is_asked_much_answers_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{QUESTION}{i}<|im_end|>한국" if i % 7 == 0 else f"{QUESTION}{i}<|im_end|>" for i in range(100)]
    tokenizer = Tokenizer.load(resolve_model("medqa-tiny"))
    slow = tokenizer.encode_batch(texts)
    monkeypatch.setattr(tokenizer_backend, "_MANY", 150)
    taken = count_texts(monkeypatch)
    assert tokenizer.encode_batch(texts) == slow
    assert taken == {True: 85, False: 15}


def test_a_tokenizer_that_expects_many_is_fast_at_once_and_works_without_the_library(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken = count_texts(monkeypatch)
    slow, fast, without = (Tokenizer.load(resolve_model("medqa-tiny")) for _ in range(3))
    fast.expect_many()
    monkeypatch.setitem(sys.modules, "fastokens", None)
    without.expect_many()
    assert slow.encode_batch([QUESTION]) == fast.encode_batch([QUESTION]) == without.encode_batch([QUESTION])
    assert taken == {True: 1}
