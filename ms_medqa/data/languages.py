"""The language of a text, told by its script alone: fast, needs no model, and says no more than it can know."""

from __future__ import annotations

import re

LANGUAGES = ("Chinese", "English", "other", "no letters")

_LETTER = re.compile(r"[^\W\d_]+")
_HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]+")
_ASCII = re.compile(r"[A-Za-z]+")
_LATIN = re.compile(r"[A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff\uff21-\uff3a\uff41-\uff5a]+")
_KANA = re.compile(r"[\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9d]+")
# A Chinese text has about a third of the characters of its English translation, so that names of drugs and laboratory
# values in Latin letters do not make it English.
_HAN_WEIGHT = 3
# Japanese is written with Chinese characters too, but never without kana.
_KANA_SHARE = 0.1
# English has next to no letters outside A to Z; French, German or Vietnamese have more than this share of theirs.
_ACCENT_SHARE = 0.02


def language_of(text: str) -> str:
    """One of `LANGUAGES`: what most of the letters are.

    `Chinese` is Han characters without kana; `English` is Latin letters with hardly an accent, so a short text in
    another language without accents counts as English.
    """
    letters = _count(_LETTER, text)
    if not letters:
        return "no letters"
    han, latin, kana = (_count(pattern, text) for pattern in (_HAN, _LATIN, _KANA))
    rest = letters - han - latin
    if han * _HAN_WEIGHT >= max(latin, rest) and kana < _KANA_SHARE * (han + kana):
        return "Chinese"
    if latin >= max(rest, han * _HAN_WEIGHT) and latin - _count(_ASCII, text) <= _ACCENT_SHARE * latin:
        return "English"
    return "other"


def _count(pattern: re.Pattern[str], text: str) -> int:
    return sum(map(len, pattern.findall(text)))
