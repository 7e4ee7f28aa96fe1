"""What becomes of a batch of raw records: parsed, judged and tokenised, as columns that travel in a few blocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ms_medqa.config.schema import DataSection
from ms_medqa.data.clean import Cleaner, Kept, Note, Rejected
from ms_medqa.data.example import Example, Record
from ms_medqa.data.formats import FileHints
from ms_medqa.data.kept_columns import KeptColumns, columns_of
from ms_medqa.data.minhash import record_signatures, signatures
from ms_medqa.data.preloaded import load_tokenizer
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.raw import RawRecord
from ms_medqa.data.readers import parse_raw


@dataclass(frozen=True)
class Task:
    """What a worker needs to know."""

    settings: DataSection
    tokenizer: Path
    prompt: str


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of n raw records, of which k are kept.

    Attributes:
        formats: n; each one's format in words, empty where none was found.
        columns: the names of all their columns, as they turned up.
        rejected: place in the batch → the reason against it.
        places: k; places in the batch of those that are kept. All that follows is of these, in this order.
        kept: themselves.
        signatures: uint32 (k, 2, num_perm), of the first question and of all questions and answers; (k, 1, num_perm)
            where records are not compared.
        notes: number among them → what was done to it, where anything was.
        terms: entries of the lexicon that each one names; empty without a lexicon.
    """

    formats: list[str]
    columns: list[str]
    rejected: dict[int, Rejected]
    places: list[int]
    kept: KeptColumns
    signatures: np.ndarray
    notes: dict[int, tuple[Note, ...]]
    terms: list[tuple[int, ...]]


class Judge:
    """Parses and judges batches of raw records; knows nothing of other batches.

    Attributes:
        tokenizer: of the model.
        prompt: what renders a record.
        cleaner: judges what is parsed.
    """

    def __init__(self, task: Task) -> None:
        self._settings = task.settings
        self.tokenizer = load_tokenizer(task.tokenizer)
        self.prompt = Prompt.named(task.prompt, self.tokenizer)
        self.cleaner = Cleaner(task.settings, self.tokenizer, self.prompt)

    def __call__(self, raws: Sequence[RawRecord], stem: str, source: str, number: int, hints: FileHints) -> Judged:
        """The verdict on some records of a file.

        Args:
            raws: the records.
            stem: what the id of a record without one begins with.
            source: name of the file.
            number: of the file.
            hints: what the beginning of the file tells of all its records.
        """
        readings = [parse_raw(raw, self._settings, stem, source, hints) for raw in raws]
        judged = iter(self.cleaner.judge([reading.record for reading in readings if reading.record is not None]))
        rejected: dict[int, Rejected] = {}
        kept: dict[int, Kept] = {}
        for place, reading in enumerate(readings):
            outcome = Rejected(*reading.error) if reading.error is not None else next(judged)
            if isinstance(outcome, Kept):
                kept[place] = outcome
            else:
                rejected[place] = outcome
        texts = [_texts(outcome.record) for outcome in kept.values()]
        if self._settings.near_duplicates is None:
            marks = signatures([first for first, *_ in texts])[:, None]
        else:
            marks = record_signatures(texts)
        return Judged(
            formats=[reading.format for reading in readings],
            columns=_columns(raws),
            rejected=rejected,
            places=list(kept),
            kept=columns_of(list(kept.values()), number, [raws[place].line for place in kept]),
            signatures=marks,
            notes={index: notes for index, each in enumerate(kept.values()) if (notes := _notes(each))},
            terms=[each.terms for each in kept.values()] if self._settings.lexicon else [],
        )


def _columns(raws: Iterable[RawRecord]) -> list[str]:
    """The names of all their columns, as they turn up."""
    kinds = dict.fromkeys(tuple(raw.value) for raw in raws if isinstance(raw.value, Mapping))
    return list(dict.fromkeys(str(name) for names in kinds for name in names))


def _notes(kept: Kept) -> tuple[Note, ...]:
    """What was done to a record while it was read, and by the rules."""
    return (*(Note(reason, "") for reason in kept.record.notes), *kept.notes)


def _texts(record: Record) -> tuple[str, ...]:
    """The question by which a record is grouped, and with it everything by which it is alike to another."""
    if not isinstance(record, Example):
        return (record.text,)
    return (*itertools.chain.from_iterable(record.history), record.question, record.answer)
