"""What raw files hold, found in one pass: layout, shape, counts, lengths, repeats, languages, a few examples."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ms_medqa.config.console import progress
from ms_medqa.config.errors import UserError
from ms_medqa.config.schema import DataSection
from ms_medqa.data.encoding import detect
from ms_medqa.data.example import PlainText, Record
from ms_medqa.data.excerpt import show
from ms_medqa.data.inspection import MEASURES, Inspection, Source, record_texts
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.raw import printable
from ms_medqa.data.readers import read_records
from ms_medqa.data.streams import ByteStream
from ms_medqa.data.tallies import Reservoir

# ZIP archives (so are spreadsheets), Parquet, PDF, SQLite: their first bytes may well be text.
_BINARY = (b"PK\x03\x04", b"PAR1", b"%PDF-", b"SQLite format 3")


def inspect_raw(
    path: Path, settings: DataSection, prompt: Prompt | None = None, *, examples: int = 5, seed: int = 42
) -> Inspection:
    """Read a raw file, or all files below a folder.

    Args:
        path: the file or folder.
        settings: the user's column names, shape and normalisation.
        prompt: with the tokenizer of a model: lengths are then in tokens, and examples as they would be trained.
        examples: how many to show.
        seed: of their choice.

    Raises:
        UserError: there is no such path.
    """
    folder = path.is_dir()
    result = Inspection(
        printable(path), "folder of raw files" if folder else "raw file", "tokens" if prompt else "characters", seed
    )
    files = list(_files(path)) if folder else [path]
    sample: Reservoir[tuple[str, Record]] = Reservoir(examples, seed)
    sizes = [_size(file) for file in files]
    with progress(total=max(1, sum(sizes) // 1024), desc="reading", unit="KB") as bar:
        for number, file in enumerate(files):
            name = printable(file.relative_to(path)) if folder else printable(file.name)
            source = Source(name, size=sizes[number])
            result.sources.append(source)
            for position in _read_file(file, source, settings, result, sample, prompt):
                bar.update((sum(sizes[:number]) + min(position, sizes[number])) // 1024 - bar.n)
    result.examples = [show(record, source, prompt) for source, record in sample.items()]
    return result


def encoding_of(path: Path) -> str:
    """The encoding of a file's text (unpacked, where it is gzipped) as the readers find it; `binary` for no text."""
    with ByteStream(path) as stream:
        head = stream.read()
        found = detect(itertools.chain([head], iter(stream.read, b"")))
    if head.startswith(_BINARY) or (b"\0" in head and not found.name.startswith("utf-16")):
        return "binary"
    mark = " with byte order mark" if found.bom and found.name == "utf-8" else ""
    return f"{found.words}{mark}"


def _read_file(
    path: Path,
    source: Source,
    settings: DataSection,
    result: Inspection,
    sample: Reservoir[tuple[str, Record]],
    prompt: Prompt | None,
) -> Iterator[int]:
    """Read one file into the figures, handing out the bytes done. A fault of the file ends it, not those after it."""
    try:
        source.layout, readings = read_records(path, settings, source.name)
        source.encoding = encoding_of(path)
        for reading in readings:
            source.read += 1
            error = reading.error or _emptiness(reading.record)
            if error is not None:
                source.reasons[error[0]] += 1
                source.first = source.first or (reading.raw.line, error[1])
            else:
                assert reading.record is not None
                source.shapes[reading.format] += 1
                _add(reading.record, result, prompt)
                sample.offer((source.name, reading.record))
            if source.read % 1024 == 0:
                yield reading.raw.position
    except (UserError, OSError) as error:
        if not os.path.lexists(path):
            raise
        source.fault = str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")
        source.encoding = source.encoding or (encoding_of(path) if os.access(path, os.R_OK) and path.is_file() else "")


def _emptiness(record: Record | None) -> tuple[str, str] | None:
    """Reason and detail where a record has nothing to learn from, as `ms-medqa convert` has it."""
    if isinstance(record, PlainText):
        return None if record.text else ("empty", "no text")
    assert record is not None
    rounds = (*record.history, (record.question, record.answer))
    if all(question and answer for question, answer in rounds):
        return None
    return "empty", "no question" if not all(question for question, _ in rounds) else "no answer"


def _add(record: Record, result: Inspection, prompt: Prompt | None) -> None:
    assert result.texts is not None
    result.texts.add(record)
    if isinstance(record, PlainText):
        text = record.text
        result.lengths["record"].add(len(text) if prompt is None else len(prompt.tokenizer.encode(text)))
        return
    if prompt is None:
        lengths: Sequence[int] = (sum(map(len, record_texts(record))), len(record.question), len(record.answer))
    else:
        alone = prompt.tokenizer.encode_batch([record.question, record.answer])
        lengths = (len(prompt.encode(record).input_ids), *map(len, alone))
    for name, length in zip(MEASURES, lengths, strict=True):
        result.lengths[name].add(length)


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder in the order of their paths, hidden ones left out."""
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place) / name for name in sorted(names) if not name.startswith("."))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
