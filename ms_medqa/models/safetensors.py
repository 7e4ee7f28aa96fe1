"""Read safetensors files tensor by tensor through a memory map, bfloat16 included, and write them as a stream.

The library's NumPy front end has no bfloat16 and would copy a file whole, and its lower calls change between releases;
the format is a JSON header and raw bytes (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from ms_medqa.config.errors import UserError

_NUMPY = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}
_CODES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "bool": "BOOL"}
_MAX_HEADER = 100 * 1024 * 1024
# Numbers that are converted in one go: small enough to stay in a core's cache.
_BLOCK = 2**18
_HUGE_PAGE = 2 * 2**20
# So far the system reads ahead of what is converted. Page faults alone fetch so little at a time that the disk waits: a
# file of 1 GB took 1.34 s without this and 0.70 s with it, where plain reading takes 0.60 s (medians of 5).
_AHEAD = 64 * 2**20


class SafetensorsFile:
    """One file: `keys()`, `shape(key)`, `read(key)`.

    Raises:
        UserError: the file is missing, cut off or not safetensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if size < 8 or length > min(size, _MAX_HEADER):
                    raise UserError(f"{path}: not a safetensors file, or cut off", "copy it again")
                header: dict[str, Any] = json.loads(file.read(length))
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path}: not a safetensors file (broken header)", "copy it again") from None
        try:
            self.metadata: dict[str, str] = header.pop("__metadata__", {})
            end = max((_check_entry(item) for item in header.values()), default=0)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise UserError(f"{path}: not a safetensors file (broken header)", "copy it again") from None
        self._header = header
        self._fetched = 0
        self._start = 8 + length
        if self._start + end > size:
            raise UserError(f"{path}: cut off, {self._start + end - size} bytes are missing", "copy it again")

    def keys(self) -> Iterator[str]:
        """Names of the tensors."""
        return iter(self._header)

    def shape(self, key: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self._header[key]["shape"])

    def dtype(self, key: str) -> str:
        """Type of a tensor as the file spells it, such as `BF16`."""
        return self._header[key]["dtype"]

    def read(self, key: str) -> np.ndarray:
        """A tensor: bfloat16 comes as float32, every other type as it is, without a copy."""
        flat = self._flat(key)
        if self.dtype(key) == "BF16":
            out = np.empty(flat.shape, np.float32)
            _convert(flat, out, bfloat16=True)
            flat = out
        return flat.reshape(self.shape(key))

    def read_into(self, key: str, out: np.ndarray, start: int = 0) -> None:
        """Fill a C-ordered float array with the tensor's rows from `start` on, converted to its type.

        The file's pages are given back on the way, so that at no time both the file and the model are in memory. Most
        of the time goes into fresh pages for the array, which the system hands out to each thread by itself: hence two.
        """
        pieces = list(self.pieces(key, out, start))
        if len(pieces) == 1:
            pieces[0]()
            return
        with reading_threads() as pool:
            for done in [pool.submit(piece) for piece in pieces]:
                done.result()

    def pieces(self, key: str, out: np.ndarray, start: int = 0) -> Iterator[Callable[[], None]]:
        """The work of `read_into`, in pieces that may run side by side."""
        width = math.prod(self.shape(key)[1:])
        source = self._flat(key)[start * width : start * width + out.size]
        target = out.reshape(-1)
        bfloat16 = self.dtype(key) == "BF16"
        itemsize = source.itemsize
        first = self.offset(key) + start * width * itemsize

        def fill(part: slice) -> None:
            begin, end = first + part.start * itemsize, first + part.stop * itemsize
            self._fetch_ahead(begin)
            _convert(source[part], target[part], bfloat16)
            self._drop(begin, end)

        # 4 MB or more: a thousand pages at once, so that giving them back costs nothing.
        step = 8 * _BLOCK
        for begin in range(0, source.size, step):
            yield partial(fill, slice(begin, min(begin + step, source.size)))

    def values_at(self, key: str, places: np.ndarray) -> np.ndarray:
        """float32: single values, by their place in the flattened tensor."""
        values = self._flat(key)[places]
        out = np.empty(values.shape, np.float32)
        _convert(values, out, self.dtype(key) == "BF16")
        return out

    def raw(self, key: str) -> memoryview:
        """The bytes of a tensor as they lie in the file."""
        begin = self.offset(key)
        return memoryview(self._map)[begin : begin + self._size(key)]

    def release(self, key: str) -> None:
        """Give the pages of a tensor back to the system."""
        begin = self.offset(key)
        self._drop(begin, begin + self._size(key))

    def _flat(self, key: str) -> np.ndarray:
        code = self.dtype(key)
        if code not in _NUMPY:
            raise UserError(f"{self.path}: tensor {key} has type {code}", f"supported: {', '.join(_NUMPY)}")
        count = math.prod(self.shape(key))
        return np.frombuffer(self._map, _NUMPY[code], count, self.offset(key))

    def offset(self, key: str) -> int:
        """Where the bytes of a tensor begin in the file."""
        return self._start + self._header[key]["data_offsets"][0]

    def _size(self, key: str) -> int:
        start, end = self._header[key]["data_offsets"]
        return end - start

    def _fetch_ahead(self, begin: int) -> None:
        """Start reading what follows a place, unless that is under way.

        Two threads may both find that it is not, and ask twice, which does no harm.
        """
        if not hasattr(self._map, "madvise"):
            return
        wanted = min(begin + _AHEAD, len(self._map))
        fetched = self._fetched if begin <= self._fetched <= wanted else begin
        # Not for each small tensor anew.
        if wanted - fetched >= _AHEAD // 8 or (fetched == begin and wanted > begin):
            self._fetched = wanted
            start = fetched // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_WILLNEED, start, wanted - start)

    def _drop(self, begin: int, end: int) -> None:
        # With a page that is read the system may map its neighbours up to a huge page; whoever needs them reads on.
        begin, end = begin // _HUGE_PAGE * _HUGE_PAGE, min(-(-end // _HUGE_PAGE) * _HUGE_PAGE, len(self._map))
        if end > begin and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED, begin, end - begin)


def reading_threads() -> ThreadPoolExecutor:
    """Threads that run `SafetensorsFile.pieces`."""
    return ThreadPoolExecutor(min(2, os.cpu_count() or 1))


def _convert(source: np.ndarray, out: np.ndarray, bfloat16: bool) -> None:
    if source.dtype == np.float16 and out.dtype == np.float32:
        # Looking each number up is three times as fast as NumPy's conversion.
        table = _half_numbers()
        # Places take eight bytes each.
        for begin in range(0, source.size, _BLOCK // 8):
            part = slice(begin, begin + _BLOCK // 8)
            table.take(source[part].view(np.uint16), out=out[part], mode="wrap")
    elif not bfloat16:
        np.copyto(out, source, casting="unsafe")
    elif out.dtype == np.float32:
        # A bfloat16 is the upper half of a float32.
        np.left_shift(source, 16, out=out.view(np.uint32), dtype=np.uint32)
    else:
        for begin in range(0, source.size, _BLOCK):
            part = slice(begin, begin + _BLOCK)
            np.copyto(out[part], (source[part].astype(np.uint32) << 16).view(np.float32), casting="unsafe")


@lru_cache(maxsize=1)
def _half_numbers() -> np.ndarray:
    """float32 (65536,): what each float16 means, by its bits."""
    return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


def _check_entry(item: Mapping[str, Any]) -> int:
    """Where a tensor's bytes end; ValueError and the like where its entry contradicts itself."""
    start, end = item["data_offsets"]
    count = math.prod(int(width) for width in item["shape"])
    known = _NUMPY.get(item["dtype"])
    if not 0 <= start <= end or (known is not None and end - start != count * np.dtype(known).itemsize):
        raise ValueError(item)
    return end


def encode(array: np.ndarray, dtype: str) -> np.ndarray:
    """Numbers as a file stores them.

    Args:
        array: float16 or float32.
        dtype: `float32`, `float16` or `bfloat16` (rounded to nearest, ties to even).
    """
    if dtype != "bfloat16":
        return np.ascontiguousarray(array, _NUMPY[_CODES[dtype]])
    array = np.ascontiguousarray(array, np.float32)
    out = np.empty(array.shape, "<u2")
    source, target = array.reshape(-1), out.reshape(-1)
    for begin in range(0, source.size, _BLOCK):
        part = slice(begin, begin + _BLOCK)
        bits = source[part].view(np.uint32)
        rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
        # Rounding would carry some NaNs over into infinity or zero.
        target[part] = np.where(np.isnan(source[part]), np.uint16(0x7FC0), rounded)
    return out


def write_safetensors(
    file: IO[bytes], shapes: Mapping[str, tuple[str, tuple[int, ...]]], tensors: Iterable[tuple[str, Any]]
) -> None:
    """Write a file tensor by tensor: none but the current one is held.

    Args:
        file: open for binary writing.
        shapes: (name of the type, shape) of each tensor.
        tensors: (name, its bytes or its `encode`d array), in the order of `shapes`.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in shapes.items():
        code = _CODES[dtype]
        start, end = end, end + math.prod(shape) * np.dtype(_NUMPY[code]).itemsize
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    # Readers map the file: the numbers must start at a multiple of eight.
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for (name, data), expected in zip(tensors, shapes, strict=True):
        assert name == expected, (name, expected)
        file.write(data if isinstance(data, memoryview) else np.ascontiguousarray(data).data)
