"""Whether an answer holds the fact that a right answer must hold."""

from __future__ import annotations

import re
import unicodedata


def normalise_fact(text: str) -> str:
    """NFKC, lower case, no white space: the form in which a key fact is looked for."""
    return "".join(unicodedata.normalize("NFKC", text).lower().split())


# What may not stand before and after a key fact that starts or ends with such a character.
_EDGES = (
    ("[0-9]", r"(?<![0-9])(?<![0-9]\.)", r"(?![0-9])(?!\.[0-9])"),
    ("[〇零一二三四五六七八九十百千]", "(?<![〇零一二三四五六七八九十百千])", "(?![〇零一二三四五六七八九十百千])"),
    ("[a-z]", "(?<![a-z])", "(?![a-z])"),
)


def has_key_fact(answer: str, key: str) -> bool:
    """True where the answer contains the key fact, whatever its width of letters, case and white space.

    A key that starts or ends with a digit must not go on as a longer number, nor one that starts or ends with a Latin
    letter as a longer word: `20` is not found in `120` or `20.5`, `十天` not in `三十天`, `ALT` not in `health`. Other
    words are not told apart: `麻疹` is found in `荨麻疹`.
    """
    wanted = normalise_fact(key)
    if not wanted:
        return False
    before = "".join(guard for kind, guard, _ in _EDGES if re.match(kind, wanted[0]))
    after = "".join(guard for kind, _, guard in _EDGES if re.match(kind, wanted[-1]))
    # The answer keeps its white space, which parts words and numbers.
    body = r"\s*".join(map(re.escape, wanted))
    return re.search(before + body + after, unicodedata.normalize("NFKC", answer).lower()) is not None
