"""What is done to the training part alone: evaluation data is kept out of it, variants are added to it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from ms_medqa.config.console import progress
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import json_line
from ms_medqa.config.schema import DataSection
from ms_medqa.data.augment import Augmenter
from ms_medqa.data.clean import Cleaner, Kept, digest_of
from ms_medqa.data.example import Example, PlainText, Record
from ms_medqa.data.facts import Facts
from ms_medqa.data.gather import rejected_line
from ms_medqa.data.inputs import expand_inputs
from ms_medqa.data.overlap import BenchmarkIndex, record_texts
from ms_medqa.data.readers import read_records
from ms_medqa.data.report import FileCount
from ms_medqa.data.split import question_digest
from ms_medqa.data.spool import Spool, SpooledPart
from ms_medqa.data.unique_ids import UniqueIds

REASON = "benchmark"
_BATCH = 2048


def read_benchmark(inputs: Sequence[str | Path], settings: DataSection) -> BenchmarkIndex:
    """The evaluation records that training must not hold.

    Raises:
        UserError: a file is at fault, or holds no record that can be used.
    """

    def records() -> Iterator[Record]:
        for source in expand_inputs(inputs):
            _, readings = read_records(source.path, settings, source.name)
            usable = 0
            for reading in readings:
                if reading.record is not None:
                    usable += 1
                    yield reading.record
            if not usable:
                raise UserError(f"{source.path}: no record of this benchmark can be read", "look at it with inspect")

    return BenchmarkIndex.from_records(records(), settings.cluster_similarity, settings.benchmark_ngram)


def remove_overlap(
    train: SpooledPart, facts: Facts, files: Sequence[FileCount], benchmark: BenchmarkIndex, rejected_file: IO[str]
) -> SpooledPart:
    """The training part without the records that give an evaluation record away; those are counted and written down."""
    clean: list[int] = []
    bar = progress(range(0, len(train), _BATCH), desc="comparing with the benchmark", unit="batch")
    for start in bar:
        batch = train.slice(start, start + _BATCH)
        values = [json.loads(line) for line in batch.lines()]
        hits = benchmark.overlaps([record_texts(_record(value)) for value in values])
        for number, value, hit in zip(batch.indices.tolist(), values, hits, strict=True):
            if hit is None:
                clean.append(number)
                continue
            file = files[facts.files[number]]
            file.rejected[REASON] += 1
            detail = f"{hit.reason} of {hit.record}"
            rejected_file.write(rejected_line(file.name, facts.lines[number], REASON, detail, value))
    return train.spooled.part(clean)


def add_variants(
    train: SpooledPart,
    digests: np.ndarray,
    settings: DataSection,
    cleaner: Cleaner,
    spool: Spool,
    facts: Facts,
    ids: UniqueIds,
    benchmark: BenchmarkIndex | None = None,
) -> int:
    """Put variants of training records into a spool.

    Args:
        train: the training part.
        digests: uint8 (n, 16), of the questions of all parts, which no variant may ask again.
        settings: rate, seed and synonyms.
        cleaner: judges and tokenises the variants; one that it rejects is not made.
        spool: gets the variants.
        facts: gets what is known of each.
        ids: gives each an id of its own.
        benchmark: a variant that overlaps it is not made.

    Returns:
        Their number.
    """
    augmenter = Augmenter(settings.aug_rate, settings.seed, settings.synonyms)
    known = np.sort(first_halves(digests))
    made: set[bytes] = set()

    def taken(example: Example) -> bool:
        digest = question_digest(example)
        half = first_halves(np.frombuffer(digest, np.uint8)[None])[0]
        place = int(np.searchsorted(known, half))
        if digest in made or (place < len(known) and known[place] == half):
            return True
        made.add(digest)
        return False

    def variants() -> Iterator[Example]:
        for index in progress(train.indices, total=len(train), desc="making variants", unit="record"):
            # Most are not tried, and need not be read.
            if augmenter.chooses(train.spooled.id(index)):
                example = _example(train.spooled.line(index))
                yield from (variant.record for variant in augmenter.variants(example, taken))

    before, records = len(facts), variants()
    while batch := list(itertools.islice(records, _BATCH)):
        kept = [verdict for verdict in cleaner.judge(batch) if isinstance(verdict, Kept)]
        hits = benchmark.overlaps([record_texts(each.record) for each in kept]) if benchmark else [None] * len(kept)
        for verdict, hit in zip(kept, hits, strict=True):
            if hit is None:
                record = replace(verdict.record, id=ids.take(verdict.record.id))
                spool.add(record.id, json_line(record.to_dict()), verdict.input_ids, verdict.loss_mask)
                facts.add(verdict, 0, 0, digest_of(record))
    return len(facts) - before


def first_halves(digests: np.ndarray) -> np.ndarray:
    """uint64 (n,): enough of each digest to tell questions apart; a chance hit costs one variant."""
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64).reshape(-1)


def _example(line: bytes) -> Example:
    return Example.from_dict(json.loads(line))


def _record(value: Mapping[str, Any]) -> Record:
    return Example.from_dict(value) if "question" in value else PlainText.from_dict(value)
