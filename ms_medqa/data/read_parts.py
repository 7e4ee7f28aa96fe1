"""The first half of a conversion: find the inputs and the rules, read and judge the records, choose their parts."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ms_medqa.config.assets import resolve_model
from ms_medqa.config.console import say
from ms_medqa.config.files import atomic_write
from ms_medqa.config.schema import Config
from ms_medqa.data import stratify
from ms_medqa.data.banding import clusters
from ms_medqa.data.clean import Cleaner
from ms_medqa.data.facts import Facts
from ms_medqa.data.gather import Gatherer
from ms_medqa.data.inputs import InputFile, expand_inputs
from ms_medqa.data.judging import Judges, Task, judges
from ms_medqa.data.mixing import Extra, Source, apply_weights, files_to_mix, read_source
from ms_medqa.data.near_duplicates import reject_near_duplicates
from ms_medqa.data.overlap import BenchmarkIndex
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.raw import check_files
from ms_medqa.data.report import FileCount
from ms_medqa.data.split import PARTS, assign_parts
from ms_medqa.data.spool import Spool, Spooled, SpooledPart
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.data.training_part import Found, begin_variants, read_benchmark, remove_overlap
from ms_medqa.data.unique_ids import UniqueIds

REJECTED = "rejected.jsonl"


@dataclass(frozen=True)
class Inputs:
    """Files to read.

    Attributes:
        sources: of the conversion itself.
        to_mix: of each `data.mix`.
    """

    sources: Sequence[InputFile]
    to_mix: Sequence[Sequence[InputFile]]

    @property
    def paths(self) -> list[Path]:
        """All of them."""
        return [file.path for file in itertools.chain(self.sources, *self.to_mix)]


@dataclass(frozen=True)
class Rules:
    """What records are judged by."""

    tokenizer: Tokenizer
    prompt: Prompt
    cleaner: Cleaner
    benchmark: BenchmarkIndex | None


@dataclass(frozen=True)
class Gathered:
    """Kept records of all inputs.

    Attributes:
        records: themselves.
        facts: what is known of each.
        files: counts of each file.
        coverage: what the report tells of the user's medical names.
    """

    records: Spooled
    facts: Facts
    files: Sequence[FileCount]
    coverage: dict[str, Any] | None


@dataclass(frozen=True)
class ReadParts:
    """The parts before anything is made for the training part.

    Attributes:
        facts: what is known of each kept record.
        files: counts of each file.
        coverage: what the report tells of the user's medical names.
        left: int64 (n,): numbers of the kept records that are no near duplicates.
        parts: name → its records.
        extra: repetitions in the training part, and whatever is added to it later.
        repeated: number of those repetitions.
        others: what was read for each `data.mix`.
        variants: of `begin_variants`; None where none are made.
    """

    facts: Facts
    files: Sequence[FileCount]
    coverage: dict[str, Any] | None
    left: np.ndarray
    parts: Mapping[str, SpooledPart]
    extra: Extra
    repeated: int
    others: Sequence[Source]
    variants: Found | None


def find_inputs(inputs: Sequence[str | Path], config: Config) -> Inputs:
    """All files to read.

    Raises:
        UserError: one is absent or cannot be read, or nothing is in the only one.
    """
    sources = expand_inputs(inputs)
    check_files([source.path for source in sources])
    return Inputs(sources, [files_to_mix(wish) for wish in config.data.mix])


def load_rules(config: Config, judging: Judges) -> Rules:
    """What records are judged by.

    Raises:
        UserError: the tokenizer, the prompt, a list or the benchmark is at fault.
    """
    worker = judging.worker
    if config.data.fill_context:
        say("warning: data.fill_context puts the start of the answer into the prompt; the model learns to copy it")
    benchmark = read_benchmark(config.data.benchmark, config.data) if config.data.benchmark else None
    return Rules(worker.judge.tokenizer, worker.judge.prompt, worker.cleaner, benchmark)


def open_judges(inputs: Inputs, config: Config, workers: int | None) -> AbstractContextManager[Judges]:
    """What judges the records of these files, by processes as `judges` takes them, which begin to start now."""
    task = Task(config.data, resolve_model(config.model.path), config.data.prompt)
    size = sum(path.stat().st_size for path in inputs.paths)
    # Later, this process alone would have to wait.
    return judges(task, size, workers, meanwhile=stratify.get_ready)


def read_parts(
    inputs: Inputs, rules: Rules, config: Config, work: Path, stack: ExitStack, judging: Judges
) -> ReadParts:
    """Read and judge all inputs, and choose the part of each record; the rejected ones are written down in `work`.

    Args:
        inputs: the files.
        rules: what their records are judged by.
        config: the `data` section is used.
        work: gets the list of rejected records, and the spools.
        stack: closes the spools.
        judging: of `open_judges`.

    Raises:
        UserError: a file is at fault.
    """
    spool, more = (stack.enter_context(Spool(work / name)) for name in (".records", ".more"))
    with atomic_write(work / REJECTED) as rejected_file:
        gathered = _gather(inputs.sources, rules, config, judging, spool, rejected_file)
        records, facts, files = gathered.records, gathered.facts, gathered.files
        variants = None
        if config.data.aug_rate and not any(facts.texts):
            variants = begin_variants(records, config.data, judging)
        left = reject_near_duplicates(records, facts, files, config.data.near_duplicates, rejected_file)
        records.forget()
        parts = {part: records.part(indices) for part, indices in _split(records, facts, left, config).items()}
        extra = Extra(more, UniqueIds(records))
        parts["train"] = _choose_train(parts["train"], inputs.sources, gathered, rules, config, extra, rejected_file)
        repeated = len(more)
        others = []
        for number, (wish, files_of_wish) in enumerate(zip(config.data.mix, inputs.to_mix, strict=True)):
            place = stack.enter_context(Spool(work / f".mix-{number}"))
            others.append(read_source(wish, files_of_wish, config.data, judging, place, rules.benchmark))
    return ReadParts(facts, files, gathered.coverage, left, parts, extra, repeated, others, variants)


def _gather(
    sources: Sequence[InputFile], rules: Rules, config: Config, judging: Judges, spool: Spool, rejected_file: IO[str]
) -> Gathered:
    # The gatherer ends here: ids and digests of everything that was read are needed no longer, and writing needs room.
    gatherer = Gatherer(config.data, judging, spool, rejected_file)
    gatherer.read(sources)
    coverage = gatherer.coverage and gatherer.coverage.to_dict(len(rules.cleaner.lexicon.names))
    return Gathered(spool.close(), gatherer.facts, gatherer.files, coverage)


def _split(records: Spooled, facts: Facts, left: np.ndarray, config: Config) -> dict[str, np.ndarray]:
    """Part → numbers of its records, in the order of the input."""
    types, fixed = (np.frombuffer(column, np.int8)[left] for column in (facts.types, facts.fixed))
    alike = clusters(records.questions, config.data.cluster_similarity, left)
    records.forget()
    found = assign_parts(facts.digests()[left], types, fixed, alike, config.data.split, config.data.seed)
    return {part: left[found == number] for number, part in enumerate(PARTS)}


def _choose_train(
    train: SpooledPart,
    sources: Sequence[InputFile],
    gathered: Gathered,
    rules: Rules,
    config: Config,
    extra: Extra,
    rejected_file: IO[str],
) -> SpooledPart:
    """The training part without what the benchmark asks, and with each file's records as its weight says."""
    facts, files = gathered.facts, gathered.files
    if rules.benchmark is not None:
        train = remove_overlap(train, facts, files, rules.benchmark, rejected_file)
    return apply_weights(train, sources, facts, files, config.data.seed, rejected_file, extra)
