"""Kept records on disk while a conversion goes on: what stays in memory is a few numbers a record."""

from __future__ import annotations

import itertools
import mmap
import shutil
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from ms_medqa.data.records import TokenRecords, ends_of, spans

_NAMES = ("lines", "ids", "tokens", "masks")
_SIGNATURES = ("questions", "texts")
_ENDS = ".ends"
# Records after which what was read of the files is given back: they count as memory of this process as long as they
# are mapped, and of a million records they are 2 GB.
_FORGOTTEN = 1 << 13
# Signatures of 256 bytes that are copied before what was read of them is given back: 16 MB.
_COPIED = 1 << 16


class Spool:
    """Takes records one after the other; `close` makes them readable in any order.

    Args:
        folder: made for its files, and removed at the end of the block.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()
        self._ends = {name: array("q", [0]) for name in _NAMES}
        self._width = 1

    def __enter__(self) -> Spool:
        self._folder.mkdir()
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._files = {name: self._stack.enter_context(self._path(name).open("wb")) for name in _NAMES}
        self._signatures = [self._stack.enter_context(self._path(name).open("wb")) for name in _SIGNATURES]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()

    @property
    def lengths(self) -> Iterator[int]:
        """Tokens of each record so far."""
        ends = self._ends["masks"]
        return (after - before for before, after in itertools.pairwise(ends))

    def __len__(self) -> int:
        return len(self._ends["ids"]) - 1

    def add(self, name: str, line: str, input_ids: np.ndarray, loss_mask: np.ndarray) -> None:
        """Append a record.

        Args:
            name: its id.
            line: its line of JSON, with the line's end.
            input_ids: int32 (n,).
            loss_mask: uint8 (n,).
        """
        offsets = np.array([0, len(input_ids)])
        self.add_batch(TokenRecords([name], input_ids, loss_mask, offsets), [line.encode()])

    def add_batch(self, records: TokenRecords, lines: Sequence[bytes], signatures: np.ndarray | None = None) -> None:
        """Append n records.

        Args:
            records: their ids, tokens and masks.
            lines: their lines of JSON, with the lines' ends.
            signatures: uint32 (n, 2 or 1, num_perm), as `judge.Judged` has them; None where nothing is compared.
        """
        ids = [name.encode() for name in records.ids]
        sizes = (list(map(len, lines)), list(map(len, ids)), 4 * records.lengths, records.lengths)
        contents = (b"".join(lines), b"".join(ids), records.tokens.tobytes(), records.loss_mask.tobytes())
        for key, content, size in zip(_NAMES, contents, sizes, strict=True):
            self._files[key].write(content)
            ends = self._ends[key]
            ends.frombytes((ends[-1] + np.cumsum(size, dtype=np.int64)).tobytes())
        if signatures is not None:
            self._width = signatures.shape[2]
            for column, file in zip(range(signatures.shape[1]), self._signatures, strict=False):
                file.write(signatures[:, column].tobytes())

    def close(self) -> Spooled:
        """Everything that was added; readable until the block ends."""
        for file in (*self._files.values(), *self._signatures):
            file.flush()
        for name, ends in self._ends.items():
            self._path(name + _ENDS).write_bytes(ends)
        return _map_spool(self._folder, self._width, self._ends)

    def _path(self, name: str) -> Path:
        return self._folder / name


@dataclass(frozen=True)
class Spooled:
    """Records on disk, by their number. To another process only the folder's name travels.

    Attributes:
        folder: of the spool.
        questions, texts: uint32 (n, num_perm), MinHash signatures of the first questions and of whole records; empty
            where none were given.
    """

    folder: Path
    contents: dict[str, np.ndarray]
    ends: dict[str, np.ndarray]
    questions: np.ndarray
    texts: np.ndarray
    maps: tuple[mmap.mmap | bytes, ...]

    def __len__(self) -> int:
        return len(self.ends["ids"]) - 1

    def __reduce__(self) -> tuple[Any, ...]:
        return _map_spool, (self.folder, self.questions.shape[1])

    def line(self, index: int) -> bytes:
        """Its line of JSON, with the line's end."""
        return self._bytes("lines", index).tobytes()

    def id(self, index: int) -> str:
        """Its id."""
        return self._bytes("ids", index).tobytes().decode()

    def records(self, indices: np.ndarray) -> TokenRecords:
        """Some of them, in the given order, in memory."""
        tokens, offsets = self._gathered("tokens", np.int32, indices)
        masks, _ = self._gathered("masks", np.uint8, indices)
        return TokenRecords(self.ids(indices), tokens, masks, offsets)

    def ids(self, indices: np.ndarray) -> list[str]:
        """The ids of some of them, in the given order."""
        letters, ends = self._gathered("ids", np.uint8, indices)
        names = letters.tobytes()
        return [names[start:end].decode() for start, end in itertools.pairwise(ends.tolist())]

    def tokens(self, index: int) -> np.ndarray:
        """int32 (n,): its tokens."""
        return self._bytes("tokens", index).view(np.int32)

    def mask(self, index: int) -> np.ndarray:
        """uint8 (n,): its loss mask."""
        return self._bytes("masks", index)

    @property
    def lengths(self) -> np.ndarray:
        """int64 (records,): tokens of each."""
        return np.diff(self.ends["masks"])

    def part(self, indices: Sequence[int] | np.ndarray) -> SpooledPart:
        """Some of them, in the given order."""
        return SpooledPart(self, np.asarray(indices, np.int64))

    def questions_of(self, indices: np.ndarray) -> np.ndarray:
        """`questions` of some: a copy, where it is not all of them, with little of the file in memory beside it."""
        if len(indices) == len(self):
            return self.questions
        found = np.empty((len(indices), self.questions.shape[1]), np.uint32)
        for start in range(0, len(indices), _COPIED):
            chosen = slice(start, start + _COPIED)
            np.take(self.questions, indices[chosen], axis=0, out=found[chosen])
            self.forget()
        return found

    def forget(self) -> None:
        """Give back the memory of what was read; whoever needs it again reads it again."""
        for content in self.maps:
            if isinstance(content, mmap.mmap) and hasattr(content, "madvise"):
                content.madvise(mmap.MADV_DONTNEED)

    def _gathered(self, name: str, kind: type[np.generic], indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(total,) contents of some records, and int64 (n + 1,) where those of each begin and the last end."""
        size = np.dtype(kind).itemsize
        starts, ends = (self.ends[name][indices + step] // size for step in (0, 1))
        offsets = ends_of(ends - starts)
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
        return np.take(self.contents[name].view(kind), places), offsets

    def _bytes(self, name: str, index: int) -> np.ndarray:
        ends = self.ends[name]
        return self.contents[name][ends[index] : ends[index + 1]]


@dataclass(frozen=True)
class SpooledPart:
    """Some of the records, as `mindrecord.write_records` takes them."""

    spooled: Spooled
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,): tokens of each."""
        return self.spooled.lengths[self.indices]

    @property
    def id_bytes(self) -> np.ndarray:
        """int64 (n,): bytes of each id."""
        return np.diff(self.spooled.ends["ids"])[self.indices]

    def lines(self) -> Iterator[bytes]:
        """Their lines of JSON."""
        for count, index in enumerate(self.indices.tolist(), start=1):
            yield self.spooled.line(index)
            if count % _FORGOTTEN == 0:
                self.spooled.forget()
        self.spooled.forget()

    def text(self) -> Iterator[np.ndarray]:
        """Their lines of JSON as bytes, those that stand together in one piece."""
        ends, content = self.spooled.ends["lines"], self.spooled.contents["lines"]
        for first in range(0, len(self), _FORGOTTEN):
            indices = self.indices[first : first + _FORGOTTEN]
            breaks = np.flatnonzero(np.diff(indices) != 1)
            starts, lasts = indices[np.append(0, breaks + 1)], indices[np.append(breaks, len(indices) - 1)]
            for start, stop in zip(ends[starts].tolist(), ends[lasts + 1].tolist(), strict=True):
                yield content[start:stop]
            self.spooled.forget()

    def batches(self) -> Iterator[TokenRecords]:
        """All of them, some at a time."""
        # Not one by one: with a copy of each, and what gathers them again, it takes four times as long.
        for start, stop in spans(self.lengths):
            yield self.spooled.records(self.indices[start:stop])
            self.spooled.forget()

    def slice(self, start: int, stop: int) -> SpooledPart:
        """Those from `start` to `stop`."""
        return SpooledPart(self.spooled, self.indices[start:stop])


@dataclass(frozen=True)
class Joined:
    """Parts of several spools, one after the other, as `mindrecord.write_records` takes them."""

    parts: tuple[SpooledPart, ...]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,): tokens of each."""
        return np.concatenate([part.lengths for part in self.parts])

    @property
    def id_bytes(self) -> np.ndarray:
        """int64 (n,): bytes of each id."""
        return np.concatenate([part.id_bytes for part in self.parts])

    def text(self) -> Iterator[np.ndarray]:
        """Their lines of JSON as bytes, many in one piece."""
        return itertools.chain.from_iterable(part.text() for part in self.parts)

    def batches(self) -> Iterator[TokenRecords]:
        """All of them, some at a time."""
        return itertools.chain.from_iterable(part.batches() for part in self.parts)

    def slice(self, start: int, stop: int) -> Joined:
        """Those from `start` to `stop`."""
        pieces, before = [], 0
        for part in self.parts:
            pieces.append(part.slice(max(0, start - before), max(0, stop - before)))
            before += len(part)
        return Joined(tuple(pieces))


def _map_spool(folder: Path, width: int, ends: Mapping[str, array[int]] | None = None) -> Spooled:
    """The records in a spool's folder; `ends` where they are in memory already."""
    maps = {name: _map_file(folder / name) for name in (*_NAMES, *_SIGNATURES)}
    contents = {name: np.frombuffer(maps[name], np.uint8) for name in _NAMES}
    places = ends or {name: _map_file(folder / (name + _ENDS)) for name in _NAMES}
    marks = (np.frombuffer(maps[name], np.uint32).reshape(-1, width) for name in _SIGNATURES)
    found = {name: np.frombuffer(places[name], np.int64) for name in _NAMES}
    return Spooled(folder, contents, found, *marks, tuple(maps.values()))


def _map_file(path: Path) -> mmap.mmap | bytes:
    """A file's bytes, read when they are asked for; an empty one cannot be mapped."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
