"""Byte-level BPE of plain text by the tiktoken library: the same ids as `tokenizers` gives, in a third of the time.

It is used only where the ids are the same for certain, by three conditions.

Vocabulary. `tokenizers` joins the pairs of a list, first to last; tiktoken joins any neighbours that make a token, the
lowest id first. They do the same if (1) every token longer than a byte is made by one pair of the list, (2) in the
order of the list the ids ascend, and (3) the list makes of the bytes of each token just this token. For assume that
so far both did the same, and tiktoken's next join makes of (x, y) the token t. What happened within the bytes of t
does not depend on what is around them, as no join crossed their ends; so it is what happens to these bytes alone, up
to the last state of two parts. By (3) the pair of the list that makes t is that state, hence (x, y), and by (1) and
(2) the list's next join is the same.

Words. Both split a text into words by a regular expression, in different dialects. Patterns are therefore taken from a
list, and texts with other characters than common ones go the old way. On these characters, a test compares both.

Time. tiktoken is quadratic in the length of a word, so a text with a very long one goes the old way, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import Tokenizer as Library

from ms_medqa.data.byte_level import BYTE_NAMES, GPT2, LLAMA3, OWN, QWEN

# As tokenizer.json files spell them.
_PATTERNS = (QWEN, LLAMA3, OWN)
# ASCII; Latin-1's signs and letters; Greek; dashes, quotes and signs; ℃, numerals, arrows, relations, ①; Chinese.
# Unicode's NFC leaves each of these alone, whatever stands beside it.
_COMMON = (
    "\t\n\r -~\u00a1-\u00ac\u00ae-\u00ff\u0391-\u03a1\u03a3-\u03a9\u03b1-\u03c9\u2010-\u2027\u2030-\u205e"
    "\u2103\u2160-\u216b\u2170-\u2179\u2190-\u2199\u2260-\u2267\u2460-\u249b\u3000-\u3003\u3005-\u3020"
    "\u4e00-\u9fa5\uff01-\uff5e\uffe5"
)
_UNCOMMON = re.compile(f"[^{_COMMON}]")
# A word is at most as long as such a run and the characters around it.
_LONG_RUN = re.compile(r"\b\w{256}|(?<![^\w\s])[^\w\s]{256}|(?<!\s)\s{256}")
_BYTES = {name: byte for byte, name in BYTE_NAMES.items()}


class FastBytePairs:
    """The ids of texts that are common enough. Build one with `fast_byte_pairs`."""

    def __init__(self, pattern: str, ranks: dict[bytes, int]) -> None:
        import tiktoken

        self._encoding = tiktoken.Encoding("", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})

    def encode(self, text: str) -> list[int] | None:
        """The ids of a text, control tokens in it as the text that they are; None: go the old way."""
        if _UNCOMMON.search(text) or (len(text) >= 256 and _LONG_RUN.search(text)):
            return None
        return self._encoding.encode_ordinary(text)


def fast_byte_pairs(definition: Mapping[str, Any], library: Library) -> FastBytePairs | None:
    """The encoder for a `tokenizer.json`; None where it is not certain to give the same ids.

    Args:
        definition: the content of the file.
        library: the tokenizer itself, which is asked for the ids of every token's name.
    """
    pattern = _pattern(definition.get("pre_tokenizer"))
    if pattern is None or definition.get("normalizer") not in (None, {"type": "NFC"}):
        return None
    model = definition["model"]
    if model["type"] != "BPE" or any(
        model.get(key)
        for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    ):
        return None
    ranks = _ranks(model["vocab"], model["merges"], {token["content"] for token in definition["added_tokens"]})
    if ranks is None:
        return None
    return FastBytePairs(pattern, ranks) if _makes_each_token(model["vocab"], ranks, library) else None


def _pattern(component: Any) -> str | None:
    """The regular expression by which words are split; None for any way that is not known."""
    if not isinstance(component, dict):
        return None
    parts = component["pretokenizers"] if component["type"] == "Sequence" else [component]
    *splits, last = parts or [{}]
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return None
    if not splits:
        return GPT2 if last["use_regex"] else None
    split = splits[0]
    isolated = split["type"] == "Split" and split["behavior"] == "Isolated" and not split["invert"]
    if len(splits) > 1 or not isolated or last["use_regex"]:
        return None
    pattern = split["pattern"].get("Regex")
    return pattern if pattern in _PATTERNS else None


def _ranks(
    vocabulary: Mapping[str, int], merges: Sequence[str | Sequence[str]], added: set[str]
) -> dict[bytes, int] | None:
    """Bytes to id; None where conditions (1) and (2) do not hold."""
    made: list[str] = ["".join(pair.split(" ") if isinstance(pair, str) else pair) for pair in merges]
    ids = [vocabulary.get(name, -1) for name in made]
    longer = sum(len(name) > 1 for name in vocabulary if name not in added)
    if len(set(made)) != len(made) or ids != sorted(ids) or longer != len(made) or min(ids, default=0) < 0:
        return None
    names = [*(name for name in vocabulary if len(name) == 1 and name not in added), *made]
    if not set(_BYTES) <= set(names) or not set("".join(names)) <= set(_BYTES):
        return None
    return {bytes(map(_BYTES.__getitem__, name)): vocabulary[name] for name in names}


def _makes_each_token(vocabulary: Mapping[str, int], ranks: Mapping[bytes, int], library: Library) -> bool:
    """Condition (3)."""
    model = library.model
    # With it, a word that is a token is looked up before anything is joined.
    looked_up = getattr(model, "ignore_merges", False)
    if looked_up:
        model.ignore_merges = False
    try:
        names = ("".join(BYTE_NAMES[byte] for byte in token) for token in ranks)
        return all([token.id for token in model.tokenize(name)] == [vocabulary[name]] for name in names)
    finally:
        if looked_up:
            model.ignore_merges = True
