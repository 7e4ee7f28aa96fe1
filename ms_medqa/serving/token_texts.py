"""What single tokens read like."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

from ms_medqa.data.byte_level import BYTE_NAMES
from ms_medqa.data.tokenizer import Tokenizer

_BYTES = {name: value for value, name in BYTE_NAMES.items()}
_BYTE_TOKEN = re.compile("<0x([0-9A-F]{2})>")
# A long answer with the likeliest tokens of each place has hundreds of thousands, and few different ones.
_KEPT = 2**15


class TokenTexts:
    """The texts of a tokenizer's tokens. Safe to use from several threads.

    Args:
        tokenizer: of the answers.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        # Something for a token to stand behind, see `__call__`.
        self._before = tokenizer.encode("a")[-1:]
        self._before_text = self._decode(self._before)
        self._known = functools.lru_cache(_KEPT)(self._find)

    def __call__(self, token: int, first: bool) -> tuple[str, list[int] | None]:
        """A token's text and bytes, which are not to be changed; a part of a character is spelt `bytes:\\xe9\\xab`.

        Args:
            token: its id.
            first: it begins an answer, where many vocabularies leave out the space before a word.
        """
        return self._known(token, first)

    def _find(self, token: int, first: bool) -> tuple[str, list[int] | None]:
        before, said = ([], "") if first else (self._before, self._before_text)
        text = self._decode([*before, token]).removeprefix(said)
        if "\ufffd" not in text:
            return text, list(text.encode())
        name = self._tokenizer.id_to_token(token) or ""
        if match := _BYTE_TOKEN.fullmatch(name):
            values = [int(match[1], 16)]
        elif name and all(letter in _BYTES for letter in name):
            values = [_BYTES[letter] for letter in name]
        else:
            return text, None
        return "bytes:" + "".join(f"\\x{value:02x}" for value in values), values

    def _decode(self, tokens: Sequence[int]) -> str:
        return self._tokenizer.decode(tokens, skip_special=False)
