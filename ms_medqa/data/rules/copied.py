"""Answers that only say the question again, or only point somewhere else."""

from __future__ import annotations

import re

from ms_medqa.data.text import letters

_FIRST = re.compile(r"[^\W_]")
_URL = re.compile(
    r"(?:https?|ftp)://[^\s<>\"'，。；！？、（）《》“”]+|www\.[A-Za-z0-9-]+\.[^\s<>\"'，。；！？、（）《》“”]+",
    re.IGNORECASE,
)


def copied_share(question: str, answer: str) -> float:
    """Share of the answer that its question makes up where it begins with it, else 0.

    Counted are letters and digits alone, without their case; 1.0 where both are equal.
    """
    # Nearly all answers begin with another character.
    first, other = _FIRST.search(question), _FIRST.search(answer)
    if first is None or other is None or first[0].casefold() != other[0].casefold():
        return 0.0
    asked, said = letters(question), letters(answer)
    return len(asked) / len(said) if said.startswith(asked) else 0.0


def url_share(text: str) -> float:
    """Share of the characters of `text` that belong to URLs."""
    if "://" not in text and "www." not in text.lower():
        return 0.0
    return sum(match.end() - match.start() for match in _URL.finditer(text)) / len(text)
