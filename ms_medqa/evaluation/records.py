"""Read what an evaluation asks, and say of every record that it cannot use why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path
from ms_medqa.config.schema import DataSection
from ms_medqa.data import manifest
from ms_medqa.data.example import Example
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.readers import read_records
from ms_medqa.data.records import TokenRecords, from_rows


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that is not evaluated."""

    id: str
    reason: str


def data_file(path: str | Path) -> Path:
    """The file to read: `path` itself, or the test part of a converted folder."""
    path = user_path(path)
    return path / "test.jsonl" if (path / "test.jsonl").is_file() else path


def read_examples(path: str | Path, settings: DataSection | None = None) -> tuple[list[Example], list[Skipped]]:
    """The examples of a file, in its order, and the records that are none.

    Args:
        path: `test.jsonl` (or another part) of a converted folder, that folder itself, or any file `convert` reads.
        settings: how a raw file is understood: column names, shape, normalisation.

    Raises:
        UserError: the file is missing, broken as a whole, or holds no question with an answer.
    """
    path = data_file(path)
    if settings is None or (path.parent / manifest.FILE_NAME).is_file():
        # What is converted has the project's own columns, whatever those of the raw files were.
        settings = DataSection()
    _, readings = read_records(path, settings, path.name)
    examples: list[Example] = []
    skipped: list[Skipped] = []
    for reading in readings:
        record, line = reading.record, f"line {reading.raw.line}"
        if isinstance(record, Example):
            examples.append(record)
        elif record is None:
            assert reading.error is not None
            skipped.append(Skipped(f"{path.stem}-{reading.raw.number}", f"{line}: {reading.error[1]}"))
        else:
            skipped.append(Skipped(record.id, f"{line}: plain text has no question"))
    if not examples:
        first = f" ({skipped[0].reason})" if skipped else ""
        raise UserError(f"{path}: no question with an answer{first}", "give records with a question and its answer")
    return examples, skipped


@dataclass(frozen=True, slots=True)
class Prepared:
    """Examples that a model can be measured on.

    Attributes:
        examples: in the order given.
        prompts: token ids of each prompt.
        records: tokens and label mask of each prompt with its answer.
        skipped: the others.
    """

    examples: list[Example]
    prompts: list[list[int]]
    records: TokenRecords
    skipped: list[Skipped]


def prepare(examples: Sequence[Example], prompt: Prompt, positions: int, max_new_tokens: int) -> Prepared:
    """Encode examples; those that are empty or too long for the model are set aside, with the reason.

    Args:
        examples: what to ask.
        prompt: how.
        positions: tokens that the model can hold.
        max_new_tokens: room that an answer needs.
    """
    kept: list[Example] = []
    prompts: list[list[int]] = []
    rows: list[tuple[str, np.ndarray, np.ndarray]] = []
    skipped: list[Skipped] = []
    for example in examples:
        if not example.question.strip() or not example.answer.strip():
            part = "question" if not example.question.strip() else "answer"
            skipped.append(Skipped(example.id, f"the {part} is empty"))
            continue
        encoded, start = prompt.encode(example), prompt.encode_prompt(example)
        need = max(len(encoded.input_ids), len(start) + max_new_tokens)
        if need > positions:
            skipped.append(Skipped(example.id, f"needs {need} positions, the model holds {positions}"))
            continue
        kept.append(example)
        prompts.append(start)
        rows.append((example.id, np.array(encoded.input_ids), np.array(encoded.loss_mask)))
    return Prepared(kept, prompts, from_rows(rows), skipped)
