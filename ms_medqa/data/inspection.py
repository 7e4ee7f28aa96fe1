"""The figures and examples that an inspection finds, whatever it was read from."""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ms_medqa.data.example import Example, PlainText, Record
from ms_medqa.data.excerpt import Shown
from ms_medqa.data.languages import LANGUAGES, language_of
from ms_medqa.data.split import question_key
from ms_medqa.data.tallies import LengthTally, RepeatTally

MEASURES = ("record", "question", "answer")


@dataclass(slots=True)
class Source:
    """Counts of one file, or of one part of a converted folder.

    Attributes:
        name: the file or part.
        layout: such as JSON Lines.
        encoding: of its text, empty where it is none.
        size: bytes.
        shapes: format of a record → records.
        read: records.
        reasons: why records are not usable → how many.
        first: line and detail of the first of them.
        fault: why the file could not be read (to its end), else None.
        tokens: tokens, and trained ones, of a converted part.
    """

    name: str
    layout: str = ""
    encoding: str = ""
    size: int = 0
    shapes: Counter[str] = field(default_factory=Counter)
    read: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: tuple[int, str] | None = None
    fault: str | None = None
    tokens: tuple[int, int] | None = None

    @property
    def usable(self) -> int:
        return self.read - self.reasons.total()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, what is not known left out."""
        result: dict[str, Any] = {"name": self.name, "layout": self.layout, "encoding": self.encoding}
        result |= {"bytes": self.size, "shapes": dict(self.shapes), "read": self.read, "usable": self.usable}
        result["not_usable"] = dict(self.reasons)
        if self.first is not None:
            result["first_not_usable"] = {"line": self.first[0], "detail": self.first[1]}
        if self.tokens is not None:
            result |= {"tokens": self.tokens[0], "trained_tokens": self.tokens[1]}
        return {key: value for key, value in result.items() if value != ""} | {"fault": self.fault}


class Texts:
    """Figures on the texts of records: repeats and languages."""

    def __init__(self) -> None:
        self.records = RepeatTally()
        self.questions = RepeatTally()
        self.languages: Counter[str] = Counter(dict.fromkeys(LANGUAGES, 0))

    def add(self, record: Record) -> None:
        """Count one record."""
        texts = record_texts(record)
        # Composed characters and spaces that only look different make no other record.
        self.records.add("\0".join(" ".join(unicodedata.normalize("NFC", text).split()) for text in texts))
        if isinstance(record, Example):
            self.questions.add(question_key(record))
        self.add_language("\n".join(texts))

    def add_language(self, text: str) -> None:
        """Count the language of a text."""
        self.languages[language_of(text)] += 1


@dataclass(slots=True)
class Inspection:
    """All that is told of a path.

    Attributes:
        path: as the user gave it.
        kind: `raw file`, `folder of raw files`, `converted folder`, `part of a converted folder`, `MindRecord file`.
        unit: of the lengths, `characters` or `tokens`.
        sources: files or parts.
        lengths: lengths of the usable records (`record`), and of their questions and answers (`question`, `answer`); of
            converted ones, of what is trained and of the rest (`trained`, `prompt`).
        texts: repeats and languages; None where no text is known.
        seed: of the choice of examples.
        shared_questions: in a converted folder, questions that stand in two parts.
        notes: what the reader should know beyond the figures.
        facts: further figures by name: tokenizer, prompt, the counts of the conversion.
    """

    path: str
    kind: str
    unit: str
    seed: int
    sources: list[Source] = field(default_factory=list)
    lengths: dict[str, LengthTally] = field(default_factory=lambda: {name: LengthTally() for name in MEASURES})
    texts: Texts | None = field(default_factory=Texts)
    shared_questions: int | None = None
    examples: list[Shown] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        lengths = {}
        for name, counts in self.lengths.items():
            if counts.count:
                edges, numbers = counts.histogram()
                lengths[name] = counts.summary() | {"histogram": {"edges": edges, "counts": numbers}}
        result: dict[str, Any] = {
            "path": self.path,
            "kind": self.kind,
            "read": sum(source.read for source in self.sources),
            "usable": sum(source.usable for source in self.sources),
            "sources": [source.to_dict() for source in self.sources],
            "unit": self.unit,
            "lengths": lengths,
        }
        if self.texts is not None:
            questions, records = self.texts.questions, self.texts.records
            result["duplicates"] = {"question": questions.repeats(), "record": records.repeats()}
            result["duplicates"] |= {"exact": questions.exact and records.exact}
            if self.shared_questions is not None:
                result["duplicates"]["questions_in_two_parts"] = self.shared_questions
            result["languages"] = dict(self.texts.languages)
        result |= self.facts
        result |= {"notes": self.notes, "seed": self.seed}
        result["examples"] = [
            {
                "id": shown.id,
                "source": shown.source,
                "spans": [
                    {"text": span.text, "trained": span.trained} | ({"label": span.label} if span.label else {})
                    for span in shown.spans
                ],
            }
            for shown in self.examples
        ]
        return result


def record_texts(record: Record) -> list[str]:
    """All texts of a record."""
    if isinstance(record, PlainText):
        return [record.text]
    rounds = (*record.history, (record.question, record.answer))
    return [record.system or "", record.context or "", *(text for turn in rounds for text in turn)]
