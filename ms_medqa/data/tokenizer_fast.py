"""Byte-level BPE of plain text by the fastokens library: the same ids as `tokenizers` gives, many times as fast.

fastokens joins the pairs of the same list in the same order, so words get the same ids; that is compared in the tests,
also for vocabularies made up at random. What might differ is what comes before. Both split a text into words by a
regular expression, with tables of characters of different age. Patterns are therefore taken from a list, and texts with
other characters than common ones go through `tokenizers`. On these characters, a test compares both.
"""

from __future__ import annotations

import json
import re
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ms_medqa.data.byte_level import BYTE_NAMES, LLAMA3, OWN, QWEN

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


class FastBytePairs:
    """The ids of texts that are common enough. Build one with `fast_byte_pairs`.

    Args:
        definition: the content of a `tokenizer.json` without added tokens and normaliser.

    Raises:
        ImportError: the library is not installed.
        ValueError: it cannot read the definition.
    """

    def __init__(self, definition: Mapping[str, Any]) -> None:
        from fastokens import Tokenizer

        self._library = Tokenizer.from_json_str(json.dumps(definition))

    def encode_batch(self, texts: Sequence[str]) -> list[array[int] | None]:
        """The ids of each text, control tokens in it as the text that they are; None: ask `tokenizers`."""
        common = [None if _UNCOMMON.search(text) else text for text in texts]
        joined, ends = self._library.encode_batch_flat([text for text in common if text is not None])
        # Lists, with an object for each id, would take as long again.
        ids, places = array("i"), iter(np.frombuffer(ends, "<u8").tolist())
        ids.frombytes(joined)
        if sys.byteorder == "big":
            ids.byteswap()
        found: list[array[int] | None] = []
        start = next(places)
        for text in common:
            if text is None:
                found.append(None)
                continue
            end = next(places)
            found.append(ids[start:end])
            start = end
        return found


def fast_byte_pairs(definition: Mapping[str, Any]) -> FastBytePairs | None:
    """The encoder for a `tokenizer.json`; None where it is not certain to give the same ids.

    Args:
        definition: the content of the file.
    """
    words = definition.get("pre_tokenizer")
    if not _is_known(words) or definition.get("normalizer") not in (None, {"type": "NFC"}):
        return None
    model = definition["model"]
    odd = ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback")
    if model["type"] != "BPE" or any(model.get(key) for key in odd):
        return None
    # A byte without a token of its own is dropped by the one library and refused by the other.
    if not set(BYTE_NAMES.values()) <= model["vocab"].keys():
        return None
    try:
        return FastBytePairs({"version": "1.0", "added_tokens": [], "pre_tokenizer": words, "model": model})
    except (ImportError, ValueError):
        # Old systems have no build of it; and it wants vocabularies without gaps.
        return None


def _is_known(component: Any) -> bool:
    """Whether words are split by one of the known regular expressions, and by nothing else."""
    if not isinstance(component, dict):
        return False
    parts = component["pretokenizers"] if component["type"] == "Sequence" else [component]
    *splits, last = parts or [{}]
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return False
    if not splits:
        return bool(last["use_regex"])
    split = splits[0]
    isolated = split["type"] == "Split" and split["behavior"] == "Isolated" and not split["invert"]
    return len(splits) == 1 and isolated and not last["use_regex"] and split["pattern"].get("Regex") in _PATTERNS
