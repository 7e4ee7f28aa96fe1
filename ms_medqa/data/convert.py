"""Raw records → a folder of MindRecord, JSON Lines, report and manifest."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ms_medqa.config.console import say
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import atomic_write, user_path, write_json
from ms_medqa.config.schema import Config
from ms_medqa.data import manifest
from ms_medqa.data.facts import Facts
from ms_medqa.data.folder import new_folder
from ms_medqa.data.judging import Judges
from ms_medqa.data.mindrecord import files_of
from ms_medqa.data.mix import Amount
from ms_medqa.data.mixing import HeldOut
from ms_medqa.data.prompt import FILE_NAME as PROMPT_FILE
from ms_medqa.data.question_types import TYPES
from ms_medqa.data.read_parts import REJECTED, ReadParts, Rules, find_inputs, load_rules, open_judges, read_parts
from ms_medqa.data.report import FileCount, build_report, by_count, histograms_of, table
from ms_medqa.data.report_html import FILE_NAME as _PAGE
from ms_medqa.data.report_html import write_report_html
from ms_medqa.data.split import PARTS
from ms_medqa.data.spool import Joined, SpooledPart
from ms_medqa.data.training_part import add_variants
from ms_medqa.data.writing import Writing

_REPORT = "report.json"
_OUTPUTS = (*(f"{part}.jsonl" for part in PARTS), REJECTED, _REPORT, _PAGE, PROMPT_FILE, manifest.FILE_NAME)
# Files that have a line each on the terminal, and that an error names; the report has them all.
_SHOWN = 20
_NAMED = 5
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
        workers: processes that judge, tokenise and write; by default one for each core, at most 16, where the input is
            worth it. The result does not depend on it.

    Returns:
        The content of `report.json`.

    Raises:
        UserError: an input or a setting is at fault, or nothing is left after cleaning.
        RunError: no space is left, or what was written cannot be read back.
    """
    found = find_inputs(inputs, config)
    output = user_path(output)
    with (
        new_folder(output, mark=manifest.FILE_NAME, names=_names_in(output), inputs=found.paths) as work,
        # Closes the spools, whose files lie in the work folder, before that takes its place.
        ExitStack() as stack,
        # The workers read the spools, too, and end first.
        open_judges(found, config, workers) as judging,
    ):
        rules = load_rules(config, judging)
        read = read_parts(found, rules, config, work, stack, judging)
        _show_files(read.files)
        if not len(read.left):
            raise _nothing_left(read.files, work, output, [source.path for source in found.sources])
        kind = _kind(read.facts, read.files)
        _check_train(read.parts)
        augmented = _add_variants(read, rules, judging)
        made = _make_training_part(read, augmented, kind, config)
        report = _write(work, read, made, rules, kind, config, judging)
    say(table(report))
    for part in PARTS[1:]:
        if not report["kept"][part]:
            say(f"note: the {part} part is empty")
    say(f"written to {output}")
    return report


def _show_files(files: Sequence[FileCount]) -> None:
    for file in files[:_SHOWN]:
        say(file.describe())
    if rest := files[_SHOWN:]:
        say(f"… and {len(rest):,} more files: {sum(file.read for file in rest):,} records")


@dataclass(frozen=True)
class _Made:
    """What the training part gets beside the records that were kept for it.

    Attributes:
        added: repetitions, variants and other data.
        augmented: number of variants.
        mixed: what the report tells of each `data.mix`.
    """

    added: SpooledPart
    augmented: int
    mixed: Sequence[dict[str, Any]]


def _add_variants(read: ReadParts, rules: Rules, judging: Judges) -> int:
    if read.variants is None:
        return 0
    digests, extra = read.facts.digests()[read.left], read.extra
    return add_variants(
        read.parts["train"], read.variants, digests, judging, extra.spool, extra.facts, extra.ids, rules.benchmark
    )


def _make_training_part(read: ReadParts, augmented: int, kind: str, config: Config) -> _Made:
    train, extra, settings = read.parts["train"], read.extra, config.data
    main = Amount(len(train) + len(extra.spool), int(train.lengths.sum()) + sum(extra.spool.lengths))
    mixed = []
    if read.others:
        held_out = HeldOut.of((read.parts[part] for part in PARTS[1:]), read.facts)
        mixed = [other.mix_in(main, kind, held_out, settings, extra) for other in read.others]
    added = extra.spool.close()
    return _Made(added.part(np.arange(len(added))), augmented, mixed)


def _write(
    work: Path, read: ReadParts, made: _Made, rules: Rules, kind: str, config: Config, judging: Judges
) -> dict[str, Any]:
    """Write everything but the rejected records; the report."""
    whole = {part: Joined((records,)) for part, records in read.parts.items()}
    whole["train"] = Joined((read.parts["train"], made.added))
    writing = Writing(work, whole, config.data.shard_megabytes * 2**20, judging.pool)
    for part, records in whole.items():
        with atomic_write(work / f"{part}.jsonl", "wb") as file:
            file.writelines(records.text())
    tokens = {part: _tokens(read.parts[part], read.facts) for part in PARTS}
    tokens["train"] = _together(tokens["train"], _tokens(made.added, read.extra.facts))
    report = _report(read, made, tokens, rules, kind, config)
    write_json(work / _REPORT, report)
    write_report_html(report, histograms_of(tokens), work / _PAGE)
    rules.prompt.save(work)
    shards = writing.finish()
    written = [*_OUTPUTS, *(file.name for names in shards.values() for name in names for file in files_of(name))]
    manifest.write(
        work,
        kind=kind,
        rows={part: len(whole[part]) for part in PARTS},
        tokens={part: int(tokens[part]["record"].sum()) for part in PARTS},
        max_length=config.data.max_length,
        tokenizer=rules.tokenizer,
        prompt=rules.prompt,
        shards={part: [name.name for name in names] for part, names in shards.items()},
        files=[name for name in written if (work / name).exists()],
    )
    return report


def _report(
    read: ReadParts, made: _Made, tokens: Mapping[str, dict[str, np.ndarray]], rules: Rules, kind: str, config: Config
) -> dict[str, Any]:
    return build_report(
        read.files,
        {part: len(read.parts[part]) for part in PARTS},
        tokens,
        config.data,
        kind=kind,
        tokenizer=rules.tokenizer.fingerprint,
        prompt=rules.prompt.to_dict(),
        types={part: _types(read.parts[part], read.facts) for part in PARTS},
        lexicon=read.coverage,
        augmented=made.augmented,
        repeated=read.repeated,
        mixed=made.mixed,
    )


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


def _check_train(parts: Mapping[str, SpooledPart]) -> None:
    if len(parts["train"]):
        return
    others = [part for part in PARTS if len(parts[part])]
    raise UserError(
        f"the train part is empty, {sum(map(len, parts.values()))} records go to {' and '.join(others) or 'no part'}",
        "look at the records' split column, at data.split, data.benchmark and the weights of the inputs",
    )


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
        named = [file.path for file in files[:_NAMED]]
        more = [f"{len(files) - _NAMED:,} more files"] if len(files) > _NAMED else []
        return UserError("no record in " + ", ".join([*named, *more]))
    message = f"all {rejected.total():,} records were rejected ({by_count(rejected)})"
    output = Path(os.path.realpath(output))  # as `new_folder` sees it: `..` has no name of its own
    beside = output.with_name(f"{output.name}.{REJECTED}")
    if beside in [path.resolve() for path in inputs]:
        return UserError(message, "choose another --output to see them")
    os.replace(work / REJECTED, beside)
    return UserError(message, f"see {beside}")
