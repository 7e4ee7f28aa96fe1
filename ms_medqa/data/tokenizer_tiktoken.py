"""`qwen.tiktoken`, the vocabulary of Qwen-1: byte-level BPE as a list of tokens by rank."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.data.byte_level import BYTE_NAMES, QWEN
from ms_medqa.data.tokenizer_backend import TokenizersBackend
from ms_medqa.data.tokenizer_settings import named_end_ids, read_vocabulary

FILE_NAME = "qwen.tiktoken"

_ANEW = "copy or download the file anew"

# The file holds the text tokens alone; these follow them, in this order.
CONTROL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))


def read_tiktoken(folder: Path, settings: dict[str, Any]) -> TokenizersBackend:
    """The tokenizer of a Qwen-1 folder, with the ids that Qwen-1's own gives.

    Raises:
        UserError: the file is not a complete list of tokens and ranks.
    """
    path = folder / FILE_NAME
    if settings.get("extra_vocab_file"):
        raise UserError(f"{folder}: tokenizer_config.json names an extra_vocab_file, which is not supported")
    ranks = _read_ranks(path)
    end_file, end_ids = named_end_ids(folder)
    if end_ids and not any(len(ranks) <= i < len(ranks) + len(CONTROL_TOKENS) for i in end_ids):
        # A file that lost lines at its end reads well, and all control tokens are in the wrong place.
        raise UserError(
            f"{path}: {len(ranks)} tokens, yet {end_file} has the end token {end_ids[0]}, which is none of the "
            f"{len(CONTROL_TOKENS)} control tokens after them",
            _ANEW,
        )
    definition = _definition(path, ranks)
    return TokenizersBackend.from_definition(definition, FILE_NAME, {"eos_token": CONTROL_TOKENS[0]})


def _read_ranks(path: Path) -> dict[bytes, int]:
    """Token to rank, in the order of ranks."""
    ranks: dict[bytes, int] = {}
    lines: dict[int, int] = {}
    for number, line in enumerate(read_vocabulary(path).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            encoded, digits = line.split()
            token, rank = base64.b64decode(encoded, validate=True), int(digits)
            if not token:
                raise ValueError("an empty token")
        except (ValueError, binascii.Error):
            raise UserError(f"{path}, line {number}: not a token in base64 and its rank", _ANEW) from None
        if rank in lines or token in ranks:
            first = lines[rank] if rank in lines else lines[ranks[token]]
            what = "rank" if rank in lines else "token"
            raise UserError(f"{path}, line {number}: the {what} of line {first} again", _ANEW)
        ranks[token], lines[rank] = rank, number
    ranks = dict(sorted(ranks.items(), key=lambda item: item[1]))
    missing = next((i for i, rank in enumerate(ranks.values()) if i != rank), None)
    if missing is not None:
        raise UserError(f"{path}: no token has rank {missing}", _ANEW)
    for value in range(256):
        if bytes([value]) not in ranks:
            raise UserError(f"{path}: the byte {value:#04x} has no token", _ANEW)
    return ranks


def _definition(path: Path, ranks: dict[bytes, int]) -> dict[str, Any]:
    """What a `tokenizer.json` with the same ids holds."""
    names = {token: token.decode("latin-1").translate(BYTE_NAMES) for token in ranks}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": len(ranks) + i, "content": content, **flags} for i, content in enumerate(CONTROL_TOKENS)
        ],
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": QWEN}, "behavior": "Isolated", "invert": False},
                byte_level,
            ],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "vocab": {names[token]: rank for token, rank in ranks.items()},
            "merges": [f"{names[left]} {names[right]}" for left, right in _merges(path, ranks)],
        },
    }


def _merges(path: Path, ranks: dict[bytes, int]) -> list[tuple[bytes, bytes]]:
    """The pairs that BPE joins, first to last: for each token, what its bytes become under all merges of lower rank.

    Where every token has such a pair, joining these gives the same as joining any two neighbours that make a token.
    """
    merges = []
    for token, rank in ranks.items():
        if len(token) == 1:
            continue
        cut = _last_cut(token, rank, ranks)
        if cut is None:
            raise UserError(f"{path}: tokens of lower rank do not make the token of rank {rank}", _ANEW)
        merges.append((token[:cut], token[cut:]))
    return merges


def _last_cut(token: bytes, rank: int, ranks: dict[bytes, int]) -> int | None:
    """Where the last merge joins `token`; None where merges of lower rank leave more than two parts."""
    starts = list(range(len(token) + 1))  # of the parts, and the end
    pairs = [ranks.get(token[i : i + 2], rank) for i in range(len(token) - 1)]
    while len(pairs) > 1:
        lowest = min(pairs)
        if lowest >= rank:
            return None
        i = pairs.index(lowest)
        del starts[i + 1], pairs[i]
        if i > 0:
            pairs[i - 1] = ranks.get(token[starts[i - 1] : starts[i + 1]], rank)
        if i < len(pairs):
            pairs[i] = ranks.get(token[starts[i] : starts[i + 2]], rank)
    return starts[1]
