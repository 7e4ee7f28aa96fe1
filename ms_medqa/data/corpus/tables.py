"""Reading the tables of general knowledge and of taught facts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ms_medqa.config.errors import UserError

FOLDER = Path(__file__).parent / "tables"

# The field that names a record of each general table, in the order in which the generators go through them.
GENERAL = {"diseases": "name", "drugs": "name", "exams": "name", "first_aid": "situation", "english": "topic"}


_SHARED = ("cards", "openers", "before", "after")


@dataclass(frozen=True, slots=True)
class Relation:
    """The wordings of one kind of fact; `{s}` stands for the subject, `{k}` for the key.

    Attributes:
        train, val, test: question forms of each part; the first of `val` is close to `train`, the others are not.
        cards: training questions that name the subject alone; the same for all relations.
        openers: what may stand before a training question; the same for all relations.
        before, after: lists of phrases, one of each of which may stand before or after the bare subject in a training
            question; the same for all relations.
        answer: sentence forms with subject and key.
        context: knowledge sentences with subject and key.
    """

    name: str
    train: tuple[str, ...]
    cards: tuple[str, ...]
    openers: tuple[str, ...]
    before: tuple[tuple[str, ...], ...]
    after: tuple[tuple[str, ...], ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    answer: tuple[str, ...]
    context: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact that only fine-tuning teaches: `key` is what a right answer about `subject` must contain."""

    relation: Relation
    subject: str
    key: str


def load_general(folder: Path = FOLDER) -> dict[str, list[dict[str, Any]]]:
    """The general tables by name, as lists of records.

    Raises:
        UserError: a table is absent, is no list of mappings, or has a record without its name.
    """
    return {table: _load_records(folder / f"{table}.yaml", field) for table, field in GENERAL.items()}


def load_facts(path: Path = FOLDER / "facts_taught.yaml") -> list[Fact]:
    """The taught facts in the order of the file.

    Raises:
        UserError: the file is absent, or a fact or relation lacks a field.
    """
    content = _load(path)
    try:
        shared = {field: tuple(content[field]) for field in ("cards", "openers")}
        shared |= {field: tuple(map(tuple, content[field])) for field in ("before", "after")}
        relations = {name: _relation(name, forms, shared) for name, forms in content["relations"].items()}
        return [Fact(relations[row["relation"]], str(row["subject"]), str(row["key"])) for row in content["facts"]]
    except (KeyError, TypeError, AttributeError) as error:
        hint = (
            f"it needs {', '.join(_SHARED)}, `relations` with train, val, test, answer, context "
            "and `facts` with relation, subject, key"
        )
        raise UserError(f"{path}: not a table of taught facts ({error})", hint) from error


def _relation(name: str, forms: Mapping[str, Any], shared: Mapping[str, tuple[Any, ...]]) -> Relation:
    parts = {part: tuple(forms[part]) for part in ("train", "val", "test", "answer", "context")}
    return Relation(name=name, **shared, **parts)


def _load_records(path: Path, field: str) -> list[dict[str, Any]]:
    records = _load(path)
    if not isinstance(records, list):
        raise UserError(f"{path}: not a list of records")
    for number, record in enumerate(records, 1):
        if not isinstance(record, dict) or not record.get(field):
            raise UserError(f"{path}: record {number} has no `{field}`")
    return records


def _load(path: Path) -> Any:
    try:
        return yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"no table at {path}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from error
