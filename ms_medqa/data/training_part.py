"""What is done to the training part alone: evaluation data is kept out of it, variants are added to it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from ms_medqa.config.console import progress
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import json_bytes
from ms_medqa.config.schema import DataSection
from ms_medqa.data.example import Example, PlainText, Record
from ms_medqa.data.facts import Facts
from ms_medqa.data.gather import rejected_line
from ms_medqa.data.inputs import expand_inputs
from ms_medqa.data.judging import Judges
from ms_medqa.data.overlap import BenchmarkIndex, record_texts
from ms_medqa.data.readers import read_records
from ms_medqa.data.report import FileCount
from ms_medqa.data.spool import Spool, Spooled, SpooledPart
from ms_medqa.data.unique_ids import UniqueIds
from ms_medqa.data.variant_maker import Candidate, Choice, find_candidates, make_variants

REASON = "benchmark"
_BATCH = 2048
# Batches of records whose candidates may wait: mostly some 40 kB each, 400 where every record has some.
_AHEAD = 256

# Batches of records' numbers, with those of which variants could be made.
Found = Iterator[tuple[list[int], list[tuple[int, list[Candidate]]]]]


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


def begin_variants(records: Spooled, settings: DataSection, judges: Judges) -> Found:
    """Let the workers look for what can be made of each record, while this process finds out which of them are trained.

    Args:
        records: questions of all parts.
        settings: of the variants.
        judges: their workers look.

    Returns:
        What `add_variants` takes.
    """
    return judges.in_order(functools.partial(find_candidates, records=records), range(len(records)), _AHEAD)


def add_variants(
    train: SpooledPart,
    found: Found,
    digests: np.ndarray,
    judges: Judges,
    spool: Spool,
    facts: Facts,
    ids: UniqueIds,
    benchmark: BenchmarkIndex | None = None,
) -> int:
    """Put variants of training records into a spool.

    The workers find what can be made of each record and judge what is wanted of it; which that is must be said here,
    record by record, for no question may be asked twice.

    Args:
        train: the training part.
        found: of `begin_variants`, for all records that the training part was chosen from.
        digests: uint8 (n, 16), of the questions of all parts, which no variant may ask again.
        judges: make and tokenise the variants; one that they reject is not made.
        spool: gets the variants.
        facts: gets what is known of each.
        ids: gives each an id of its own.
        benchmark: a variant that overlaps it is not made.

    Returns:
        Their number.

    Raises:
        UserError: a file of synonyms is at fault, or a variant is too long under `data.length_policy=raise`.
    """
    before = len(facts)
    work = functools.partial(make_variants, records=train.spooled)
    for _, made in judges.in_order(work, _choose(train, found, digests)):
        fresh = _clear_of(benchmark, made.lines) if benchmark else list(range(len(made.lines)))
        names, lines = made.records.ids, made.lines
        for index in fresh:
            own = ids.take(names[index])
            if own != names[index]:
                names[index] = own
                lines[index] = json_bytes(json.loads(lines[index]) | {"id": own})
        records = made.records if len(fresh) == len(lines) else made.records.select(fresh)
        spool.add_batch(records, [lines[index] for index in fresh])
        facts.extend(made.facts, fresh)
    return len(facts) - before


def _choose(train: SpooledPart, found: Found, digests: np.ndarray) -> Iterator[Choice]:
    """Of each training record the first candidate that asks what nobody asked before: no record, no earlier variant."""
    known = np.sort(first_halves(digests))
    made: set[bytes] = set()
    is_trained = np.zeros(len(train.spooled), bool)
    is_trained[train.indices] = True

    def taken(digest: bytes) -> bool:
        half = first_halves(np.frombuffer(digest, np.uint8)[None])[0]
        place = int(np.searchsorted(known, half))
        return digest in made or (place < len(known) and bool(known[place] == half))

    for number, candidates in _all_of(found, len(train.spooled)):
        if not is_trained[number]:
            continue
        wanted = next((each for each in candidates if each.digest is None or not taken(each.digest)), None)
        if wanted is not None:
            if wanted.digest is not None:
                made.add(wanted.digest)
            yield Choice(number, wanted.method, wanted.text)


def _all_of(found: Found, count: int) -> Iterator[tuple[int, list[Candidate]]]:
    with progress(total=count, desc="making variants", unit="record") as bar:
        for numbers, part in found:
            yield from part
            bar.update(len(numbers))


def _clear_of(benchmark: BenchmarkIndex, lines: Sequence[bytes]) -> list[int]:
    """Numbers of the records that do not give a record of the benchmark away."""
    hits = benchmark.overlaps([record_texts(_record(json.loads(line))) for line in lines])
    return [number for number, hit in enumerate(hits) if hit is None]


def first_halves(digests: np.ndarray) -> np.ndarray:
    """uint64 (n,): enough of each digest to tell questions apart; a chance hit costs one variant."""
    return np.ascontiguousarray(digests[:, :8]).view(np.uint64).reshape(-1)


def _record(value: Mapping[str, Any]) -> Record:
    return Example.from_dict(value) if "question" in value else PlainText.from_dict(value)
