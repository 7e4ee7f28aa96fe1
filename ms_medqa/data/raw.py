"""A record as it stands in a file, and the checks on that file."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError

BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
NOT_UTF8 = "not UTF-8 text"
HALF_WRITTEN = "the file looks half-written, copy it again"


@dataclass(frozen=True, slots=True)
class RawRecord:
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
    if head.startswith(_UTF16_BOMS):
        raise wrong_encoding(path, 1, head)
    if not head.removeprefix(BOM).strip() and path.stat().st_size == len(head):
        raise UserError(f"{path}: the file is empty")


def printable(path: str | Path) -> str:
    """A path as text that can be printed and written; bytes that are no UTF-8 become U+FFFD."""
    return str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def wrong_encoding(path: Path, line: int, rest: bytes) -> UserError:
    """The error for a file that is not UTF-8, with the command that mends it.

    Args:
        path: the file.
        line: line of the first wrong byte.
        rest: the bytes from there.
    """
    if _is_cut_character(rest):
        return UserError(f"{path} line {line}: the file ends in the middle of a character", HALF_WRITTEN)
    name = "UTF-16" if rest.startswith(_UTF16_BOMS) and line == 1 else "ITS_ENCODING"
    if name != "UTF-16" and reads_as_gb18030(rest.split(b"\n", 1)[0]):
        name = "GB18030"
    return UserError(f"{path} line {line}: {NOT_UTF8}", recode(path, name))


def recode(path: str | Path, name: str) -> str:
    """The command that makes UTF-8 of a file in the encoding `name`."""
    return f"iconv -f {name} -t UTF-8 {path} > NEW_FILE"


def _is_cut_character(rest: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(rest)
    except UnicodeDecodeError:
        return False
    return True


def reads_as_gb18030(text: bytes) -> bool:
    """True when the bytes are possible in GB18030, the usual other encoding of Chinese text."""
    try:
        text.rstrip(b"\r\n").decode("gb18030")
    except UnicodeDecodeError:
        return False
    return True
