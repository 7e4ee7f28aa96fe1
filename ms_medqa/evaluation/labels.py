"""Which of some classes, each a few words, an answer names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

_EDGE = re.compile(r"^[\W_]+|[\W_]+$")
_CLAUSE_END = re.compile(r"[\n。.!！?？;；,，:：](?!\d)")


def parse_label(answer: str, labels: Sequence[str]) -> int | None:
    """The number of the class that an answer names; None where it names none, or several with equal right.

    The first clause decides, if a class stands in it, else the whole answer. A class in Latin letters must be a word of
    its own, and one that is a part of another, longer one counts where that one does not stand. Width of letters and
    case do not matter.
    """
    names = [_plain(label) for label in labels]
    for text in (_CLAUSE_END.split(answer.strip(), maxsplit=1)[0], answer):
        found = _named(_plain(text), names)
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _named(text: str, names: Sequence[str]) -> list[int]:
    """Numbers of the names that stand in a text."""
    found = []
    # Longer ones first, each taken out of the text, so that what is left of it names shorter ones by themselves.
    for number in sorted(range(len(names)), key=lambda number: -len(names[number])):
        if names[number]:
            text, count = re.subn(_word(names[number]), " ", text)
            found += [number] if count else []
    return found


def _word(name: str) -> str:
    # Chinese has no spaces around words, so only Latin letters and digits can tell where one ends.
    before = r"(?<![a-z0-9])" if re.match("[a-z0-9]", name) else ""
    after = r"(?![a-z0-9])" if re.search("[a-z0-9]$", name) else ""
    return before + re.escape(name) + after


def _plain(text: str) -> str:
    return _EDGE.sub("", " ".join(unicodedata.normalize("NFKC", text).lower().split()))
