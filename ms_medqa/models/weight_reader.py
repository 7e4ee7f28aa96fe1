"""Fill arrays with tensors of safetensors files, about as fast as the disk gives them."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from io import FileIO
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.models.safetensors import SafetensorsFile

# Bytes that are read in one go, and how many such pieces may wait for a thread that converts them.
_PIECE = 4 * 2**20
_WAITING = 6


class WeightReader:
    """`fill` arrays, then `wait` for them. The calling thread reads, two others convert.

    One thread reads each file from front to back, so the system reads ahead of it, and the pages that take it are used
    over and over. A memory map that two threads read had neither, and the disk waited while they converted. Fresh pages
    for the arrays are what remains, and the system hands them out to each thread by itself: hence two.
    """

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(min(2, os.cpu_count() or 1))
        self._free: SimpleQueue[np.ndarray] = SimpleQueue()
        for _ in range(_WAITING):
            self._free.put(np.empty(_PIECE, np.uint8))
        self._running: list[Future[None]] = []
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
        """Begin to fill a C-ordered float array with a tensor's rows from `start` on, converted to its type.

        Raises:
            UserError: the file cannot be read.
        """
        stored, target = file.numpy_type(key), out.reshape(-1)
        begin, step = file.offset(key, start), _PIECE // stored.itemsize
        for at in range(0, target.size, step):
            part = target[at : at + step]
            buffer = self._free.get()
            source = buffer[: part.size * stored.itemsize]
            self._read(file.path, begin + at * stored.itemsize, source)
            self._running.append(self._threads.submit(self._convert, file, key, buffer, source.view(stored), part))

    def wait(self) -> None:
        """Return when all arrays are filled.

        Raises:
            UserError: a number became infinite in the array's type.
        """
        for task in self._running:
            task.result()
        self._running.clear()

    def _read(self, path: Path, begin: int, out: np.ndarray) -> None:
        try:
            if self._file is None or self._file.name != path:
                if self._file is not None:
                    self._file.close()
                self._file = FileIO(path)
            self._file.seek(begin)
            left = memoryview(out)
            while left:
                count = self._file.readinto(left)
                if not count:
                    raise UserError(f"{path}: became shorter while it was read", "copy it again")
                left = left[count:]
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None

    def _convert(
        self, file: SafetensorsFile, key: str, buffer: np.ndarray, source: np.ndarray, out: np.ndarray
    ) -> None:
        try:
            file.convert(key, source, out)
        finally:
            self._free.put(buffer)
