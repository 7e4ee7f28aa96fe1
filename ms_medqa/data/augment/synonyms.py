"""Groups of equivalent terms, and a question with one of its terms replaced."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.data.augment.boundary import HAN, cuts_word, stands_alone
from ms_medqa.data.user_yaml import read_list

SHIPPED = Path(__file__).with_name("synonyms.yaml")

_ACRONYM = re.compile(r"[A-Z][A-Z0-9-]+")
_SENTENCE_END = re.compile(r"[.?!]\s+$")
_ARTICLE = re.compile(r"\b(an?)\s+$", re.IGNORECASE)
# The question is about the word itself: what else it is called, spelt, short for.
_ABOUT_WORDS = re.compile(
    "又叫|又称|又名|也叫|也称|还叫|别名|别称|俗称|俗名|学名|全称|简称|缩写|英文|中文|商品名|通用名|化学名|名称|名字|叫什么|叫做|"
    "同义|意思|含义|是指|怎么读|怎么写|一回事|"
    r"\b(?:called|call|named?|names|known as|terms?|synonyms?|abbreviations?|acronym|stands? for|short for|spell|"
    r"spelled|spelt|pronounced?|brand|generic|mean|meaning|same as)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a list: how it is written, how it is found, the number of its group (None: it is left alone)."""

    text: str
    folded: str
    exact: bool
    group: int | None


@dataclass(frozen=True, slots=True)
class Found:
    """A term in a text, characters `start` to `end`."""

    start: int
    end: int
    term: Term


@dataclass(frozen=True, slots=True)
class Replaced:
    """A text with one term replaced.

    Attributes:
        text: the new text.
        old: the term, as the list writes it.
        new: what stands in its place.
        group: all terms of their group.
    """

    text: str
    old: str
    new: str
    group: tuple[str, ...]


class SynonymList:
    """The shipped groups of equivalent terms and those of the user's files.

    A group of a file that shares a term with one known group extends it; an entry of one term takes this term out of
    its group.

    Args:
        paths: YAML files, each a list of lists of terms.

    Raises:
        UserError: a file is absent or not such a list; a group would join two known ones.
    """

    def __init__(self, paths: Sequence[str | Path] = ()) -> None:
        self.groups: list[list[str]] = []
        self._group_of: dict[str, int | None] = {}
        for path in (SHIPPED, *(user_path(path) for path in paths)):
            for number, terms in enumerate(_read(path), start=1):
                self._add(terms, f"synonyms {path}: entry {number}")
        # By its first two characters (few terms share them), the longest term first.
        self._starts: dict[str, list[Term]] = defaultdict(list)
        for key, group in sorted(self._group_of.items(), key=lambda item: -len(item[0])):
            written = next((t for t in self.groups[group] if _key(t) == key), key) if group is not None else key
            self._starts[_fold(key)[:2]].append(Term(written, _fold(key), _is_acronym(key), group))
        # Few places hold the first character of a term before the second of one.
        first, second = (re.escape("".join({start[place] for start in self._starts})) for place in (0, 1))
        self._place = re.compile(f"[{first}](?=[{second}])")

    def _add(self, terms: Sequence[str], where: str) -> None:
        if len(terms) == 1:
            group = self._group_of.get(_key(terms[0]))
            if group is not None:
                self.groups[group] = [term for term in self.groups[group] if _key(term) != _key(terms[0])]
            self._group_of[_key(terms[0])] = None
            return
        known = {group for term in terms if (group := self._group_of.get(_key(term))) is not None}
        if len(known) > 1:
            names = " and ".join(self.groups[group][0] for group in sorted(known))
            raise UserError(f"{where} would make {names} the same", "leave out the term that has two meanings")
        group = known.pop() if known else len(self.groups)
        if group == len(self.groups):
            self.groups.append([])
        for term in terms:
            # A term that an earlier entry protects stays so.
            if _key(term) not in self._group_of:
                self._group_of[_key(term)] = group
                self.groups[group].append(term)

    def find(self, text: str) -> Iterator[Found]:
        """The terms in a text from left to right, at each place the longest."""
        folded = _fold(text)
        rest = 0
        for match in self._place.finditer(folded):
            place = match.start()
            for term in self._starts.get(folded[place : place + 2], ()) if place >= rest else ():
                end = place + len(term.folded)
                if not folded.startswith(term.folded, place) or (term.exact and text[place:end] != term.text):
                    continue
                if not cuts_word(text, place, end):
                    yield Found(place, end, term)
                    rest = end
                    break

    def replaced(self, text: str) -> list[Replaced]:
        """The text with one term replaced, for each term and each other of its group that can stand there.

        A term is replaced in all its places or, where one of them may be a piece of a longer term, not at all; nor
        where the text names two terms of the group or asks about the word itself.
        """
        groups: dict[int, list[Found]] = defaultdict(list)
        for found in self.find(text):
            if found.term.group is not None:
                groups[found.term.group].append(found)
        if not groups or _ABOUT_WORDS.search(text):
            return []
        result = []
        for group, founds in groups.items():
            old = founds[0].term
            if any(f.term != old or not stands_alone(text, f.start, f.end) for f in founds):
                continue
            for new in self.groups[group]:
                if new != old.text and _fits_script(new, text):
                    changed = _replace(text, founds, new)
                    if changed is not None:
                        result.append(Replaced(changed, old.text, new, tuple(self.groups[group])))
        return result


def holds(text: str, term: str) -> bool:
    """True when a term stands in a text, also as a piece of a longer one."""
    return _fold(term) in _fold(text)


def _fits_script(term: str, text: str) -> bool:
    """No English phrase in a Chinese text, and no Chinese one in an English."""
    if HAN.search(text):
        return HAN.search(term) is not None or _is_acronym(term)
    return HAN.search(term) is None


def _replace(text: str, founds: Sequence[Found], new: str) -> str | None:
    """The text with `new` in all places, None where an English article would not fit any more."""
    parts = []
    rest = 0
    for found in founds:
        before, old = text[max(0, found.start - 8) : found.start], text[found.start : found.end]
        article = _ARTICLE.search(before)
        if article and article[1].lower() != _article(new):
            return None
        at_start = not before or _SENTENCE_END.search(before) is not None
        parts += [text[rest : found.start], _with_case(new, found, old, at_start)]
        rest = found.end
    return "".join(parts) + text[rest:]


def _article(term: str) -> str | None:
    """`a` or `an`; None where the letters do not tell how it begins when spoken (acronyms, h, u, e)."""
    first = term[0].lower()
    if _is_acronym(term) or not first.isalpha() or first in "hue":
        return None
    return "an" if first in "aio" else "a"


def _with_case(new: str, found: Found, old: str, at_start: bool) -> str:
    if _is_acronym(new) or HAN.search(new):
        return new
    if old.isupper() and not found.term.exact:
        return new.upper()
    titled = old[0].isupper() and found.term.text[0].islower()
    return new[0].upper() + new[1:] if at_start or titled else new


def _is_acronym(term: str) -> bool:
    return _ACRONYM.fullmatch(term) is not None


def _key(term: str) -> str:
    """What makes two terms one: letter case does not, but in an acronym."""
    return term if _is_acronym(term) else _fold(term)


def _fold(text: str) -> str:
    """Lower case, character by character, so that places stay."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def _read(path: Path) -> list[list[str]]:
    entries = read_list(path, "synonyms", "one group a line, such as `- [心梗, 心肌梗死]`")
    return [_group(entry, path, number) for number, entry in enumerate(entries, start=1)]


def _group(entry: Any, path: Path, number: int) -> list[str]:
    terms = [term.strip() for term in entry if isinstance(term, str)] if isinstance(entry, list) else []
    # One character is a piece of too many words.
    if not terms or len(terms) != len(entry) or min(map(len, terms)) < 2:
        raise UserError(
            f"synonyms {path}: entry {number} is not a list of terms of two or more characters",
            "write `- [TERM, SAME TERM]`, or `- [TERM]` for one that is left alone",
        )
    return list(dict.fromkeys(terms))
