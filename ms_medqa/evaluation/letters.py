"""Which options of an exam question a generated answer chooses.

An answer is read strictly: what a reader would have to guess is no choice. A *verdict* is what the answer begins with
(`B`, `B. text`, the text alone), each sentence that announces one (`the answer is B`, `故选B`), and what the sentences
that call options right (`B is correct`, `B正确`) come to. All must agree, and the last must be clear.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ms_medqa.data.shapes.options import LETTERS
from ms_medqa.evaluation import letter_patterns as say

# Where a verdict stands, and its letters.
_Verdict = tuple[int, str | None]
# Characters before a verdict in which its clause is looked for.
_CLAUSE_LENGTH = 80


def parse_letters(answer: str, choices: Sequence[str], several: bool = False, finished: bool = True) -> str | None:
    """The letters of the options that an answer chooses, such as `B` or `ABD`, ascending; None where that is not clear.

    Args:
        answer: what a model wrote.
        choices: the options' texts in their order, without letters; the first is A.
        several: more than one option may be chosen; else an answer that chooses two is not clear.
        finished: False where the answer was cut off: what it says of an option that it begins with may then be the
            start of a walk through all, so only an announced verdict, and lines of just letters or options, count.
    """
    text = say.plain(answer)
    reader = _Reader(text, choices, several, finished)
    said, right = _said(text, reader)
    turned = [(each.start(), reader.announced(each.end(), say.FULL_STOP)) for each in say.RETRACTED.finditer(text)]
    since = max((pos for pos, _ in turned), default=0)
    said += turned
    verdicts = _meant(text, said, since)
    # Where several are called right, they are statements that the answer goes through. One that was cut off might.
    judged = set(_meant(text, right, since)) if finished else set()
    first = None if since else reader.beginning()
    # All options are a copy of the question, unless that is all that the answer says.
    if first is not None and not (verdicts and first == LETTERS[: len(choices)]):
        verdicts.insert(0, first)
    verdicts.insert(0, judged.pop() if len(judged) == 1 else "")
    return verdicts[-1] if verdicts[-1] and set(verdicts) <= {verdicts[-1], ""} else None


def _said(text: str, reader: _Reader) -> tuple[list[_Verdict], list[_Verdict]]:
    """What is announced or called the answer, and what is only called right, each with its place."""
    said, right = [], []
    for pattern, end in say.VERDICTS:
        for match in pattern.finditer(text):
            heads = [match.end(name) for name in pattern.groupindex]
            said.append((max([match.start(), *heads]), reader.announced(match.end(), end)))
    for match in say.CALLED.finditer(text):
        if not say.DENIED.match(text, match.end()):
            said.append(reader.called(match.start(), match["letter"]))
    for match in say.PASSED.finditer(text):
        if not say.DENIED.match(text, match.end()):
            verdicts = said if match["noun"] or match["name"] else right
            verdicts.append((match.start("letters"), reader.named(match["letters"])))
    return said, right


def _meant(text: str, said: Sequence[_Verdict], since: int) -> list[str]:
    """Verdicts from a place of a text on, in their order, without those whose clause says the contrary or weighs."""
    return [
        verdict
        for pos, verdict in sorted(said, key=lambda each: each[0])
        if verdict is not None
        and pos >= since
        and not say.OTHERWISE.search(say.CLAUSE.split(text[max(0, pos - _CLAUSE_LENGTH) : pos])[-1])
    ]


class _Reader:
    """Reads verdicts in an answer: letters, an empty string where one is not clear, None where there is none."""

    def __init__(self, text: str, choices: Sequence[str], several: bool, finished: bool) -> None:
        self._text, self._several, self._finished = text, several, finished
        self._texts = [say.plain(text).rstrip(".。 ") for text in choices]
        self._species = {
            (name[1].lower(), name[2].lower()) for one in self._texts for name in say.TWO_WORDS.finditer(one)
        }
        # Case and lines do not matter in an option's text.
        self._folded, *self._options = map(_fold, [text, *self._texts])
        self._longest = max(map(len, self._options), default=0)
        self._starting: dict[str, list[tuple[str, str]]] = {}
        for option, letter in zip(self._options, LETTERS, strict=False):
            self._starting.setdefault(option[:1], []).append((option, letter))

    def beginning(self) -> str | None:
        """What the first lines choose, or the answer as a whole."""
        listed = self._listed(0)
        if listed is None:
            return self._at(0, say.LINE_END if self._finished else say.UNFINISHED_END, whole=True)
        chosen, end = listed
        last = (say.LINE_END if self._finished else say.WHOLE_LINE).match(self._text, end)
        rest = say.SENTENCE.match(self._text, end)
        is_refused = last is None and rest is not None and say.REFUSED.search(rest[0])
        # A list that ends where the answer was cut off might go on.
        if is_refused or not (self._finished or (last and (len(chosen) == 1 or last.end() < len(self._text)))):
            return ""
        # Options that are gone through one by one are no choice, but an explanation may be about the others.
        others = []
        for mark in say.MARKED_LATER.finditer(self._text, end):
            letter, at = mark["letter"].upper(), self._option(mark.end())
            if at and letter in at[0] and letter not in chosen:
                is_line = self._text[mark.start() - 1] == "\n" and say.LINE_END.match(self._text, at[1]) is not None
                others.append(is_line)
        below = say.NEXT_LINE.search(self._text, end)
        if (others and last is None) or any(others) or (chosen == "A" and below and below[1] == "B"):
            return ""
        return self._clear(chosen)

    def announced(self, pos: int, end: re.Pattern[str] | None) -> str | None:
        """What stands where a verdict was announced, and has this end; without one, only letters with their texts."""
        if end is None:
            return self._clear(listed[0]) if (listed := self._listed(pos)) else None
        verdict = self._at(pos, end)
        goes_on = verdict == "A" and self._text.find("B", pos, pos + 310) > 0 and say.GOES_ON.match(self._text, pos)
        return "" if goes_on else verdict

    def called(self, pos: int, letter: str | None) -> _Verdict:
        """The option whose text is all of a clause before a place, perhaps with its letter; where the text begins."""
        size = max((len(text) for text in self._options if text and self._folded.endswith(text, 0, pos)), default=0)
        before = "\n" * (pos - size < 12) + self._text[max(0, pos - size - 12) : pos - size]
        if not size or not say.CALLED_FROM.search(before):
            return pos, None
        at, mark = self._option(pos - size), say.LETTER_BEFORE.search(before)
        letters = at[0] if at and at[1] == pos else ""
        beside = {mark[1] if mark else letters, letter or letters}
        return pos - size, self._clear(letters) if beside == {letters} else ""

    def named(self, letters: str) -> str | None:
        """The letters in `A, B and D`, `ABD` or `b)`; None in BED, or in ACE where an option has that word."""
        found = ""
        for run in say.RUN.findall(letters):
            if len(run) > 1:
                word = re.compile(rf"(?<![A-Za-z]){run}(?![A-Za-z])")
                if list(run) != sorted(set(run)) or any(map(word.search, self._texts)):
                    return None
            found += run.upper()
        return self._clear(found)

    def _clear(self, letters: str) -> str:
        chosen = "".join(sorted(set(letters)))
        known = set(chosen) <= set(LETTERS[: len(self._texts)])
        return chosen if known and (self._several or len(chosen) == 1) else ""

    def _at(self, pos: int, end: re.Pattern[str], whole: bool = False) -> str | None:
        """What stands at a place: options with letters and texts, letters alone, or texts alone.

        Args:
            pos: the place.
            end: what must follow a letter or a text.
            whole: texts alone must be all that is left.
        """
        if (listed := self._listed(pos)) is not None:
            return self._clear(listed[0])
        letters, texts = self._letters_at(pos, end), self._texts_at(pos, end, whole)
        # `A`, where the text of another option is just that.
        return "" if letters and texts and letters != texts else texts or letters

    def _letters_at(self, pos: int, end: re.Pattern[str]) -> str | None:
        """Letters, and those that are the whole next lines."""
        found: list[str] = []
        while (match := say.CHOSEN.match(self._text, pos)) and len(found) < len(LETTERS):
            if say.OR.match(self._text, match.end()):
                return ""
            last = end.match(self._text, match.end())
            if last is None and end is say.SENTENCE_END:
                last = say.BRACKETED.match(self._text, match.end())
            if last is None or say.DENIED.match(self._text, match.end()) or self._is_genus(match[0], match.end()):
                break
            found.append(match[0])
            if not last[0].endswith("\n"):
                break
            pos, end = last.end(), say.LINE_END
        return self.named(" ".join(found)) if found else None

    def _texts_at(self, pos: int, end: re.Pattern[str], whole: bool) -> str | None:
        """Texts of options, one a line."""
        chosen, opened = "", say.OPENED.match(self._text, pos)
        assert opened is not None
        pos = opened.end()
        while at := self._option(pos):
            if behind := say.LETTER_BEHIND.match(self._text, at[1]):
                if behind[1] not in at[0]:
                    return ""
                at = behind[1], behind.end()
            last = end.match(self._text, at[1])
            if not last or say.DENIED.match(self._text, at[1]):
                break
            if len(at[0]) > 1 or at[0] in chosen:
                return ""
            chosen, pos = chosen + at[0], last.end()
            if not last[0].endswith("\n"):
                break
        return self._clear(chosen) if chosen and (not whole or pos == len(self._text)) else None

    def _listed(self, pos: int) -> tuple[str, int] | None:
        """Options one behind the other, each with its letter and its text, and where the last text ends."""
        chosen, end = "", pos
        while mark := say.MARKED.match(self._text, pos):
            letter = mark["letter"].upper()
            at = self._option(mark.end()) or self._cut_off(mark.end(), letter)
            if at is None or letter in chosen or say.DENIED.match(self._text, at[1]):
                break
            # The letter of one option with the text of another, or one of two.
            if letter not in at[0] or say.OR.match(self._text, at[1]):
                return "", at[1]
            # A line that goes on explains why an option was not chosen.
            if chosen and self._text[mark.start() - 1] == "\n" and not say.LINE_END.match(self._text, at[1]):
                break
            chosen, end = chosen + letter, at[1]
            between = say.BETWEEN.match(self._text, end)
            assert between is not None
            pos = between.end()
        return (chosen, end) if chosen else None

    def _option(self, pos: int) -> tuple[str, int] | None:
        """The letters of the options with the longest text that stands at a place, and where it ends."""
        found = [
            (pos + len(option), letter)
            for option, letter in self._starting.get(self._folded[pos : pos + 1] or "\n", ())
            # Neither `Insulin` in `insulinoma` nor 10 in 100 or 10.5.
            if self._folded.startswith(option, pos) and not say.SAME_WORD.match(self._text, pos + len(option) - 1)
        ]
        end = max(found, default=(0, ""))[0]
        return ("".join(letter for each, letter in found if each == end), end) if found else None

    def _cut_off(self, pos: int, letter: str) -> tuple[str, int] | None:
        """The same of the beginning of one option's text, where the line ends with it."""
        options = self._starting.get(self._folded[pos : pos + 1] or "\n", ())
        end = pos + (len(self._text[pos : pos + self._longest + 1].split("\n", 1)[0]) if options else 0)
        said = self._folded[pos:end].rstrip(")].。… ")
        begun = "".join(other for option, other in options if option.startswith(said))
        return (letter, end) if len(said) > 2 and begun == letter else None

    def _is_genus(self, letter: str, pos: int) -> bool:
        """True for the E in `E. Coli`, where an option is Escherichia coli."""
        word = say.SPECIES.match(self._text, pos)
        return word is not None and (letter.lower(), word[1].lower()) in self._species


def _fold(text: str) -> str:
    """Small letters and one line, of the same length."""
    return "".join(small if len(small := char.lower()) == 1 else char for char in text).replace("\n", " ")
