"""Wrong medical claims, found in answers by their wording."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.data.text import to_nfkc
from ms_medqa.data.user_yaml import read_list

SHIPPED = Path(__file__).with_name("wrong_claims.yaml")
_SPACES = re.compile(r"[^\S\n]+")
_CHINESE_SPACE = re.compile(r"(?<=[^\x00-\x7f]) | (?=[^\x00-\x7f])")
_SENTENCE_END = re.compile(r"[。!?;\n]|\.(?=\s|$)")


@dataclass(frozen=True, slots=True)
class Claim:
    """A wrong statement.

    Attributes:
        text: the phrase, as its author wrote it.
        phrase: the phrase to look for.
        unless: words that, earlier in the same sentence, turn it into a true statement.
    """

    text: str
    phrase: str
    unless: tuple[str, ...] = ()

    def is_made_in(self, sentence: str) -> bool:
        """True when a normalised sentence makes this claim."""
        place = sentence.find(self.phrase)
        return place >= 0 and not any(word in sentence[:place] for word in self.unless)


class ClaimList:
    """The shipped claims and those of the user's files.

    Args:
        paths: YAML files, each a list of phrases or of `{claim: …, unless: […]}` mappings.

    Raises:
        UserError: a file is absent or not such a list.
    """

    def __init__(self, paths: Sequence[str | Path] = ()) -> None:
        self.claims = [claim for path in (SHIPPED, *paths) for claim in _read(user_path(path))]
        # One search instead of one for each phrase: 0.5 µs instead of 4 for the shipped list.
        self._phrases = re.compile("|".join(re.escape(claim.phrase) for claim in self.claims))

    def find(self, answers: Iterable[str]) -> str | None:
        """The first wrong claim that one of the answers makes, or None."""
        for answer in answers:
            text = _normalise(answer)
            # Most answers hold none of the phrases, so sentences are cut only where one does.
            if not self._phrases.search(text):
                continue
            for sentence in _SENTENCE_END.split(text):
                for claim in self.claims:
                    if claim.is_made_in(sentence):
                        return claim.text
        return None


def _normalise(text: str) -> str:
    """NFKC, lower case, spaces inside Chinese text removed and others made single."""
    text = to_nfkc(text).lower()
    # `text.normalize` has left no other spaces in a record; most Chinese texts hold none, and are not looked through.
    if " " not in text and "\t" not in text:
        return text
    return _CHINESE_SPACE.sub("", _SPACES.sub(" ", text))


def _read(path: Path) -> list[Claim]:
    entries = read_list(path, "wrong claims", "one phrase a line, such as `- 根治糖尿病`")
    return [_claim(entry, path, number) for number, entry in enumerate(entries, start=1)]


def _claim(entry: Any, path: Path, number: int) -> Claim:
    body = {"claim": entry} if isinstance(entry, str) else entry
    text = body.get("claim") if isinstance(body, dict) else None
    unless = body.get("unless", []) if isinstance(body, dict) else None
    words = unless if isinstance(unless, list) and all(isinstance(word, str) for word in unless) else None
    # An empty phrase is in every answer, and an empty exception in every sentence.
    if not isinstance(text, str) or not text.strip() or words is None or not all(map(str.strip, words)):
        raise UserError(
            f"wrong claims {path}: entry {number} is not a phrase",
            "write `- PHRASE` or `- {claim: PHRASE, unless: [WORD]}`",
        )
    # Spaces at the ends of an exception count: `no ` must not be found in `know`.
    return Claim(text, _normalise(text).strip(), tuple(_normalise(word) for word in words))
