"""A result folder that appears whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from ms_medqa.config.errors import RunError, UserError
from ms_medqa.config.files import open_locked, space_checked, sync_folder, user_path

# Errors that speak of the place the user chose.
_UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)


@contextmanager
def new_folder(output: Path, *, mark: str, names: Collection[str], inputs: Sequence[Path] = ()) -> Iterator[Path]:
    """Give a work folder beside `output`, which takes the place of `output` at the end of the block.

    If the block raises, or the process dies, `output` is as it was. What a dead process left is removed by the next.

    Args:
        output: the folder to make. It may be absent, empty, or an earlier result: with a file `mark` and nothing but
            `names` in it.
        mark: the file that makes a folder a result.
        names: all files that a result may hold.
        inputs: files that are read; they must not lie in `output`.

    Raises:
        UserError: `output` holds something else, is the current folder, cannot be written, or is being made by another
            process.
        RunError: no space is left.
    """
    output = Path(os.path.realpath(user_path(output)))
    _check_target(output, mark, names)
    for path in inputs:
        if output in Path(os.path.realpath(path)).parents:
            raise UserError(f"{path}: lies in the output folder {output}, which is replaced", "choose another --output")
    work = output.with_name(f".{output.name}.partial")
    old = output.with_name(f".{output.name}.old")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with _locked(output.with_name(f".{output.name}.lock"), output), space_checked(output):
            _remove(work)
            if old.is_dir() and not output.exists():
                # A process died between the two renames: the earlier result is not to be lost.
                os.rename(old, output)
            work.mkdir()
            try:
                yield work
                _put_in_place(work, output, old)
            except RunError as error:
                # The work folder is gone when the message is read.
                raise RunError(str(error).replace(str(work), str(output))) from error
            finally:
                _remove(work)
    except OSError as error:
        if error.errno not in _UNUSABLE:
            raise
        what = "is a file, not a folder" if error.errno in (errno.EEXIST, errno.ENOTDIR) else error.strerror
        raise UserError(f"output {error.filename or output}: {what}", "choose another --output") from None


def _check_target(output: Path, mark: str, names: Collection[str]) -> None:
    if not os.path.lexists(output):
        return
    if not output.is_dir():
        raise UserError(f"output {output}: a file of this name is there", "choose another --output")
    if os.path.ismount(output):
        raise UserError(f"output {output}: is a mount point and cannot be replaced", f"give --output {output / 'data'}")
    if os.path.samefile(output, os.curdir):
        raise UserError(f"output {output}: is the current folder and cannot be replaced", "run it from another folder")
    present = {path.name for path in output.iterdir()}
    if not present:
        return
    if mark not in present:
        raise UserError(f"output {output}: the folder is not empty and no earlier result", "choose another --output")
    if extra := sorted(present - set(names)):
        raise UserError(
            f"output {output}: holds {extra[0]!r} beside an earlier result", "move it away or choose another --output"
        )
    if not os.access(output, os.W_OK | os.X_OK):
        raise UserError(f"output {output}: the earlier result is write-protected", "choose another --output")


@contextmanager
def _locked(path: Path, output: Path) -> Iterator[None]:
    with open_locked(path, "w", UserError(f"output {output}: another process is writing it", "wait for it")):
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()


def _put_in_place(work: Path, output: Path, old: Path) -> None:
    sync_folder(work)
    _remove(old)
    if output.exists():
        os.rename(output, old)
    try:
        os.rename(work, output)
    except OSError:
        if old.exists():
            os.rename(old, output)
        raise
    sync_folder(output.parent)
    # The result is there; what is left of the old one (a network file system keeps files that are open) goes next time.
    with suppress(OSError):
        _remove(old)


def _remove(folder: Path) -> None:
    if folder.is_dir() and not folder.is_symlink():
        shutil.rmtree(folder)
