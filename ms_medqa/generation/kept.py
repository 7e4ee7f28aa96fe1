"""Answers that are kept while a file of them is being made, so that a run that is stopped loses none."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict, deque
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from ms_medqa.config.errors import UserError
from ms_medqa.config.files import json_bytes, open_locked, space_checked
from ms_medqa.generation.prepared import Prepared


class KeptAnswers(AbstractContextManager["KeptAnswers"]):
    """`OUTPUT.part` beside the output: a line on what answers depend on, then one for each answer, as it is made.

    A line that a killed run has left half written is dropped. Leaving the context keeps the file, unless there is no
    answer in it.

    Args:
        output: the file that shall hold all answers.
        about: what they depend on beside their prompts.

    Attributes:
        path: of the file.
        found: answers that an earlier run has left.

    Raises:
        UserError: the file is of another model or other settings, no such file at all, or another run writes it.
        RunError: no space is left.
    """

    def __init__(self, output: Path, about: Mapping[str, Any]) -> None:
        self.path = output.with_name(f"{output.name}.part")
        self._answers: dict[str, deque[list[str]]] = defaultdict(deque)
        self._count = 0
        if self.path.exists() and not self.path.is_file():
            raise UserError(f"{self.path}: not a regular file, and answers would be kept there", "name another output")
        busy = UserError(f"{self.path}: another run is writing there", "wait, or name another output")
        # Appending, so that a file of someone else is not emptied before it has been looked at.
        self._file = open_locked(self.path, "ab+", busy, buffering=0)
        try:
            self._begin(json_bytes(about))
        except BaseException:
            if not self._file.seek(0, os.SEEK_END):
                self.remove()
            self._file.close()
            raise
        self.found = self._count

    def __exit__(self, *_: object) -> None:
        if not self._count and not self._file.closed:
            self.remove()
        self._file.close()

    def __len__(self) -> int:
        return self._count

    def take(self, prepared: Prepared) -> list[str] | None:
        """The answers to a question that an earlier run has left, for one of its equals each."""
        found = self._answers.get(_digest(prepared))
        return found.popleft() if found else None

    def add(self, prepared: Prepared, answers: list[str]) -> None:
        """Keep the answers to a question.

        Raises:
            RunError: no space is left; what was kept before is whole.
        """
        self._write(json_bytes({"prompt": _digest(prepared), "answers": answers}))
        self._count += 1

    def strange(self) -> UserError:
        """For a file that holds nothing of use to this run."""
        return UserError(
            f"{self.path} holds answers of another model, of other settings, to other questions, or something else",
            "repeat the command that began it, or remove it",
        )

    def remove(self) -> None:
        """Delete the file, once: the output holds it all."""
        with suppress(FileNotFoundError):
            self.path.unlink()
        self._file.close()

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
            self._remember(line)
        self._file.truncate(sum(map(len, whole)))

    def _remember(self, line: bytes) -> None:
        try:
            value = json.loads(line)
            digest, answers = value["prompt"], value["answers"]
            if not all(isinstance(text, str) for text in (digest, *answers)):
                raise ValueError
        except (ValueError, KeyError, TypeError):
            raise self.strange() from None
        self._answers[digest].append(answers)
        self._count += 1

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


def _digest(prepared: Prepared) -> str:
    """Of the tokens, of who answers, and of what ends the answer and makes text of it."""
    variant = prepared.variant
    about = [variant.adapter, sorted(variant.end_ids), variant.tokenizer.fingerprint, prepared.prompt]
    return hashlib.sha256(json_bytes(about)).hexdigest()
