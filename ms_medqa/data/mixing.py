"""Weights of inputs, and other data mixed into the training part."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import json_line
from ms_medqa.config.schema import DataSection, MixSource
from ms_medqa.data.banding import near_duplicates
from ms_medqa.data.facts import Facts
from ms_medqa.data.gather import Gatherer, rejected_line
from ms_medqa.data.inputs import InputFile, expand_inputs
from ms_medqa.data.judging import Judges
from ms_medqa.data.mix import Amount, numbered_id, pass_numbers, select
from ms_medqa.data.overlap import BenchmarkIndex
from ms_medqa.data.raw import check_files
from ms_medqa.data.report import FileCount
from ms_medqa.data.spool import Spool, SpooledPart
from ms_medqa.data.training_part import first_halves, remove_overlap
from ms_medqa.data.unique_ids import UniqueIds

REASON = "weight"
# Why other data is not taken: it asks a question of the validation or test part, or nearly one.
_HELD_OUT = "held_out"


class HeldOut(NamedTuple):
    """The n questions of validation and test.

    Attributes:
        digests: uint8 (n, 16), as `split.question_digest` makes them.
        signatures: uint32 (n, num_perm), MinHash of each.
    """

    digests: np.ndarray
    signatures: np.ndarray

    @classmethod
    def of(cls, parts: Iterable[SpooledPart], facts: Facts) -> HeldOut:
        """Those of these parts, of which the facts are known."""
        held = list(parts)
        digests = facts.digests()[np.concatenate([part.indices for part in held])]
        return cls(digests, np.concatenate([part.spooled.questions_of(part.indices) for part in held]))


class Extra:
    """Records that are in the training part beside those that were kept: variants, repetitions, other data.

    Args:
        spool: takes them.
        ids: gives them ids of their own.

    Attributes:
        facts: what is known of each.
    """

    def __init__(self, spool: Spool, ids: UniqueIds) -> None:
        self.spool = spool
        self.ids = ids
        self.facts = Facts()

    def repeat(self, records: SpooledPart, facts: Facts, place: int, number: int, prefix: str = "") -> None:
        """Take a record over under an id of its own.

        Args:
            records: it is one of these.
            facts: of the spool that they are in.
            place: its place among them.
            number: how often it was taken before.
            prefix: what its id begins with.
        """
        index = int(records.indices[place])
        value = json.loads(records.spooled.line(index))
        value["id"] = self.ids.take(prefix + numbered_id(value["id"], number))
        value.pop("split", None)
        spooled = records.spooled
        self.spool.add(value["id"], json_line(value), spooled.tokens(index), spooled.mask(index))
        self.facts.copy(facts, index)


def apply_weights(
    train: SpooledPart,
    sources: Sequence[InputFile],
    facts: Facts,
    files: Sequence[FileCount],
    seed: int,
    rejected_file: IO[str],
    extra: Extra,
) -> SpooledPart:
    """The training part with each file's records as often as its weight says.

    Those that a weight below 1 leaves out are counted and written down; repetitions go to `extra`.
    """
    owners = np.frombuffer(facts.files, np.int32)[train.indices]
    stays = np.ones(len(train), bool)
    for number, source in enumerate(sources):
        places = np.flatnonzero(owners == number)
        if source.weight == 1 or not len(places):
            continue
        mine = train.spooled.part(train.indices[places])
        amount = Amount.of(mine.lengths)
        chosen = select(
            amount,
            mine.lengths,
            weight=source.weight,
            digests=facts.content_digests()[mine.indices],
            seed=seed,
            name=source.name,
        )
        left_out = np.setdiff1d(np.arange(len(mine)), chosen)
        stays[places[left_out]] = False
        for place in left_out.tolist():
            index = int(mine.indices[place])
            files[number].rejected[REASON] += 1
            value = json.loads(mine.spooled.line(index))
            line = rejected_line(files[number].name, facts.lines[index], REASON, f"weight {source.weight:g}", value)
            rejected_file.write(line)
        for place, taken in zip(chosen.tolist(), pass_numbers(chosen, len(mine)).tolist(), strict=True):
            if taken:
                extra.repeat(mine, facts, place, taken)
    return train.spooled.part(train.indices[stays])


@dataclass
class Source:
    """Other data that was read and judged.

    Attributes:
        records: those that may be taken.
        files: counts of its files.
    """

    wish: MixSource
    records: SpooledPart
    facts: Facts
    files: list[FileCount]

    def mix_in(self, main: Amount, kind: str, held_out: HeldOut, settings: DataSection, extra: Extra) -> dict[str, Any]:
        """Take as much as the weight says; what the report tells of it.

        Args:
            main: size of the training part that it is mixed into.
            kind: of that part, `sft` or `text`.
            held_out: what asks one of these, or nearly one, is not taken.
            settings: what the weight counts, what nearly is, and the seed.
            extra: takes the records.

        Raises:
            UserError: it has no usable records, or records of the other kind.
        """
        self._check_kind(kind)
        self._leave_out(held_out, settings.cluster_similarity)
        lengths = self.records.lengths
        chosen = select(
            main,
            lengths,
            weight=self.wish.weight,
            digests=self.facts.content_digests()[self.records.indices],
            by=settings.mix_by,
            seed=settings.seed,
            name=f"data.mix {self.wish.path}",
        )
        stem = Path(self.wish.path).name
        for place, taken in zip(chosen.tolist(), pass_numbers(chosen, len(self.records)).tolist(), strict=True):
            extra.repeat(self.records, self.facts, place, taken, prefix=f"{stem}:")
        return {
            "path": stem,
            "weight": self.wish.weight,
            "by": settings.mix_by,
            "taken": len(chosen),
            "tokens": int(lengths[chosen].sum()),
            "files": [file.to_dict() for file in self.files],
        }

    def _leave_out(self, held_out: HeldOut, threshold: float) -> None:
        indices = self.records.indices
        if not indices.size:
            return
        known = np.isin(first_halves(self.facts.digests()[indices]), first_halves(held_out.digests))
        # Of several near duplicates the first is told: where one is held out, that one.
        marks = np.concatenate([held_out.signatures, self.records.spooled.questions_of(indices)])
        first = near_duplicates(marks, threshold)[len(held_out.signatures) :]
        known |= (first >= 0) & (first < len(held_out.signatures))
        for index in indices[known].tolist():
            self.files[self.facts.files[index]].rejected[_HELD_OUT] += 1
        self.records = self.records.spooled.part(indices[~known])

    def _check_kind(self, kind: str) -> None:
        texts = np.frombuffer(self.facts.texts, np.int8)
        others = np.flatnonzero(texts != (kind == "text"))
        if not others.size:
            return
        name = self.files[self.facts.files[int(others[0])]].path
        what, into = ("plain text", "questions") if kind == "sft" else ("questions", "plain text")
        raise UserError(f"data.mix: {name} holds {what}, which cannot be mixed into {into}", "leave it out")


def files_to_mix(wish: MixSource) -> list[InputFile]:
    """The files of other data, found before anything is read.

    Raises:
        UserError: one is absent, or has a weight in its path too.
    """
    files = expand_inputs([wish.path])
    for file in files:
        if file.weight != 1:
            raise UserError(f"data.mix: {wish.path} has two weights", f"leave out @{file.weight:g}")
    check_files([file.path for file in files])
    return files


def read_source(
    wish: MixSource,
    inputs: Sequence[InputFile],
    settings: DataSection,
    judges: Judges,
    spool: Spool,
    benchmark: BenchmarkIndex | None,
) -> Source:
    """Read and judge other data by the rules of the conversion.

    Raises:
        UserError: as `Gatherer.read`.
    """
    # What is rejected here is counted in the report; the list of rejected records is that of the inputs.
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        gatherer = Gatherer(settings, judges, spool, nowhere)
        gatherer.read(inputs)
        records = spool.close()
        part = records.part(np.arange(len(records)))
        if benchmark is not None:
            part = remove_overlap(part, gatherer.facts, gatherer.files, benchmark, nowhere)
    return Source(wish, part, gatherer.facts, gatherer.files)
