"""Which share of a text is written in the script of a language. It knows scripts, not words."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

# A Han character, a run of Latin letters, or something else that is a letter: Kana and Hangul by the character, all
# others by the run.
_UNIT = re.compile(
    r"(?P<zh>[\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
    r"|(?P<en>[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\uff21-\uff3a\uff41-\uff5a]+)"
    r"|[\u3040-\u30ff\u31f0-\u31ff\uac00-\ud7af\u1100-\u11ff]"
    r"|(?:(?![A-Za-z\u3007\u3400-\u9fff])[^\W\d_])+"
)
# Texts with fewer units than this are judged together only: `CT` is a fine answer to a Chinese question.
_LEAST = 10


def language_share(text: str, languages: Collection[str]) -> tuple[float, int]:
    """(share of the units of `text` in the script of one of `languages`, number of units).

    A unit is a Han character or a word in another script, so that a few English names do not outweigh a Chinese
    sentence; 1.0 for a text without letters.

    Args:
        text: any text.
        languages: `zh` (Han) and `en` (Latin).
    """
    inside = units = 0
    for match in _UNIT.finditer(text):
        units += 1
        inside += match.lastgroup in languages
    return (inside / units if units else 1.0), units


def foreign_share(texts: Iterable[str], languages: Collection[str]) -> float:
    """The lowest `language_share` of those texts that are long enough and of all of them together."""
    shares = [language_share(text, languages) for text in texts]
    units = sum(count for _, count in shares)
    together = sum(share * count for share, count in shares) / units if units else 1.0
    return min([together, *(share for share, count in shares if count >= _LEAST)])
