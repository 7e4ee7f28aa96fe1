"""What a converted folder holds, with checksums: written last, checked whenever the folder is read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import sha256_file, write_json
from ms_medqa.data.mindrecord import SCHEMA, files_of, read_records
from ms_medqa.data.prompt import Prompt
from ms_medqa.data.records import TokenRecords, empty
from ms_medqa.data.split import PARTS
from ms_medqa.data.tokenizer import Tokenizer

FILE_NAME = "manifest.json"
_FORMAT = "ms_medqa.data"
_VERSION = 2
_AGAIN = "convert the data anew"


def write(
    folder: Path,
    *,
    kind: str,
    rows: Mapping[str, int],
    tokens: Mapping[str, int],
    max_length: int,
    tokenizer: Tokenizer,
    prompt: Prompt,
    shards: Mapping[str, Sequence[str]],
    files: Iterable[str],
) -> None:
    """Write `manifest.json` of a folder whose other files are complete.

    Args:
        folder: the folder.
        kind: `sft` (questions and answers) or `text` (plain text).
        rows: records of each part.
        tokens: tokens of each part.
        max_length: `data.max_length` of the conversion.
        tokenizer: made the tokens.
        prompt: made the text.
        shards: names of the MindRecord files of each part, in the order of their records; none for an empty part.
        files: names of the files to list.
    """
    write_json(
        folder / FILE_NAME,
        {
            "format": _FORMAT,
            "version": _VERSION,
            "kind": kind,
            "rows": dict(rows),
            "tokens": dict(tokens),
            "shards": {part: list(names) for part, names in shards.items()},
            "max_length": max_length,
            "schema": SCHEMA,
            "tokenizer": tokenizer.fingerprint,
            "prompt": prompt.to_dict(),
            "files": {
                name: {"bytes": (folder / name).stat().st_size, "sha256": sha256_file(folder / name)} for name in files
            },
        },
    )


def read(folder: str | Path) -> dict[str, Any]:
    """The manifest of a converted folder, unchecked against the files.

    Raises:
        UserError: there is none, or it is not of this format.
    """
    folder = Path(folder)
    path = folder / FILE_NAME
    if not folder.is_dir():
        raise UserError(f"data {folder}: no such folder", "make it with `ms-medqa convert … --output FOLDER`")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"data {folder}: no {FILE_NAME}, so this is no converted folder", "make one with `ms-medqa convert`"
        ) from None
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not readable ({error})", _AGAIN) from None
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise UserError(f"{path}: not a manifest of converted data", _AGAIN)
    if manifest.get("version") != _VERSION:
        raise UserError(f"{path}: version {manifest.get('version')!r}, this release reads {_VERSION}", _AGAIN)
    return manifest


def check(
    folder: str | Path,
    tokenizer: Tokenizer | None = None,
    prompt: Prompt | None = None,
    *,
    files: Iterable[str] | None = None,
) -> dict[str, Any]:
    """Read the manifest and verify that the folder is what it says.

    Args:
        folder: a folder written by `ms-medqa convert`.
        tokenizer: the model's; its fingerprint must be that of the conversion.
        prompt: the model's; it must be that of the conversion. Plain text has no prompt, so it is not compared there.
        files: names to verify; all by default.

    Raises:
        UserError: a file is missing or changed, or tokenizer or prompt are others; it says what to do.
    """
    folder = Path(folder)
    manifest = read(folder)
    if tokenizer is not None and tokenizer.fingerprint != manifest["tokenizer"]:
        raise UserError(
            f"data {folder}: made with another tokenizer than that of {tokenizer.folder} "
            f"({manifest['tokenizer'][:8]} and {tokenizer.fingerprint[:8]})",
            f"convert the data anew with --model {tokenizer.folder}",
        )
    if prompt is not None and manifest["kind"] == "sft" and prompt.to_dict() != manifest["prompt"]:
        name = manifest["prompt"].get("name")
        other = f"prompt {name!r}, not {prompt.name!r}" if name != prompt.name else f"another definition of {name!r}"
        raise UserError(f"data {folder}: made with {other}", f"set data.prompt={name} or convert the data anew")
    names = manifest["files"] if files is None else files
    for name in names:
        _check_file(folder / name, manifest["files"].get(name))
    return manifest


def load_split(folder: str | Path, name: str, tokenizer: Tokenizer | None, prompt: Prompt | None) -> TokenRecords:
    """The tokenised records of one part, after its files have been verified.

    Args:
        folder: a folder written by `ms-medqa convert`.
        name: `train`, `val` or `test`.
        tokenizer: as in `check`.
        prompt: as in `check`.

    Returns:
        The records in the order of `{name}.jsonl`; none when the part is empty.

    Raises:
        UserError: as in `check`.
    """
    assert name in PARTS, name
    folder = Path(folder)
    found = read(folder)
    rows, shards = found["rows"][name], [folder / shard for shard in found["shards"][name]]
    check(folder, tokenizer, prompt, files=[file.name for shard in shards for file in files_of(shard)])
    records = read_records(*shards) if shards else empty()
    if len(records) != rows:
        raise UserError(f"{folder}: {len(records)} {name} rows, the manifest says {rows}", _AGAIN)
    return records


def _check_file(path: Path, entry: dict[str, Any] | None) -> None:
    if not path.is_file():
        raise UserError(f"{path}: missing, though {FILE_NAME} lists it", _AGAIN)
    if entry is None or path.stat().st_size != entry["bytes"] or sha256_file(path) != entry["sha256"]:
        raise UserError(f"{path}: changed since it was converted (its sha256 differs)", _AGAIN)
