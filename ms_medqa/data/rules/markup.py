"""HTML in a text: found by the names of its tags, and taken out."""

from __future__ import annotations

import html
import re
import string
from typing import NamedTuple

# Tags that begin a new line, tags that end a table cell, and others.
_LINES = "address|article|aside|blockquote|body|br|center|dd|div|dl|dt|fieldset|figure|footer|form|h[1-6]|head|header"
_LINES += "|hr|html|li|main|nav|ol|option|p|pre|section|select|table|tbody|tfoot|thead|title|tr|ul"
_CELLS = "td|th|caption|figcaption"
# Not `<s>`: in these texts it names a control token, which stays the text that it is.
_OTHERS = "a|abbr|acronym|b|big|button|cite|code|col|colgroup|del|em|font|i|iframe|img|input|ins|kbd|label|legend|link"
_OTHERS += "|mark|meta|nobr|noscript|q|script|small|span|strike|strong|style|sub|sup|svg|textarea|tt|u|video"
_TAG = re.compile(
    rf"<(?P<close>/?)(?P<name>(?P<line>{_LINES})|(?P<cell>{_CELLS})|{_OTHERS})"
    r"(?P<rest>(?:\s[^<>]*|\s*/)?)>|<!--|<!doctype[^<>]*>",
    re.IGNORECASE,
)
# With the semicolon only: `AT&T` and `R&D;` stay.
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_SPACE = re.compile(r"[^\S\n]+")
_LINE_ENDS = re.compile(r" ?\n ?")
_BLANK_LINES = re.compile(r"\n{3,}")
_NO_WIDTH = str.maketrans({"\xa0": " ", "\u200b": None, "\u200c": None, "\u200d": None, "\ufeff": None})
_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
# What is not for readers, down to its closing tag.
_HIDDEN = ("script", "style")


class Stripped(NamedTuple):
    """A text without its markup.

    Attributes:
        text: what is left.
        places: tags, comments and entities that were found; 0 leaves the text as it was.
        size: characters that tags, comments and scripts took.
    """

    text: str
    places: int
    size: int


def strip(text: str) -> Stripped:
    """Take tags, comments and scripts out and write entities such as `&nbsp;` and `&lt;` as their characters.

    Only known tags count, so `<0.05` and `<患者>` stay. Those of one letter also compare variables (`a<b>c`): they
    count where they have attributes, where they are closed later, or, for `<p>`, where no letter or digit stands before
    them. `<sup>` becomes `^`: 10<sup>9</sup> is not 109. Text with code between backticks is left alone.
    """
    if ("<" not in text and "&" not in text) or "`" in text:
        return Stripped(text, 0, 0)
    pieces: list[str] = []
    done = places = size = 0
    closings = _Closings(text)
    while match := _TAG.search(text, done):
        end, put = match.end(), ""
        name = (match["name"] or "").lower()
        if match[0] == "<!--":
            close = closings.after("-->", end)
            end, found = close + 3 if close >= 0 else end, close >= 0
        else:
            found = not name or _is_tag(match, name, closings)
        if not found:
            put = match[0]
        elif name:
            put = "\n" if match["line"] else " " if match["cell"] else ""
            if name == "sup" and not match["close"]:
                put = "^"
            if name in _HIDDEN and not match["close"]:
                close = closings.after(f"</{name}", end)
                end = close if close >= 0 else end
        pieces += [text[done : match.start()], put]
        if found:
            places, size = places + 1, size + end - match.start()
        done = end
    pieces.append(text[done:])
    result, entities = _ENTITY.subn(_character, "".join(pieces))
    if result == text:
        return Stripped(text, 0, 0)
    result = _SPACE.sub(" ", result.translate(_NO_WIDTH))
    result = _BLANK_LINES.sub("\n\n", _LINE_ENDS.sub("\n", result)).strip()
    return Stripped(result, places + entities, size)


class _Closings:
    """Where closing tags stand in a text, whatever their case."""

    def __init__(self, text: str) -> None:
        self._lower = text.translate(_LOWER)  # str.lower makes some letters two
        self._last: dict[str, int] = {}

    def after(self, closing: str, place: int) -> int:
        """The first one from `place` on, -1 where there is none. A text without any is searched only once."""
        last = self._last.get(closing)
        if last is None:
            last = self._last[closing] = self._lower.rfind(closing)
        return self._lower.find(closing, place) if last >= place else -1

    def alnum_before(self, place: int) -> bool:
        """Whether a letter or digit of ASCII stands before `place`."""
        before = self._lower[place - 1 : place]
        return before.isascii() and before.isalnum()


def _is_tag(match: re.Match[str], name: str, closings: _Closings) -> bool:
    rest = match["rest"].strip(" /\n\t")
    if rest:
        # `<li class="x">` has attributes, `a<b and c>d` has none.
        return "=" in rest
    if len(name) > 1 or match["close"]:
        return True
    if name == "p":
        return not closings.alnum_before(match.start())
    return closings.after(f"</{name}", match.end()) >= 0


def _character(match: re.Match[str]) -> str:
    # Control characters are no part of a text, however they are spelt; an unknown name is text.
    character = html.unescape(match[0])
    return (
        character if len(character) > 1 or character.isprintable() or character in "\n\xa0\u200b\u200c\u200d" else " "
    )
