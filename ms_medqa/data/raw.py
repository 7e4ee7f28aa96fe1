"""A record as it stands in a file, and the checks on that file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ms_medqa.config.errors import UserError

BOM = b"\xef\xbb\xbf"
BAD_ENCODING = "bad_encoding"
HALF_WRITTEN = "the file looks half-written, copy it again"


# Not a dataclass: made and sent to another process for each record, it takes half the time.
class RawRecord(NamedTuple):
    """One record, not yet understood.

    Attributes:
        line: line of the file on which it begins, from 1.
        number: what makes an id: the line where a record is a line, else its place in the file, from 1.
        value: column → value; its text where it could not be read.
        error: None, or (reason, detail) of a record that could not be read.
        position: bytes of the file read so far.
        key: its key, in a JSON object of records.
    """

    line: int
    number: int
    value: Any
    error: tuple[str, str] | None
    position: int
    key: str | None = None


class EmptyFileError(UserError):
    """A file with nothing in it."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: the file is empty")


def check_files(paths: Sequence[Path]) -> None:
    """Raise a UserError unless all are readable files with something in them; of several, some may be empty."""
    for path in paths:
        try:
            check_file(path)
        except EmptyFileError:
            if len(paths) == 1:
                raise


def check_file(path: Path) -> None:
    """Raise a UserError unless `path` is a readable file with something in it."""
    try:
        path.stat()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if path.is_dir():
        raise UserError(f"{path}: is a folder", f"name the files in it, such as {path}/*.json")
    if not path.is_file():
        raise UserError(f"{path}: not a regular file", "write its content to a file first")
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None
    if not head.removeprefix(BOM).strip() and path.stat().st_size == len(head):
        raise EmptyFileError(path)


def printable(path: str | Path) -> str:
    """A path as text that can be printed and written; bytes that are no UTF-8 become U+FFFD."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
