"""More forms of the training questions: true synonyms, other ways to ask, a lead-in before the context.

No variant changes what is true: the answer stays as it is, letter by letter, and only what means the same is put into
the question. Records of evaluation data are not to be given to it; which they are, the caller knows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.data.augment.context import lead_ins
from ms_medqa.data.augment.reforms import reforms
from ms_medqa.data.augment.synonyms import SynonymList, holds
from ms_medqa.data.example import Example, Record
from ms_medqa.data.text import to_nfkc

METHODS = ("synonym", "reform", "context")

_NO_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True, slots=True)
class Variant:
    """A record that can be made from another one.

    Attributes:
        parent: the other one.
        method: one of `METHODS`.
        text: what is changed: its question or, of method `context`, its context.
    """

    parent: Example
    method: str
    text: str

    @property
    def record(self) -> Example:
        """The record: its id is the parent's with `~aug1` behind it, all but the id and the text is the parent's."""
        changes: dict[str, Any] = {"context" if self.method == "context" else "question": self.text}
        return replace(self.parent, id=f"{self.parent.id}~aug1", parent=self.parent.id, **changes)

    @property
    def asks_anew(self) -> bool:
        """Whether it counts as another question: not a dialogue, which counts by its first, nor an old question."""
        return self.method != "context" and not self.parent.history


class Augmenter:
    """Makes variants of training records.

    What it makes of a record is a function of the seed, the record and the lists: neither the order of the records nor
    the number of workers matters, and a record that gets a variant at one rate gets the same at each higher one.

    Args:
        rate: share of the records that are tried; each gets one variant where a method fits, so the share of variants
            is at most this.
        seed: of the choice of records and variants.
        synonyms: YAML files beside the shipped list; see `SynonymList`.

    Raises:
        UserError: the rate is not between 0 and 1; a file is at fault.
    """

    def __init__(self, rate: float = 0.3, seed: int = 42, synonyms: Sequence[str | Path] = ()) -> None:
        if not 0 <= rate <= 1:
            raise UserError(f"data.aug_rate is {rate}", "a share between 0 and 1, 0 for no variants")
        self._rate = rate
        self._seed = seed
        self._synonyms = SynonymList(synonyms) if rate else None

    def tries(self, name: str) -> bool:
        """Whether a variant is wanted of the record of this id."""
        return _hash(self._seed, name, "rate") < self._rate * 2**64

    def candidates(self, record: Record) -> Iterator[Variant]:
        """All that can be made of one training record, the preferred one first; each has the same id.

        Args:
            record: plain text, records that are not tried, and records that are variants themselves have none.
        """
        if self._synonyms is None or not isinstance(record, Example) or record.parent is not None:
            return
        if not self.tries(record.id):
            return
        found = [(method, texts) for method in METHODS if (texts := list(self._texts(record, method)))]
        # Most records have none, and few need an order.
        if len(found) > 1:
            found.sort(key=lambda each: _hash(self._seed, record.id, each[0]))
        for method, texts in found:
            if len(texts) > 1:
                texts.sort(key=lambda text: _hash(self._seed, record.id, f"{method}\n{text}"))
            question = bare(record.question) if method != "context" else None
            for text in texts:
                if question is None or bare(text) != question:
                    yield Variant(record, method, text)

    def variants(self, record: Record, taken: Callable[[Example], bool] | None = None) -> list[Variant]:
        """The variants of one training record: one or none.

        Args:
            record: as `candidates` takes it.
            taken: whether a question is known already (any part, any benchmark); another variant is tried then. It is
                not asked about dialogues, which count by their first question, nor where the question stays as it is.
        """
        for variant in self.candidates(record):
            if taken is None or not variant.asks_anew or not taken(variant.record):
                return [variant]
        return []

    def _texts(self, example: Example, method: str) -> Iterable[str]:
        if method == "context":
            return lead_ins(example.context or "")
        return self._renamed(example) if method == "synonym" else _reformed(example)

    def _renamed(self, example: Example) -> Iterator[str]:
        assert self._synonyms is not None
        for change in self._synonyms.replaced(example.question):
            # An option that names the thing must stay the one that was asked about.
            if any(holds(choice, term) for choice in example.choices or () for term in change.group):
                continue
            # A text with both names may be about the names: 甲亢是甲状腺功能亢进症的简称.
            if any(
                holds(text, change.old) and holds(text, change.new) for text in (example.answer, example.context or "")
            ):
                continue
            yield change.text


def _reformed(example: Example) -> list[str]:
    # The question of an exam holds its options.
    return [] if example.choices is not None else reforms(example.question)


def bare(question: str) -> str:
    """The question without case, width, space, punctuation and symbols."""
    text = to_nfkc(question).casefold()
    return _NO_WORD.sub("", text) or text


def _hash(seed: int, name: str, purpose: str) -> int:
    # A hash instead of a random generator: the same in every process and on every version of Python.
    text = f"{seed}\n{name}\n{purpose}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")
