"""Fill arrays with tensors of safetensors files, about as fast as the disk gives them."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from queue import Empty, LifoQueue
from types import TracebackType
from typing import NamedTuple

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.models.safetensors import SafetensorsFile

# Bytes of a block, how many of them are in memory at most, and how many are read in one go. More of them do not begin
# to be converted until the last has come.
_BLOCK = 4 * 2**20
_BLOCKS = 16
_TOGETHER = 4


class _Part(NamedTuple):
    """Numbers of a tensor in a block: they begin `at` bytes after it and become those of `out`."""

    file: SafetensorsFile
    key: str
    at: int
    out: np.ndarray


@dataclass
class _Block:
    """What is read in one go: neighbours in a file, `size` bytes from `begin` on."""

    path: Path
    begin: int
    size: int = 0
    parts: list[_Part] = field(default_factory=list)

    @property
    def end(self) -> int:
        return self.begin + self.size


class WeightReader:
    """`fill` arrays, then `wait` for them.

    For numbers that must be converted or cannot be mapped (`SafetensorsFile.map`). The calling thread reads, and two
    others convert.

    One thread reads each file from front to back, so the system reads ahead of it, and the pages that take it
    are used over and over. A memory map that two threads read had neither, and the disk waited while they converted.
    Fresh pages for the arrays are what remains, and the system hands them out to each thread by itself: hence two.

    Whatever Python does between two calls to the system is time in which the disk may wait, and longer than it looks:
    a thread that comes back from a call waits for the interpreter's lock, up to 5 ms where another one computes. So
    small tensors share a block, a call reads several blocks, and `start` reads as much as there is room for in one.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(min(2, os.cpu_count() or 1))
        # Those that were used last are the first to be used again: most are never touched unless all are needed.
        self._free: LifoQueue[np.ndarray] = LifoQueue()
        # One stretch of memory, which the system hands out in huge pages.
        for buffer in np.empty((_BLOCKS, _BLOCK), np.uint8):
            self._free.put(buffer)
        self._planned: deque[_Block] = deque()
        self._started: Future[list[tuple[_Block, np.ndarray]]] | None = None
        self._file: FileIO | None = None

    def __enter__(self) -> WeightReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)
        if self._file is not None:
            self._file.close()

    def fill(self, file: SafetensorsFile, key: str, out: np.ndarray, start: int = 0) -> None:
        """Have a C-ordered float array filled with a tensor's rows from `start` on, converted to its type.

        Nothing is read yet. Arrays whose numbers lie side by side in a file should come in that order.
        """
        stored, target = file.numpy_type(key), out.reshape(-1)
        width, begin, at = stored.itemsize, file.offset(key, start), 0
        while at < target.size:
            block = self._planned[-1] if self._planned else None
            if block is None or (block.path, block.end) != (file.path, begin) or block.size + width > _BLOCK:
                block = _Block(file.path, begin)
                self._planned.append(block)
            part = target[at : at + (_BLOCK - block.size) // width]
            block.parts.append(_Part(file, key, block.size, part))
            block.size += part.size * width
            at, begin = at + part.size, block.end

    def start(self) -> None:
        """Read the beginning while the caller does something else; no `fill` may follow before `wait`."""
        self._started = self._threads.submit(self._read, _BLOCKS)

    def wait(self) -> None:
        """Return when all arrays are filled.

        Raises:
            UserError: a file cannot be read, or a number became infinite in the array's type.
        """
        read = self._read(_TOGETHER) if self._started is None else self._started.result()
        self._started = None
        running: deque[Future[None]] = deque()
        while read:
            running += [self._threads.submit(self._convert, *one) for one in read]
            read = self._read(_TOGETHER)
            while running and running[0].done():
                running.popleft().result()
        for task in running:
            task.result()

    def _read(self, most: int) -> list[tuple[_Block, np.ndarray]]:
        """The next blocks and the buffers that hold them: at least one, if any is left, and no more than are free."""
        read: list[tuple[_Block, np.ndarray]] = []
        while self._planned and len(read) < most:
            block = self._planned[0]
            if read and (block.path, block.begin) != (read[-1][0].path, read[-1][0].end):
                break
            try:
                buffer = self._free.get(block=not read)
            except Empty:
                break
            read.append((self._planned.popleft(), buffer))
        if read:
            first = read[0][0]
            self._read_from(first.path, first.begin, [memoryview(buffer[: block.size]) for block, buffer in read])
        return read

    def _read_from(self, path: Path, begin: int, wanted: list[memoryview]) -> None:
        """Fill buffers, one after the other, with a file's bytes from `begin` on."""
        try:
            if self._file is None or self._file.name != path:
                if self._file is not None:
                    self._file.close()
                self._file = FileIO(path)
            _read_all(self._file, path, begin, wanted)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None

    def _convert(self, block: _Block, buffer: np.ndarray) -> None:
        try:
            for file, key, at, out in block.parts:
                stored = file.numpy_type(key)
                file.convert(key, buffer[at : at + out.size * stored.itemsize].view(stored), out)
        finally:
            self._free.put(buffer)


def _read_all(file: FileIO, path: Path, begin: int, wanted: list[memoryview]) -> None:
    """Fill all of `wanted`, which is empty then."""
    while wanted:
        count = os.preadv(file.fileno(), wanted, begin)
        if not count:
            raise UserError(f"{path}: became shorter while it was read", "copy it again")
        begin += count
        while wanted and count >= len(wanted[0]):
            count -= len(wanted.pop(0))
        if count:
            wanted[0] = wanted[0][count:]
