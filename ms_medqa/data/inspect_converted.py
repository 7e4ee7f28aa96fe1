"""What a converted folder, one part of it, or a MindRecord file alone holds."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ms_medqa.config.assets import SHIPPED_MODELS, resolve_model
from ms_medqa.config.errors import UserError
from ms_medqa.data import manifest
from ms_medqa.data.example import Example, PlainText, Record
from ms_medqa.data.excerpt import Shown, Span, show, token_spans
from ms_medqa.data.inspection import Inspection, Source, Texts
from ms_medqa.data.mindrecord import files_of, read_rows
from ms_medqa.data.raw import printable
from ms_medqa.data.split import PARTS
from ms_medqa.data.tallies import LengthTally, Reservoir
from ms_medqa.data.tokenizer import Tokenizer

_NO_TOKENIZER = "--model DIR (the model that the data was converted for) shows the tokens as text"
_MARK = ".mindrecord"
# Of tokens that cannot be turned into text.
_MOST_IDS = 64


def is_mindrecord(path: Path) -> bool:
    """True for the name of a MindRecord file or of its index."""
    return _MARK in path.name


def inspect_converted(
    folder: Path,
    tokenizer: Tokenizer | None = None,
    *,
    part: str | None = None,
    examples: int = 5,
    seed: int = 42,
) -> Inspection:
    """Read the parts of a converted folder: texts from the JSON Lines, lengths and trained tokens from the MindRecord.

    Args:
        folder: a folder written by `ms-medqa convert`.
        tokenizer: turns tokens into text; a shipped model's is found by its fingerprint.
        part: this one only.
        examples: how many to show.
        seed: of their choice.

    Raises:
        UserError: no such folder, another tokenizer than that of the conversion, or a MindRecord that cannot be read.
    """
    found = manifest.check(folder, tokenizer, files=[])
    tokenizer = tokenizer or _shipped(found["tokenizer"])
    kind = "converted folder" if part is None else "part of a converted folder"
    result = Inspection(printable(folder), kind, "tokens", seed)
    result.facts = _facts(folder, found)
    _check_files(folder, result)
    sample: Reservoir[tuple[str, int, Record]] = Reservoir(examples, seed)
    questions = []
    total = Texts()
    for name in PARTS if part is None else (part,):
        shape = "questions and answers" if found["kind"] == "sft" else "plain text"
        source = Source(name, "MindRecord and JSON Lines", "UTF-8")
        result.sources.append(source)
        texts = _read_texts(folder / f"{name}.jsonl", name, source, sample, total)
        questions.append(texts.questions)
        source.shapes[shape] = source.read
        if source.read != found["rows"].get(name, 0):
            result.notes.append(f"{name}.jsonl: {source.read:,} records, the manifest says {found['rows'].get(name)}")
    result.texts = total
    pairs = [(mine, other) for number, mine in enumerate(questions) for other in questions[:number]]
    result.shared_questions = sum(mine.common(other) for mine, other in pairs) if part is None else None
    wanted = {(name, index): record for name, index, record in sample.items()}
    rows: dict[tuple[str, int], Shown] = {}
    for source in result.sources:
        paths = [folder / name for name in _shards(found, source.name)]
        count, tokens, trained = 0, 0, 0
        for name, ids, mask in _rows(paths):
            tokens, trained = tokens + ids.size, trained + int(mask.sum())
            _add_lengths(result, ids, mask)
            if (record := wanted.get((source.name, count))) is not None and record.id == name:
                rows[source.name, count] = _shown(name, source.name, ids, mask, tokenizer, record)
            count += 1
        source.tokens = tokens, trained
        source.size = sum(path.stat().st_size for shard in paths for path in files_of(shard))
        if count != source.read:
            result.notes.append(f"{source.name}: {count:,} rows of tokens for {source.read:,} records")
    result.examples = [rows.get(key) or show(record, key[0]) for key, record in wanted.items()]
    if tokenizer is None and wanted:
        result.notes.append(_NO_TOKENIZER)
    return result


def inspect_mindrecord(path: Path, tokenizer: Tokenizer | None = None, *, examples: int, seed: int) -> Inspection:
    """Read one MindRecord file: as a part of its converted folder where it lies in one, else its tokens alone.

    Raises:
        UserError: as `inspect_converted`.
    """
    path = path.with_name(path.name.removesuffix(".db"))
    folder, part = path.parent, path.name.split(_MARK)[0]
    if part in PARTS and (folder / manifest.FILE_NAME).is_file():
        found = manifest.read(folder)
        if _shards(found, part) == [path.name]:
            return inspect_converted(folder, tokenizer, part=part, examples=examples, seed=seed)
        tokenizer = tokenizer or _shipped(found["tokenizer"])
    result = Inspection(printable(path), "MindRecord file", "tokens", seed, texts=Texts())
    assert result.texts is not None
    source = Source(printable(path.name), "MindRecord")
    result.sources.append(source)
    sample: Reservoir[tuple[str, np.ndarray, np.ndarray]] = Reservoir(examples, seed)
    tokens, trained = 0, 0
    for name, ids, mask in _rows([path]):
        source.read += 1
        tokens, trained = tokens + ids.size, trained + int(mask.sum())
        _add_lengths(result, ids, mask)
        start = int(np.argmax(mask != 0)) if mask.any() else ids.size
        result.texts.records.add(ids.tobytes().hex())
        if start:
            result.texts.questions.add(ids[:start].tobytes().hex())
        if tokenizer is not None:
            result.texts.add_language(tokenizer.decode(ids.tolist()))
        sample.offer((name, ids.copy(), mask.copy()))
    source.size = sum(file.stat().st_size for file in files_of(path))
    source.shapes["plain text" if tokens == trained else "questions and answers"] = source.read
    source.tokens = tokens, trained
    result.examples = [_shown(name, source.name, ids, mask, tokenizer, None) for name, ids, mask in sample.items()]
    if tokenizer is None:
        result.notes.append(_NO_TOKENIZER)
    return result


def _rows(paths: Sequence[Path]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    for path in paths:
        yield from read_rows(path)


def _shards(found: Mapping[str, Any], part: str) -> list[str]:
    """The MindRecord files of a part in their order."""
    if "shards" in found:
        return list(found["shards"].get(part, ()))
    return [name for name in found["files"] if name.startswith(part + _MARK) and not name.endswith(".db")]


def _read_texts(
    path: Path, part: str, source: Source, sample: Reservoir[tuple[str, int, Record]], total: Texts
) -> Texts:
    texts = Texts()
    if not path.is_file():
        source.fault = "missing"
        return texts
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                values = json.loads(line)
                record: Record = (Example if "question" in values else PlainText).from_dict(values)
            except (ValueError, TypeError, RecursionError):
                raise UserError(f"{path} line {number}: not a converted record", "convert the data anew") from None
            texts.add(record)
            total.add(record)
            sample.offer((part, source.read, record))
            source.read += 1
    return texts


def _add_lengths(result: Inspection, ids: np.ndarray, mask: np.ndarray) -> None:
    """Count a row's tokens, those that are trained, and the others."""
    trained = int(np.count_nonzero(mask))
    for name, length in (("record", ids.size), ("prompt", ids.size - trained), ("trained", trained)):
        result.lengths.setdefault(name, LengthTally()).add(length)


def _shown(
    name: str, source: str, ids: np.ndarray, mask: np.ndarray, tokenizer: Tokenizer | None, record: Record | None
) -> Shown:
    if tokenizer is not None:
        return Shown(name, source, token_spans(tokenizer, ids.tolist(), mask.tolist()))
    if record is not None:
        return show(record, source)
    spans = []
    shown, flags = ids[:_MOST_IDS], mask[:_MOST_IDS] != 0
    bounds = [0, *(np.flatnonzero(np.diff(flags)) + 1).tolist(), shown.size]
    for start, end in itertools.pairwise(bounds):
        spans.append(Span(" ".join(map(str, shown[start:end])), bool(flags[start])))
    if ids.size > _MOST_IDS:
        spans.append(Span(f" … {ids.size - _MOST_IDS:,} more", False))
    return Shown(name, source, tuple(spans))


def _facts(folder: Path, found: Mapping[str, Any]) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "tokenizer": found["tokenizer"],
        "prompt": found["prompt"].get("name"),
        "max_length": found["max_length"],
    }
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        facts["conversion"] = {name: report[name] for name in ("read", "kept", "augmented", "rejected")}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return facts


def _check_files(folder: Path, result: Inspection) -> None:
    """A changed folder is still shown; that it changed is said."""
    try:
        manifest.check(folder)
    except UserError as error:
        result.notes.append(str(error))


def _shipped(fingerprint: str) -> Tokenizer | None:
    for name in SHIPPED_MODELS:
        tokenizer = Tokenizer.load(resolve_model(name))
        if tokenizer.fingerprint == fingerprint:
            return tokenizer
    return None
