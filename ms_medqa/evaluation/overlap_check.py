"""Does an evaluation ask what the model was trained on? Find the training data and count the items that stand in it."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ms_medqa.config.console import progress
from ms_medqa.config.errors import UserError, from_os_error
from ms_medqa.config.files import user_path
from ms_medqa.config.schema import DataSection
from ms_medqa.data import manifest
from ms_medqa.data.example import Record
from ms_medqa.data.inputs import expand_inputs
from ms_medqa.data.raw import printable
from ms_medqa.data.readers import read_records
from ms_medqa.evaluation.overlapped_items import OverlappedItems

# What `train` leaves in its run folder.
_DATA_FILE, _CONFIG_FILE = "data.json", "config.yaml"
_TRAIN = "train.jsonl"
_HINT = "name the data with --train-data FOLDER"
# Training records that are held at a time.
_BLOCK = 2048


def run_folder(trained: str | Path) -> Path:
    """The folder of the run in which `train` wrote an adapter (RUN/adapter) or a model (RUN/model)."""
    return Path(os.path.realpath(user_path(trained))).parent


def training_data_of(adapter: str | Path) -> Path | None:
    """The converted folder that an adapter (or a model) was trained on; None where that is unknown or not there.

    RUN/data.json names it, or else (older runs have none) RUN/config.yaml. A relative path is looked for as it stands,
    then below RUN and the folders that RUN lies in. A folder that was converted anew since then is not the one, which
    RUN/data.json tells.
    """
    return _find(adapter)[0]


def overlaps_of(
    sets: Sequence[Sequence[Record]],
    trained: Mapping[str, str | Path],
    settings: DataSection,
    train_data: str | Path | None = None,
) -> list[dict[str, Any]]:
    """The overlap of several evaluations with the data of several models: items that stand in that of any.

    What a model was trained on before that, such as its base, is not known and not checked. The data is read once.

    Args:
        sets: the items of each evaluation.
        trained: name → folder of each adapter, or of a model that `train` wrote.
        settings: as in `check_overlap`.
        train_data: more training data, and that of the models that do not tell theirs, where the user names it.

    Returns:
        For each set as `check_overlap`; unchecked where the data of one model is unknown.
    """
    folders = [] if train_data is None else [user_path(train_data)]
    for name, folder in trained.items():
        found, why = _find(folder)
        if found is not None:
            folders.append(found)
        elif train_data is None:
            return [_unchecked(f"{printable(name)}: {why}") for _ in sets]
    if not folders:
        return [_unchecked("no model tells what it was trained on") for _ in sets]
    return _check(sets, list(dict.fromkeys(folder.resolve() for folder in folders)), settings)


def check_overlap(records: Sequence[Record], train: Path, settings: DataSection) -> dict[str, Any]:
    """Count the items of an evaluation that stand in training data; `OverlappedItems` says when one does.

    Of a converted folder the whole training part counts, with its variants and mixed-in data, even where
    `train.max_train_samples` took less of it. The data is read once; memory does not depend on its size.

    Args:
        records: the items.
        train: a converted folder, or whatever `convert` reads: a file, a folder, a pattern.
        settings: `cluster_similarity` and `benchmark_ngram` say what is alike, as for `convert --benchmark`; the others
            how raw files are understood.

    Returns:
        `checked` (true), `train` (what was read), `items` (how many overlap), `of` (all items), `ids` (of those that
        overlap, in order), `reasons` (reason → how many) and `unread` (training records that could not be read); or
        `checked` (false) and `why`: the data is absent, was changed since it was converted, or holds no record that can
        be read.
    """
    return _check([records], [train], settings)[0]


def _check(sets: Sequence[Sequence[Record]], trains: Sequence[Path], settings: DataSection) -> list[dict[str, Any]]:
    indices = [OverlappedItems(records, settings.cluster_similarity, settings.benchmark_ngram) for records in sets]
    paths, unread = [], 0
    try:
        for train in trains:
            path, rows, found = _open(train, settings)
            paths.append(printable(path))
            usable, broken = _show(indices, rows, found)
            if not usable:
                return [_unchecked(f"no record of {paths[-1]} can be read") for _ in sets]
            unread += broken
    except UserError as error:
        return [_unchecked(error.message) for _ in sets]
    except OSError as error:
        known = from_os_error(error)
        if known is None:
            raise
        return [_unchecked(str(known)) for _ in sets]
    about = {"checked": True, "train": ", ".join(paths), "unread": unread}
    return [about | _counted(records, index) for records, index in zip(sets, indices, strict=True)]


def _counted(records: Sequence[Record], index: OverlappedItems) -> dict[str, Any]:
    reasons = index.reasons()
    hit = [(record.id, reason) for record, reason in zip(records, reasons, strict=True) if reason is not None]
    return {
        "items": len(hit),
        "of": len(records),
        "ids": [name for name, _ in hit],
        "reasons": dict(Counter(reason for _, reason in hit).most_common()),
    }


def _show(indices: Sequence[OverlappedItems], rows: int | None, found: Iterator[Record | None]) -> tuple[int, int]:
    """Compare all records; how many could be used, and how many not."""
    usable = broken = 0
    with progress(total=rows, desc="comparing with the training data", unit="record") as bar:
        while block := list(itertools.islice(found, _BLOCK)):
            records = [record for record in block if record is not None]
            for index in indices:
                index.show(records)
            usable += len(records)
            broken += len(block) - len(records)
            bar.update(len(block))
    return usable, broken


def _open(train: Path, settings: DataSection) -> tuple[Path, int | None, Iterator[Record | None]]:
    """What is read, the number of its records where that is known, and these; None for one that cannot be used."""
    rows = None
    if (train / manifest.FILE_NAME).is_file():
        rows = manifest.check(train, files=[_TRAIN])["rows"]["train"]
        train = train / _TRAIN
    if (train.parent / manifest.FILE_NAME).is_file():
        # What is converted has the project's own columns, whatever those of the raw files were.
        settings = DataSection()
    sources = expand_inputs([train])

    def records() -> Iterator[Record | None]:
        for source in sources:
            for reading in read_records(source.path, settings, source.name)[1]:
                yield reading.record

    return train, rows, records()


def _find(trained: str | Path) -> tuple[Path | None, str]:
    """The converted folder that an adapter or model was trained on, or None and why it is not known."""
    run = run_folder(trained)
    told, config = _read(run / _DATA_FILE), _read(run / _CONFIG_FILE)
    section = config.get("data")
    by_config = section.get("path") if isinstance(section, dict) else None
    places = [Path(path) for path in (told.get("path"),) if isinstance(path, str)]
    if isinstance(by_config, str):
        places += [folder / by_config for folder in (Path(), run, *run.parents)]
    if not places:
        return None, f"{printable(trained)} lies in no run folder that tells what it was trained on"
    why = f"the data {printable(places[0])}, on which {printable(trained)} was trained, is not there"
    for place in dict.fromkeys(places):
        if not os.path.isfile(place / manifest.FILE_NAME):
            continue
        try:
            files = manifest.read(place)["files"]
        except UserError as error:
            why = error.message
            continue
        wanted = told.get("train_sha256")
        if wanted is None or wanted == files.get(_TRAIN, {}).get("sha256"):
            return place, ""
        why = f"{printable(place)} has been converted anew since {printable(trained)} was trained on it"
    return None, why


def _read(path: Path) -> dict[str, Any]:
    """A JSON or YAML file of a run; empty where it is absent, broken or no mapping."""
    try:
        text = path.read_text(encoding="utf-8")
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _unchecked(why: str) -> dict[str, Any]:
    return {"checked": False, "why": f"{why}: {_HINT}"}
