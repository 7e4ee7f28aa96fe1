"""Weights of inputs, and other data mixed into the training part."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ms_medqa.config.schema import DataSection, MixSource
from ms_medqa.data.facts import Facts
from ms_medqa.data.gather import Gatherer, json_line, rejected_line
from ms_medqa.data.inputs import InputFile, expand_inputs
from ms_medqa.data.judging import Judges
from ms_medqa.data.mix import Amount, numbered_id, pass_numbers, select
from ms_medqa.data.overlap import BenchmarkIndex
from ms_medqa.data.report import FileCount
from ms_medqa.data.spool import Spool, SpooledPart
from ms_medqa.data.training_part import remove_overlap

REASON = "weight"


class Extra:
    """Records that are in the training part beside those that were kept: variants, repetitions, other data.

    Args:
        spool: takes them.

    Attributes:
        facts: what is known of each.
    """

    def __init__(self, spool: Spool) -> None:
        self.spool = spool
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
        value["id"] = prefix + numbered_id(value["id"], number)
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

    def mix_in(self, main: Amount, settings: DataSection, extra: Extra) -> dict[str, Any]:
        """Take as much as the weight says; what the report tells of it."""
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


def read_source(
    wish: MixSource, settings: DataSection, judges: Judges, spool: Spool, benchmark: BenchmarkIndex | None
) -> Source:
    """Read and judge other data by the rules of the conversion.

    Raises:
        UserError: as `Gatherer.read`.
    """
    # What is rejected here is counted in the report; the list of rejected records is that of the inputs.
    nowhere = io.StringIO()
    gatherer = Gatherer(settings, judges, spool, nowhere)
    gatherer.read(expand_inputs([wish.path]))
    records = spool.close()
    part = records.part(np.arange(len(records)))
    if benchmark is not None:
        part = remove_overlap(part, gatherer.facts, gatherer.files, benchmark, nowhere)
    return Source(wish, part, gatherer.facts, gatherer.files)
