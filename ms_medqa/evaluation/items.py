"""What an evaluation asks: the records of files, each with the group that it counts to, and those that are none."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import sha256_file, user_path
from ms_medqa.config.schema import DataSection
from ms_medqa.data import manifest
from ms_medqa.data.example import Record
from ms_medqa.data.inputs import expand_inputs
from ms_medqa.data.readers import read_records

# Columns that hold an exam question's subject, the likelier first: MedMCQA, CMB, CMExam, ScienceQA, MedQA and others.
_SUBJECTS = (
    "subject_name", "exam_subject", "medical discipline", "clinical department", "subject", "discipline", "category",
    "topic", "department", "meta_info", "学科", "科目", "科室",
)  # fmt: skip
# C-Eval and CMMLU have a file for each subject, and its name has the part behind it.
_PART = re.compile(r"[_-](?:test|val|dev|train|valid|validation)$")
_LONGEST_GROUP = 80


@dataclass(frozen=True, slots=True)
class Item:
    """A record that is measured.

    Attributes:
        record: what is asked.
        group: a subject, or None.
        place: its number among all records that were read, from 0.
    """

    record: Record
    group: str | None = None
    place: int = 0

    @property
    def id(self) -> str:
        """Of the record."""
        return self.record.id


@dataclass(frozen=True, slots=True)
class Skipped:
    """A record that is not measured.

    Attributes:
        id: of the record.
        reason: in full.
        kind: of the reason, the same for all records at fault in this way; None: the reason itself.
        place: as of an `Item`.
    """

    id: str
    reason: str
    kind: str | None = None
    place: int = 0


@dataclass(frozen=True, slots=True)
class Items:
    """What was read.

    Attributes:
        path: as named.
        items: in the order of the files.
        skipped: records that are none.
        sha256: of the file; of several, of all their digests.
        settings: by which the files were understood, as plain JSON values.
    """

    path: Path
    items: list[Item]
    skipped: list[Skipped]
    sha256: str
    settings: dict[str, Any]

    @property
    def read(self) -> int:
        """Records, whether usable or not."""
        return len(self.items) + len(self.skipped)


def read_items(path: str | Path, settings: DataSection | None = None, group_by: str | None = None) -> Items:
    """The items of a file, of all files in a folder, or of the test part of a converted folder.

    Args:
        path: `test.jsonl` (or another part) of a converted folder, that folder itself, or any file that `convert`
            reads; of another folder, all of them, and each file's name is the group of its records.
        settings: how a raw file is understood: column names, shape, normalisation.
        group_by: column of the group; None finds a subject's column by itself.

    Raises:
        UserError: a file is missing, broken as a whole, or holds no record.
    """
    path, settings = user_path(path), settings or DataSection()
    if (path / manifest.FILE_NAME).is_file() and (path / "test.jsonl").is_file():
        path = path / "test.jsonl"
    files = [file.path for file in expand_inputs([path])]
    items: list[Item] = []
    skipped: list[Skipped] = []
    for file in files:
        _read_file(file, settings, group_by, len(files) > 1, items, skipped)
    items, skipped = _tested(items, skipped)
    if not items:
        first = f" ({skipped[0].reason})" if skipped else ""
        raise UserError(f"{path}: no question with an answer{first}", "give records with a question and its answer")
    if group_by and not any(item.group for item in items):
        raise UserError(f"eval.group_by = {group_by!r}: no record of {path} has this column")
    digests = [sha256_file(file) for file in files]
    whole = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    read_by = settings.model_dump(mode="json", include={"columns", "shape", "nfkc"})
    return Items(path, items, skipped, whole, read_by)


def _tested(items: list[Item], skipped: list[Skipped]) -> tuple[list[Item], list[Skipped]]:
    """The same, where the records themselves say which are for testing: those of other parts are skipped.

    They come behind all others, so that a limit is of records that are for testing.
    """
    if all(item.record.split != "test" for item in items):
        return items, skipped
    ordered: list[Item | Skipped] = sorted([*items, *skipped], key=lambda one: one.place)
    others = [
        Skipped(one.id, f"the record belongs to the part {one.record.split}")
        for one in ordered
        if isinstance(one, Item) and _is_of_another_part(one)
    ]
    mine = [one for one in ordered if not (isinstance(one, Item) and _is_of_another_part(one))]
    placed = [replace(one, place=place) for place, one in enumerate([*mine, *others])]
    return [one for one in placed if isinstance(one, Item)], [one for one in placed if isinstance(one, Skipped)]


def _is_of_another_part(item: Item) -> bool:
    return item.record.split not in (None, "test")


def _read_file(
    file: Path,
    settings: DataSection,
    group_by: str | None,
    many: bool,
    items: list[Item],
    skipped: list[Skipped],
) -> None:
    if (file.parent / manifest.FILE_NAME).is_file():
        # What is converted has the project's own columns, whatever those of the raw files were.
        settings = DataSection()
    own = _PART.sub("", _text(file.name.split(".")[0])) if many and not group_by else None
    _, readings = read_records(file, settings, file.name)
    for reading in readings:
        place = len(items) + len(skipped)
        if reading.record is not None:
            items.append(Item(reading.record, _group(reading.raw.value, group_by) or own, place))
        else:
            assert reading.error is not None
            kind, detail = reading.error
            name = _text(f"{file.name.split('.')[0]}-{reading.raw.number}")
            skipped.append(Skipped(name, f"line {reading.raw.line}: {detail}", kind.replace("_", " "), place))


def _group(value: Any, column: str | None) -> str | None:
    if not isinstance(value, Mapping):
        return None
    if column is not None:
        found = value.get(column)
    else:
        columns = {key.lower(): key for key in value if isinstance(key, str)}
        found = next((value[columns[name]] for name in _SUBJECTS if name in columns), None)
    if isinstance(found, bool) or not isinstance(found, str | int):
        return None
    return _text(str(found)).strip()[:_LONGEST_GROUP] or None


def _text(text: str) -> str:
    """What can be written: half a surrogate pair, which JSON may hold, is no character."""
    return text.encode("utf-8", "replace").decode("utf-8")
