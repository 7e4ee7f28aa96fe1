"""Lines that are kept while something long is made, so that a run that is stopped loses none."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import json_bytes, open_locked, space_checked

# What reading an object of another kind may raise.
_STRANGE = (ValueError, KeyError, TypeError, OverflowError, RecursionError)


class KeptLines(AbstractContextManager["KeptLines"]):
    """A file with a line on what all others depend on, then JSON objects, one a line, as they come.

    A line that a killed run has left half written is dropped. Leaving the context keeps the file, unless it holds no
    object.

    Args:
        path: of the file.
        about: what the lines depend on.
        what: the file holds, for messages.

    Attributes:
        path: as given.
        left: objects that an earlier run has left.
        count: of all objects.

    Raises:
        UserError: the file is about something else, no such file at all, or another run writes it.
        RunError: no space is left.
    """

    def __init__(self, path: Path, about: Mapping[str, Any], what: str = "answers") -> None:
        self.path, self._what = path, what
        self.left: list[dict[str, Any]] = []
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: not a regular file, and {what} would be kept there", "name another output")
        busy = UserError(f"{path}: another run is writing there", "wait, or name another output")
        # Appending, so that a file of someone else is not emptied before it has been looked at.
        self._file = open_locked(path, "ab+", busy, buffering=0)
        try:
            self._begin(json_bytes(about))
        except BaseException:
            if not self._file.seek(0, os.SEEK_END):
                self.remove()
            self._file.close()
            raise
        self.count = len(self.left)

    def __exit__(self, *_: object) -> None:
        if not self.count and not self._file.closed:
            self.remove()
        self._file.close()

    def add_line(self, value: Mapping[str, Any]) -> None:
        """Keep one more object.

        Raises:
            RunError: no space is left; what was kept before is whole.
        """
        self._write(json_bytes(value))
        self.count += 1

    def strange(self) -> UserError:
        """For a file that holds nothing of use to this run."""
        return UserError(
            f"{self.path} holds {self._what} of another model, of other settings, to other questions, or something "
            "else",
            "repeat the command that began it, or remove it",
        )

    def remove(self) -> None:
        """Delete the file, once: what it was for is there."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        self._file.close()

    def checked(self, value: Any) -> dict[str, Any]:
        """An object of the file, if it is one of this run's kind.

        Raises:
            ValueError, KeyError, TypeError: it is not.
        """
        if not isinstance(value, dict):
            raise TypeError(value)
        return value

    def _begin(self, about: bytes) -> None:
        self._file.seek(0)
        lines = self._file.read().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        if not whole:
            # New, or killed within the first line.
            if not about.startswith(b"".join(lines)):
                raise self.strange()
            self._file.truncate(0)
            self._write(about)
            return
        if whole[0] != about:
            raise self.strange()
        for line in whole[1:]:
            try:
                self.left.append(self.checked(json.loads(line)))
            except _STRANGE:
                raise self.strange() from None
        self._file.truncate(sum(map(len, whole)))

    def _write(self, line: bytes) -> None:
        before = self._file.seek(0, os.SEEK_END)
        with space_checked(self.path):
            try:
                left = memoryview(line)
                while left:
                    left = left[self._file.write(left) :]
            except OSError:
                # A disk that is full may have taken a part.
                with suppress(OSError):
                    self._file.truncate(before)
                raise


def read_kept(path: Path, about: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of a file that another process keeps; none where it is about something else than `about`."""
    lines = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    if not lines or lines[0] != json_bytes(about):
        return []
    try:
        return [json.loads(line) for line in lines[1:]]
    except _STRANGE:
        raise UserError(f"{path}: damaged", "remove it; what it holds is then made again") from None
