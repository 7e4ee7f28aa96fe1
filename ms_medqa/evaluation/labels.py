"""Which of some classes, each a few words, an answer names.

An announced class (`the answer is X`, `答案是X`) comes first, then what stands in the first clause, then the whole
answer. A class that its clause denies (`not X`, `不是X`) is not named.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from ms_medqa.evaluation.letter_patterns import said

_EDGE = re.compile(r"^[\W_]+|[\W_]+$")
_CLAUSE_END = re.compile(r"[\n。.!?;,:](?!\d)")
_ANNOUNCED = re.compile(
    r"(?:\banswers?\b[\"'*_)\]】]*\s*(?:(?:is|would be|should be|must be)\b\s*:?|[:=])|<answer>|\\boxed\s*\{"
    r"|(?<!原)答案[\"'*_)\]】]*\s*(?:(?:应该|应当?|就)?[是为:选=]\s*:?|(?<=】)))\s*"
)
# `不适` and `非常` deny nothing.
_DENIED = re.compile(
    r"不(?![适孕育便良全足稳明安振调畅通清佳醒止好舒]|规则|典型|一定)|(?<!除)非(?!常)|无需|无须|勿|\bnot\b|\bcannot\b|n['’]t\b"
)
# What a denial before it does not reach: `不能行走，应…`, but not `不建议…`.
_AFRESH = re.compile(
    r"(?<![不太会再未很])(?<!认为)(?:建议|应当?|请|推荐|故|所以|因此|而是)|\b(?:but|so|therefore|thus|hence)\b"
)
# Characters behind an announcement in which the class is looked for.
_REACH = 80
# Everyday words, which say something else within a sentence: `no difference`. So do single characters.
_EVERYDAY = frozenset(
    ["yes", "no", "maybe", "true", "false", "unsure", "unknown", "none", "other", "positive", "negative"]
)
_BREAK = re.compile(r"[\"'”’)\]}*_]*(?:\s*(?:[.,;:!<。、(}—–]|-\s|\Z|because\b|因为)|[^\S\n]*\n)")


@dataclass(frozen=True, slots=True)
class _Mention:
    start: int
    end: int
    label: int
    clear: bool  # False for an everyday word without a break behind it.


def parse_label(answer: str, labels: Sequence[str]) -> int | None:
    """The number of the class that an answer names; None where it names none, or several with equal right.

    Args:
        answer: what a model wrote.
        labels: the classes. One in Latin letters must be a word of its own, and one that is a part of another, longer
            one counts where that one does not stand. One that is an everyday word, such as `no`, counts only where it
            is announced, or begins the answer, with a break behind it. Width of letters and case do not matter.
    """
    text = said(answer).lower().strip()
    names = [_plain(label) for label in labels]
    mentions = _mentions(text, names)
    clauses = _Clauses(text, mentions)
    mentions = [each for each in mentions if not clauses.denied(each.start)]
    announced = _announced(text, mentions, clauses)
    if announced:
        return announced.pop() if len(announced) == 1 else None
    begin = next(re.finditer(r"[\W_]*", text)).end()
    usable = [each for each in mentions if not _is_everyday(names[each.label]) or (each.start == begin and each.clear)]
    for end in (clauses.end(begin), len(text)):
        numbers = {each.label for each in usable if each.start < end}
        if numbers:
            return numbers.pop() if len(numbers) == 1 else None
    return None


class _Clauses:
    """Where the clauses of a text begin and end, and what they deny."""

    def __init__(self, text: str, mentions: Sequence[_Mention]) -> None:
        # What looks like a break within a class ends no clause.
        inside = {place for each in mentions for place in range(each.start, each.end)}
        self._breaks = [each.start() for each in _CLAUSE_END.finditer(text) if each.start() not in inside]
        self._afresh = [each.start() for each in _AFRESH.finditer(text)]
        self._denials = [each.end() for each in _DENIED.finditer(text)]
        self._size = len(text)

    def end(self, place: int) -> int:
        after = bisect_left(self._breaks, place)
        return self._breaks[after] if after < len(self._breaks) else self._size

    def denied(self, place: int) -> bool:
        """True where the clause denies, before this place, what follows."""
        last = _last(self._denials, place + 1)
        return last > max(_last(self._breaks, place), _last(self._afresh, place))


def _last(places: Sequence[int], before: int) -> int:
    """The last of ascending places before one; -1 where there is none."""
    number = bisect_left(places, before)
    return places[number - 1] if number else -1


def _announced(text: str, mentions: Sequence[_Mention], clauses: _Clauses) -> set[int]:
    """Numbers of the classes that are announced."""
    numbers: set[int] = set()
    starts = [each.start for each in mentions]
    for match in _ANNOUNCED.finditer(text):
        if not clauses.denied(match.start()):
            end = min(clauses.end(match.end()), match.end() + _REACH)
            found = mentions[bisect_left(starts, match.end()) : bisect_left(starts, end)]
            # `Yes or no` is two, though `yes` has no break behind it.
            if len({each.label for each in found}) > 1 or any(each.clear for each in found):
                numbers |= {each.label for each in found}
    return numbers


def _mentions(text: str, names: Sequence[str]) -> list[_Mention]:
    """Where names stand in a text, in order."""
    found = []
    # Longer ones first, each taken out of the text, so that what is left of it names shorter ones by themselves.
    for number in sorted(range(len(names)), key=lambda number: -len(names[number])):
        if names[number]:
            word = re.compile(_word(names[number]))
            for match in word.finditer(text):
                clear = not _is_everyday(names[number]) or _BREAK.match(text, match.end()) is not None
                found.append(_Mention(match.start(), match.end(), number, clear))
            text = word.sub(lambda match: "\0" * len(match[0]), text)
    return sorted(found, key=lambda each: each.start)


def _is_everyday(name: str) -> bool:
    return len(name) == 1 or name in _EVERYDAY


def _word(name: str) -> str:
    # Chinese has no spaces around words, so only Latin letters and digits can tell where one ends.
    before = r"(?<![a-z0-9])" if re.match("[a-z0-9]", name) else ""
    after = r"(?![a-z0-9])" if re.search("[a-z0-9]$", name) else ""
    return before + re.escape(name).replace(r"\ ", r"\s+") + after


def _plain(text: str) -> str:
    return _EDGE.sub("", " ".join(unicodedata.normalize("NFKC", text).lower().split()))
