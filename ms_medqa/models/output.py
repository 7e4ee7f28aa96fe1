"""A model folder that is either whole or absent."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ms_medqa import __version__
from ms_medqa.config.errors import RunError, UserError
from ms_medqa.config.files import user_path
from ms_medqa.data.folder import new_folder
from ms_medqa.models.checkpoint import read_json

# Lists the files of a folder that was written here: only such a folder is ever replaced.
RECORD_FILE = "export.json"


def check_output(output: Path, sources: Iterable[Path]) -> Path:
    """The resolved output folder, once it is clear that writing it can harm nothing.

    Raises:
        UserError: it holds something that was not written here, or it is, holds or lies in a folder that is read.
    """
    output = user_path(output).resolve()
    read = [user_path(folder).resolve() for folder in sources]
    linked = _linked_folders(read)
    for source in (*read, *linked):
        # Inside a folder where only linked files lie, such as a disk's root, there is room for others.
        inside = source in output.parents and source not in linked
        if output == source or output in source.parents or inside:
            raise UserError(f"output {output}: overlaps with {source}, which is only read", "name another folder")
    if output.exists() and not output.is_dir():
        raise UserError(f"output {output}: not a folder", "choose another name")
    found = sorted(path.name for path in output.iterdir()) if output.is_dir() else []
    own = _recorded(output)
    strange = [name for name in found if name not in own]
    if strange:
        raise UserError(f"output {output}: holds {strange[0]}, which no export wrote", "name a new or empty folder")
    return output


@contextmanager
def whole_folder(output: Path, needed: int, record: Mapping[str, Any]) -> Iterator[Path]:
    """A work folder beside `output` that takes its place, synced, at the end of the block.

    If the block raises, or the process dies, `output` is as it was. What a dead process left is removed by the next.

    Args:
        output: from `check_output`.
        needed: bytes that will be written.
        record: what `export.json` shall say about where the files come from.

    Raises:
        UserError: `output` cannot be replaced, or another process is writing it.
        RunError: no space for `needed` bytes, or it runs out on the way.
    """
    made = [folder for folder in output.parents if not folder.exists()]
    try:
        with new_folder(output, mark=RECORD_FILE, names=_recorded(output)) as work:
            _check_space(output, needed)
            yield work
            files = sorted(path.name for path in work.iterdir())
            text = json.dumps({"ms_medqa": __version__, **record, "files": files}, ensure_ascii=False, indent=2)
            (work / RECORD_FILE).write_text(text + "\n", encoding="utf-8")
            for path in work.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
    except BaseException:
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        raise


def amount(size: int) -> str:
    """Bytes for people."""
    return f"{size / 1e9:.2f} GB" if size >= 10**8 else f"{size / 1e6:.2f} MB"


def written(size: int, files: int) -> str:
    """Bytes and number of files for people."""
    return f"{amount(size)} in {files} file{'' if files == 1 else 's'}"


def _linked_folders(folders: Iterable[Path]) -> set[Path]:
    """Where the files behind the symbolic links in these folders lie, other folders only."""
    files = [path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.is_file()]
    return {Path(os.path.realpath(path)).parent for path in files if path.is_symlink()} - {*folders}


def _check_space(output: Path, needed: int) -> None:
    free = shutil.disk_usage(output.parent).free
    if needed > free:
        raise RunError(f"{output} needs {amount(needed)}, and {amount(free)} are free")


def _recorded(output: Path) -> set[str]:
    """The files that an earlier export says it wrote; a folder or a link by such a name is somebody else's."""
    if not (output / RECORD_FILE).is_file():
        return set()
    record = read_json(output / RECORD_FILE)
    files = record.get("files")
    known = "ms_medqa" in record and isinstance(files, list) and all(isinstance(name, str) for name in files)
    own = {RECORD_FILE, *files} if known else set()
    return {path.name for path in output.iterdir() if path.name in own and path.is_file() and not path.is_symlink()}
