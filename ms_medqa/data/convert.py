"""Raw records → a folder of MindRecord, JSON Lines, report and manifest."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ms_medqa.config.assets import resolve_model
from ms_medqa.config.console import say
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import atomic_write, write_json
from ms_medqa.config.schema import Config
from ms_medqa.data import manifest
from ms_medqa.data.clean import Cleaner, Kept
from ms_medqa.data.example import Example
from ms_medqa.data.folder import new_folder
from ms_medqa.data.gather import Gatherer, file_names, write_lines
from ms_medqa.data.mindrecord import write_records
from ms_medqa.data.prompt import FILE_NAME as PROMPT_FILE
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.raw import check_file
from ms_medqa.data.report import FileCount, build_report, table
from ms_medqa.data.split import PARTS, split_records
from ms_medqa.data.tokenizer import Tokenizer

_REJECTED = "rejected.jsonl"
_REPORT = "report.json"
_OUTPUTS = (
    *(part + suffix for part in PARTS for suffix in (".jsonl", ".mindrecord", ".mindrecord.db")),
    _REJECTED,
    _REPORT,
    PROMPT_FILE,
    manifest.FILE_NAME,
)


def convert(inputs: Sequence[str | Path], output: str | Path, config: Config) -> dict[str, Any]:
    """Read, clean, split and tokenise records, and write them to the folder `output`, whole or not at all.

    Args:
        inputs: JSON, JSON Lines or CSV files.
        output: the folder to make; an earlier result there is replaced.
        config: `model.path` gives the tokenizer, `data` the rules.

    Returns:
        The content of `report.json`.

    Raises:
        UserError: an input or a setting is at fault, or nothing is left after cleaning.
        RunError: no space is left, or what was written cannot be read back.
    """
    paths = [Path(path).expanduser() for path in inputs]
    if not paths:
        raise UserError("no input file")
    for path in paths:
        check_file(path)
    file_names(paths)
    tokenizer = Tokenizer.load(resolve_model(config.model.path))
    prompt = Prompt.named(config.data.prompt, tokenizer)
    cleaner = Cleaner(config.data, tokenizer, prompt)
    if config.data.fill_context:
        say("warning: data.fill_context puts the start of the answer into the prompt; the model learns to copy it")

    output = Path(output).expanduser()
    with new_folder(output, mark=manifest.FILE_NAME, names=_OUTPUTS, inputs=paths) as work:
        with atomic_write(work / _REJECTED) as rejected_file:
            gatherer = Gatherer(config.data.columns, cleaner, rejected_file)
            gatherer.read(paths)
        for file in gatherer.files:
            say(file.describe())
        if not gatherer.kept:
            raise _nothing_left(gatherer.files, work, output, paths)
        kind = _kind(gatherer.kept)
        parts = _split(gatherer.kept, config)
        for part in PARTS:
            _write_part(work, part, parts[part])
        report = build_report(
            gatherer.files, parts, config.data, kind=kind, tokenizer=tokenizer.fingerprint, prompt=prompt.to_dict()
        )
        write_json(work / _REPORT, report)
        prompt.save(work)
        manifest.write(
            work,
            kind=kind,
            rows=report["kept"],
            tokens={part: sum(item.input_ids.size for item in parts[part]) for part in PARTS},
            max_length=config.data.max_length,
            tokenizer=tokenizer,
            prompt=prompt,
            files=[name for name in _OUTPUTS if (work / name).exists()],
        )
    say(table(report))
    for part in PARTS[1:]:
        if not parts[part]:
            say(f"note: the {part} part is empty")
    say(f"written to {output}")
    return report


def _kind(kept: Sequence[Kept]) -> str:
    kinds = {"sft" if isinstance(item.record, Example) else "text": item.record for item in kept}
    if len(kinds) > 1:
        raise UserError(
            f"plain text ({kinds['text'].source}) and questions ({kinds['sft'].source}) in one conversion",
            "convert them apart, one for train.stage=pretrain and one for sft",
        )
    return next(iter(kinds))


def _split(kept: Sequence[Kept], config: Config) -> Mapping[str, Sequence[Kept]]:
    names = split_records([item.record for item in kept], config.data.split, config.data.seed)
    parts: dict[str, list[Kept]] = {part: [] for part in PARTS}
    for name, item in zip(names, kept, strict=True):
        parts[name].append(item)
    if not parts["train"]:
        raise UserError(
            f"the train part is empty, all {len(kept)} records go to {' and '.join(p for p in PARTS if parts[p])}",
            "look at the records' split column and at data.split",
        )
    return parts


def _write_part(work: Path, part: str, kept: Sequence[Kept]) -> None:
    with atomic_write(work / f"{part}.jsonl") as file:
        write_lines(file, (item.record for item in kept))
    if kept:
        rows = ((item.record.id, item.input_ids, item.loss_mask) for item in kept)
        count = write_records(work / f"{part}.mindrecord", rows)
        assert count == len(kept), (part, count, len(kept))


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
