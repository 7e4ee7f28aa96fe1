"""Answers that are kept while a file of them is being made, so that a run that is stopped loses none."""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ms_medqa.config.files import json_bytes
from ms_medqa.config.kept_lines import KeptLines
from ms_medqa.generation.prepared import Prepared


class KeptAnswers(KeptLines):
    """`OUTPUT.part` beside the output, see `KeptLines`.

    Args:
        output: the file that shall hold all answers.
        about: what they depend on beside their prompts.

    Attributes:
        found: answers that an earlier run has left.
    """

    def __init__(self, output: Path, about: Mapping[str, Any]) -> None:
        super().__init__(output.with_name(f"{output.name}.part"), about)
        self.found = len(self.left)
        self._answers: dict[str, deque[list[str]]] = defaultdict(deque)
        for line in self.left:
            self._answers[line["prompt"]].append(line["answers"])

    def __len__(self) -> int:
        return self.count

    def take(self, prepared: Prepared) -> list[str] | None:
        """The answers to a question that an earlier run has left, for one of its equals each."""
        found = self._answers.get(_digest(prepared))
        return found.popleft() if found else None

    def add(self, prepared: Prepared, answers: list[str]) -> None:
        """Keep the answers to a question.

        Raises:
            RunError: no space is left; what was kept before is whole.
        """
        self.add_line({"prompt": _digest(prepared), "answers": answers})

    def checked(self, value: Any) -> dict[str, Any]:
        if not all(isinstance(text, str) for text in (value["prompt"], *value["answers"])):
            raise ValueError(value)
        return super().checked(value)


def _digest(prepared: Prepared) -> str:
    """Of the tokens, of who answers, and of what ends the answer and makes text of it."""
    variant = prepared.variant
    about = [variant.adapter, sorted(variant.end_ids), variant.tokenizer.fingerprint, prepared.prompt]
    return hashlib.sha256(json_bytes(about)).hexdigest()
