"""Files that are either whole or absent."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from ms_medqa.config.errors import NO_SPACE, RunError, UserError

# Made once: `json.dumps` makes one for each line.
_READABLE = json.JSONEncoder(ensure_ascii=False)


def user_path(text: str | Path) -> Path:
    """A path as a user writes it, `~` and `~name` included.

    Raises:
        UserError: this system has no user of that name.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise UserError(f"{text}: there is no such user", "write the whole path") from None


def check_readable(path: Path) -> None:
    """Raise UserError where there is no regular file, OSError where it cannot be read."""
    if not path.is_file():
        raise UserError(f"{path}: not a regular file" if path.exists() else f"{path}: no such file")
    path.open("rb").close()


def check_writable(path: Path) -> Path:
    """The file behind a path that `atomic_write` will replace; what stands against it shows here, before the work.

    Raises:
        UserError: it is a folder or a device.
        OSError: no file can be made there.
    """
    path = _replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path.parent):
        return path


@contextmanager
def atomic_write(path: str | Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file that appears under its name only when it is complete.

    The content goes to a unique name in the same folder (made when absent), is synced, and takes the place of `path` at
    the end of the block. If the block raises, `path` is as it was and nothing is left behind. Of a link it is the file
    behind it that is replaced.

    Args:
        path: the file to write.
        mode: `w` (UTF-8 text, `\\n` line ends) or `wb`.

    Raises:
        UserError: `path` is a folder or a device: as root, a new file could take the place of /dev/null.
        RunError: no space is left.
    """
    assert mode in ("w", "wb"), mode
    path = _replaceable(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        with space_checked(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            # `x` and not mkstemp: the file gets the user's umask, so colleagues on a shared machine can read it.
            with temporary.open(mode.replace("w", "x"), **text) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _replaceable(path: str | Path) -> Path:
    # The complete file takes the place of the old one. Of a link that is the file behind it: /dev/stdout must stay one.
    path = Path(path).resolve()
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: not a regular file", "choose another name")
    return path


def open_locked(path: Path, mode: str, busy: UserError, **options: Any) -> IO[Any]:
    """Open a file that no other process has open in this way, until it is closed.

    Args:
        path: the file.
        mode, options: as of `open`.
        busy: is raised where another process has it.
    """
    while True:
        file = path.open(mode, **options)
        try:
            _lock(file, busy)
            # The holder before may have removed the file after it was opened here. The lock of a removed file keeps
            # nobody out, for the next process makes a new one.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                    return file
        except BaseException:
            file.close()
            raise
        file.close()


def _lock(file: IO[Any], busy: UserError) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None
    except OSError as error:
        # Some network file systems have no locks; there the user has to keep two runs apart.
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EINVAL):
            raise


@contextmanager
def space_checked(path: str | Path) -> Iterator[None]:
    """Turn "no space left" (or an exhausted quota) inside the block into a RunError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            raise RunError(f"no space left writing {path}") from error
        raise


def sync_folder(folder: str | Path) -> None:
    """Make renames inside a folder durable; without it a power cut may undo them."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot sync a folder; the rename itself holds there.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


def write_json(path: str | Path, obj: Any) -> None:
    """Write JSON for people: UTF-8 as it is, two spaces, keys in the given order, atomically."""
    with atomic_write(path) as file:
        json.dump(obj, file, ensure_ascii=False, indent=2)
        file.write("\n")


def sha256_file(path: str | Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def json_line(value: Any) -> str:
    """One line of JSON Lines, readable text where it can be written as UTF-8."""
    return json_bytes(value).decode()


def json_bytes(value: Any) -> bytes:
    """`json_line` in UTF-8."""
    try:
        return f"{_READABLE.encode(value)}\n".encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which a broken record may hold.
        return f"{json.dumps(value, ensure_ascii=True)}\n".encode()
