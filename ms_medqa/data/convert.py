"""Raw records → a folder of MindRecord, JSON Lines, report and manifest."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from ms_medqa.config.assets import resolve_model
from ms_medqa.config.console import say
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import atomic_write, write_json
from ms_medqa.config.schema import Config
from ms_medqa.data import manifest
from ms_medqa.data.clean import Cleaner
from ms_medqa.data.facts import Facts
from ms_medqa.data.folder import new_folder
from ms_medqa.data.gather import Gatherer
from ms_medqa.data.inputs import expand_inputs
from ms_medqa.data.judging import Task, judges
from ms_medqa.data.mindrecord import files_of, write_shards
from ms_medqa.data.minhash import clusters
from ms_medqa.data.mix import Amount
from ms_medqa.data.mixing import Extra, apply_weights, files_to_mix, read_source
from ms_medqa.data.near_duplicates import reject_near_duplicates
from ms_medqa.data.prompt import FILE_NAME as PROMPT_FILE
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.question_types import TYPES
from ms_medqa.data.raw import check_file
from ms_medqa.data.report import FileCount, build_report, histograms_of, table
from ms_medqa.data.report_html import FILE_NAME as _PAGE
from ms_medqa.data.report_html import write_report_html
from ms_medqa.data.split import PARTS, assign_parts
from ms_medqa.data.spool import Joined, Spool, Spooled, SpooledPart
from ms_medqa.data.tokenizer import Tokenizer
from ms_medqa.data.training_part import add_variants, read_benchmark, remove_overlap
from ms_medqa.data.unique_ids import UniqueIds

_REJECTED = "rejected.jsonl"
_REPORT = "report.json"
_OUTPUTS = (*(f"{part}.jsonl" for part in PARTS), _REJECTED, _REPORT, _PAGE, PROMPT_FILE, manifest.FILE_NAME)
# Data files of a part and their indexes: one, or several with numbers.
_SHARD = re.compile(rf"({'|'.join(PARTS)})\.mindrecord\d*(\.db)?")


def convert(
    inputs: Sequence[str | Path], output: str | Path, config: Config, workers: int | None = None
) -> dict[str, Any]:
    """Read, clean, split and tokenise records, and write them to the folder `output`, whole or not at all.

    Memory holds a few hundred bytes of each record; texts and tokens pass through a spool on the disk of `output`.

    Args:
        inputs: files, folders or patterns.
        output: the folder to make; an earlier result there is replaced.
        config: `model.path` gives the tokenizer, `data` the rules.
        workers: processes that read and tokenise; by default one for each core, where the input is worth it. The
            result does not depend on it.

    Returns:
        The content of `report.json`.

    Raises:
        UserError: an input or a setting is at fault, or nothing is left after cleaning.
        RunError: no space is left, or what was written cannot be read back.
    """
    sources = expand_inputs(inputs)
    paths = [source.path for source in sources]
    for path in paths:
        check_file(path)
    to_mix = [files_to_mix(wish) for wish in config.data.mix]
    read_too = [file.path for files in to_mix for file in files]
    tokenizer = Tokenizer.load(resolve_model(config.model.path))
    prompt = Prompt.named(config.data.prompt, tokenizer)
    if config.data.fill_context:
        say("warning: data.fill_context puts the start of the answer into the prompt; the model learns to copy it")

    # Before anything is read: its lists may be at fault.
    cleaner = Cleaner(config.data, tokenizer, prompt)
    benchmark = read_benchmark(config.data.benchmark, config.data) if config.data.benchmark else None
    output = Path(output).expanduser()
    task = Task(config.data, tokenizer.folder, config.data.prompt)
    size = sum(path.stat().st_size for path in (*paths, *read_too))
    with (
        new_folder(output, mark=manifest.FILE_NAME, names=_names_in(output), inputs=[*paths, *read_too]) as work,
        Spool(work / ".records") as spool,
        Spool(work / ".more") as more,
        ExitStack() as stack,
    ):
        with judges(task, size, workers) as judging, atomic_write(work / _REJECTED) as rejected_file:
            gatherer = Gatherer(config.data, judging, spool, rejected_file)
            gatherer.read(sources)
            files, facts, records = gatherer.files, gatherer.facts, spool.close()
            coverage = gatherer.coverage and gatherer.coverage.to_dict(len(cleaner.lexicon.names))
            # Ids and digests of everything that was read are needed no longer, and writing needs room.
            del gatherer
            left = reject_near_duplicates(records, facts, files, config.data.near_duplicates, rejected_file)
            parts = {part: records.part(indices) for part, indices in _split(records, facts, left, config).items()}
            extra = Extra(more, UniqueIds(records))
            if benchmark is not None:
                parts["train"] = remove_overlap(parts["train"], facts, files, benchmark, rejected_file)
            parts["train"] = apply_weights(
                parts["train"], sources, facts, files, config.data.seed, rejected_file, extra
            )
            repeated = len(more)
            others = []
            for number, (wish, inputs_of) in enumerate(zip(config.data.mix, to_mix, strict=True)):
                place = stack.enter_context(Spool(work / f".mix-{number}"))
                others.append(read_source(wish, inputs_of, config.data, judging, place, benchmark))
        for file in files:
            say(file.describe())
        if not len(left):
            raise _nothing_left(files, work, output, paths)
        kind = _kind(facts, files)
        _check_train(parts)
        augmented = 0
        if kind == "sft" and config.data.aug_rate:
            augmented = add_variants(
                parts["train"],
                facts.digests()[left],
                config.data,
                cleaner,
                more,
                extra.facts,
                extra.ids,
                benchmark,
            )
        main = Amount(
            len(parts["train"]) + len(more),
            int(parts["train"].lengths.sum()) + sum(more.lengths),
        )
        held_out = facts.digests()[np.concatenate([parts[part].indices for part in PARTS[1:]])]
        mixed = [other.mix_in(main, kind, held_out, config.data, extra) for other in others]
        added = more.close()
        whole = {part: Joined((records,)) for part, records in parts.items()}
        whole["train"] = Joined((parts["train"], added.part(np.arange(len(added)))))
        shards = {part: _write_part(work, part, whole[part], config) for part in PARTS}
        tokens = {part: _tokens(parts[part], facts) for part in PARTS}
        tokens["train"] = _together(tokens["train"], _tokens(whole["train"].parts[1], extra.facts))
        report = build_report(
            files,
            {part: len(parts[part]) for part in PARTS},
            tokens,
            config.data,
            kind=kind,
            tokenizer=tokenizer.fingerprint,
            prompt=prompt.to_dict(),
            types={part: _types(parts[part], facts) for part in PARTS},
            lexicon=coverage,
            augmented=augmented,
            repeated=repeated,
            mixed=mixed,
        )
        write_json(work / _REPORT, report)
        write_report_html(report, histograms_of(tokens), work / _PAGE)
        prompt.save(work)
        written = [*_OUTPUTS, *(file.name for names in shards.values() for name in names for file in files_of(name))]
        manifest.write(
            work,
            kind=kind,
            rows={part: len(whole[part]) for part in PARTS},
            tokens={part: int(tokens[part]["record"].sum()) for part in PARTS},
            max_length=config.data.max_length,
            tokenizer=tokenizer,
            prompt=prompt,
            shards={part: [name.name for name in names] for part, names in shards.items()},
            files=[name for name in written if (work / name).exists()],
        )
        stack.close()
        more.remove()
        spool.remove()
    say(table(report))
    for part in PARTS[1:]:
        if not report["kept"][part]:
            say(f"note: the {part} part is empty")
    say(f"written to {output}")
    return report


def _names_in(output: Path) -> list[str]:
    """The names that a result in this place may hold."""
    found = [path.name for path in output.iterdir()] if output.is_dir() else []
    return [*_OUTPUTS, *filter(_SHARD.fullmatch, found)]


def _kind(facts: Facts, files: Sequence[FileCount]) -> str:
    texts = np.frombuffer(facts.texts, np.int8)
    if texts.min() != texts.max():
        text, question = (files[facts.files[int(place)]].name for place in (texts.argmax(), texts.argmin()))
        raise UserError(
            f"plain text ({text}) and questions ({question}) in one conversion",
            "convert them apart, one for train.stage=pretrain and one for sft",
        )
    return "text" if texts[0] else "sft"


def _split(records: Spooled, facts: Facts, left: np.ndarray, config: Config) -> Mapping[str, np.ndarray]:
    """Part → numbers of its records, in the order of the input."""
    types, fixed = (np.frombuffer(column, np.int8)[left] for column in (facts.types, facts.fixed))
    alike = clusters(records.questions[left], config.data.cluster_similarity)
    found = assign_parts(facts.digests()[left], types, fixed, alike, config.data.split, config.data.seed)
    return {part: left[found == number] for number, part in enumerate(PARTS)}


def _check_train(parts: Mapping[str, SpooledPart]) -> None:
    if len(parts["train"]):
        return
    others = [part for part in PARTS if len(parts[part])]
    raise UserError(
        f"the train part is empty, {sum(map(len, parts.values()))} records go to {' and '.join(others) or 'no part'}",
        "look at the records' split column, at data.split and at data.benchmark",
    )


def _write_part(work: Path, part: str, records: Joined, config: Config) -> list[Path]:
    """Write a part's JSON Lines and MindRecord; the data files."""
    with atomic_write(work / f"{part}.jsonl", "wb") as file:
        file.writelines(records.lines())
    if not len(records):
        return []
    return write_shards(work / f"{part}.mindrecord", records, config.data.shard_megabytes * 2**20)


def _tokens(records: SpooledPart, facts: Facts) -> dict[str, np.ndarray]:
    columns = {"trained": facts.trained, "question": facts.question_tokens, "answer": facts.answer_tokens}
    counts = {name: np.frombuffer(column, np.int32)[records.indices] for name, column in columns.items()}
    return {"record": records.lengths, **counts}


def _together(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([values, second[name]]) for name, values in first.items()}


def _types(records: SpooledPart, facts: Facts) -> dict[str, int]:
    counts = np.bincount(np.frombuffer(facts.types, np.int8)[records.indices], minlength=len(TYPES))
    return {name: count for name, count in zip(TYPES, counts.tolist(), strict=True) if count}


def _nothing_left(files: Sequence[FileCount], work: Path, output: Path, inputs: Sequence[Path]) -> UserError:
    """The error for an empty result; the rejected records are left beside the output, for they say why."""
    rejected: Counter[str] = Counter()
    for file in files:
        rejected.update(file.rejected)
    if not rejected:
        return UserError("no record in " + ", ".join(file.path for file in files))
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in rejected.most_common())
    message = f"all {rejected.total():,} records were rejected ({reasons})"
    output = Path(os.path.realpath(output))  # as `new_folder` sees it: `..` has no name of its own
    beside = output.with_name(f"{output.name}.{_REJECTED}")
    if beside in [path.resolve() for path in inputs]:
        return UserError(message, "choose another --output to see them")
    os.replace(work / _REJECTED, beside)
    return UserError(message, f"see {beside}")
