"""What a conversion remembers of each kept record: numbers, no text."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from ms_medqa.data.clean import Kept
from ms_medqa.data.example import Example
from ms_medqa.data.question_types import TYPES
from ms_medqa.data.split import FREE, KEY_BYTES, PARTS, question_digest, record_type


@dataclass
class Facts:
    """Columns with an entry for each kept record.

    Attributes:
        keys: 16 bytes each: records of one question have equal ones.
        contents: 8 bytes each, of all texts of the record.
        types: its question's type, as an index of `TYPES`.
        fixed: the part that the record names, as an index of `PARTS`, or `FREE`.
        files: the number of the file it was read from.
        lines: the line of that file on which it begins.
        question_tokens, answer_tokens: 0 for plain text.
        trained: tokens that are targets of the training.
        texts: 1 for plain text, 0 for a question.
    """

    keys: bytearray = field(default_factory=bytearray)
    contents: bytearray = field(default_factory=bytearray)
    types: array[int] = field(default_factory=lambda: array("b"))
    fixed: array[int] = field(default_factory=lambda: array("b"))
    files: array[int] = field(default_factory=lambda: array("i"))
    lines: array[int] = field(default_factory=lambda: array("q"))
    question_tokens: array[int] = field(default_factory=lambda: array("i"))
    answer_tokens: array[int] = field(default_factory=lambda: array("i"))
    trained: array[int] = field(default_factory=lambda: array("i"))
    texts: array[int] = field(default_factory=lambda: array("b"))

    def __len__(self) -> int:
        return len(self.types)

    @classmethod
    def of(
        cls, kept: Sequence[Kept], trained: np.ndarray, digests: Sequence[bytes], file: int, lines: Sequence[int]
    ) -> Facts:
        """What is remembered of n records.

        Args:
            kept: the records.
            trained: integer (n,), tokens of each that are targets of the training.
            digests: of their texts, as `clean.digest_of` makes them.
            file: the number of the file that they were read from.
            lines: the line of that file on which each begins.
        """
        records = [each.record for each in kept]
        return cls(
            keys=bytearray().join(map(question_digest, records)),
            contents=bytearray().join(digest[:8] for digest in digests),
            types=array("b", [TYPES.index(record_type(record)) for record in records]),
            fixed=array("b", [FREE if record.split is None else PARTS.index(record.split) for record in records]),
            files=array("i", [file]) * len(records),
            lines=array("q", lines),
            question_tokens=array("i", [each.question_tokens for each in kept]),
            answer_tokens=array("i", [each.answer_tokens for each in kept]),
            trained=array("i", trained.tolist()),
            texts=array("b", [not isinstance(record, Example) for record in records]),
        )

    def extend(self, other: Facts, chosen: Sequence[int]) -> None:
        """Remember some records of another table."""
        self.keys += other.digests()[chosen].tobytes()
        self.contents += other.content_digests()[chosen].tobytes()
        for field_ in fields(self):
            column, more = getattr(self, field_.name), getattr(other, field_.name)
            if isinstance(column, array):
                column.frombytes(np.frombuffer(more, more.typecode)[chosen].tobytes())

    def copy(self, other: Facts, index: int) -> None:
        """Remember a record once more that another table has at `index`."""
        self.keys += other.keys[KEY_BYTES * index : KEY_BYTES * (index + 1)]
        self.contents += other.contents[8 * index : 8 * (index + 1)]
        for field_ in fields(self):
            column = getattr(self, field_.name)
            if isinstance(column, array):
                column.append(getattr(other, field_.name)[index])

    def content_digests(self) -> np.ndarray:
        """uint64 (n,): equal for records of equal texts."""
        return np.frombuffer(self.contents, np.uint64)

    def digests(self) -> np.ndarray:
        """uint8 (n, 16): the keys."""
        return np.frombuffer(self.keys, np.uint8).reshape(-1, KEY_BYTES)
