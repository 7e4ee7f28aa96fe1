"""Read safetensors files tensor by tensor through a memory map, bfloat16 included.

The library's NumPy front end has no bfloat16 and would copy a file whole, and its lower calls change between releases;
the format is a JSON header and raw bytes (https://github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import resource
from collections.abc import Callable, Iterator
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np

from ms_medqa.config.errors import UserError
from ms_medqa.models.safetensors_header import MAX_HEADER, NUMPY_TYPES, parse_header

# Stored types that hold larger numbers than an array of this type.
_WIDER = {"float16": ("BF16", "F32", "F64"), "float32": ("F64",)}
# Numbers that are converted in one go: small enough to stay in a core's cache.
_BLOCK = 2**18
_HUGE_PAGE = 2 * 2**20
# So far the system reads ahead of what is converted: page faults alone fetch so little at a time that the disk waits.
_AHEAD = 64 * 2**20
# Each mapped file keeps one descriptor, and shells allow 256 or 1024 of them.
_MOST_OPEN_FILES = 2**16


class SafetensorsFile:
    """One file: `keys()`, `shape(key)`, `read(key)`.

    Raises:
        UserError: the file is missing, cut off or not safetensors.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._map, self._identity = _map_file(path, mmap.ACCESS_READ)
        except OSError as error:
            hint = "raise the limit with ulimit -n" if error.errno == errno.EMFILE else None
            raise UserError(f"{path}: {error.strerror}", hint) from None
        except ValueError:  # an empty file cannot be mapped
            raise UserError(f"{path}: not a safetensors file, or cut off", "copy it again") from None
        size, first = len(self._map), self._map[:8]
        length = int.from_bytes(first, "little")
        if size < 8 or length > min(size, MAX_HEADER):
            if all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in first):
                hint = "a Git LFS pointer or an error page, perhaps: download it again"
                raise UserError(f"{path}: not a safetensors file, it begins with {first!r}", hint)
            raise UserError(f"{path}: not a safetensors file, or cut off", "copy it again")
        try:
            self.metadata, self._header, end = parse_header(self._map[8 : 8 + length])
        except ValueError as fault:
            raise UserError(f"{path}: not a safetensors file (broken header{fault})", "copy it again") from None
        self._fetched = 0
        self._start = 8 + length
        if self._start + end > size:
            raise UserError(f"{path}: cut off, {self._start + end - size} bytes are missing", "copy it again")
        if self._start + end < size:
            rest = size - self._start - end
            raise UserError(f"{path}: broken, {rest} bytes follow the last tensor", "copy it again")

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

        The file's pages are given back on the way, so that at no time both the file and the array are in memory. For a
        whole model, `WeightReader` is faster.

        Raises:
            UserError: a number became infinite in the array's type.
        """
        begin, target = self.offset(key, start), out.reshape(-1)
        stored = self.numpy_type(key)
        # 4 MB or more: a thousand pages at once, so that giving them back costs nothing.
        step = 8 * _BLOCK
        for at in range(0, target.size, step):
            part, first = target[at : at + step], begin + at * stored.itemsize
            self._fetch_ahead(first)
            self.convert(key, np.frombuffer(self._map, stored, part.size, first), part)
            self._drop(first, first + part.size * stored.itemsize)

    def map(self, key: str, start: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray | None:
        """A tensor's rows from `start` on as an array over the file's own pages: nothing is read until it is used.

        The array may be written, and then takes memory; the file stays as it is. While it is in use the file may be
        replaced by another of its name, but must not be written or cut. None where the tensor is stored in another
        type, or between the places where numbers of its type may begin.
        """
        if not self.can_map(key, start, dtype) or self._private is None:
            return None
        return np.frombuffer(self._private, dtype, math.prod(shape), self.offset(key, start)).reshape(shape)

    def can_map(self, key: str, start: int, dtype: np.dtype) -> bool:
        """Whether a tensor's rows from `start` on are stored as an array of this type has them."""
        return self.numpy_type(key) == dtype and self.offset(key, start) % dtype.itemsize == 0

    def forget(self, key: str, start: int, shape: tuple[int, ...]) -> Callable[[], None]:
        """What gives back the pages of an array that `map` made, with all that was written into it; nobody may need it.

        It holds the array's pages, and not this file.
        """
        begin = self.offset(key, start)
        end = begin + math.prod(shape) * self.numpy_type(key).itemsize
        return partial(_drop_inside, self._private, begin, end)

    @cached_property
    def _private(self) -> mmap.mmap | None:
        try:
            private, identity = _map_file(self.path, mmap.ACCESS_COPY)
        except (OSError, ValueError):
            # No memory may be promised for so many pages, for example. It can still be read.
            return None
        if identity != self._identity:
            # Another file of the name, in which the tensors may lie elsewhere.
            return None
        if hasattr(private, "madvise"):
            # What is not in memory yet comes at the disk's pace, not page by page as it is used.
            private.madvise(mmap.MADV_WILLNEED)
        return private

    def convert(self, key: str, source: np.ndarray, out: np.ndarray) -> None:
        """Numbers of a tensor, as `numpy_type` reads them, in the type of an array of the same length.

        Raises:
            UserError: a number became infinite.
        """
        with np.errstate(over="ignore"):
            _convert(source, out, self.dtype(key) == "BF16")
        if self.dtype(key) in _WIDER.get(out.dtype.name, ()):
            self._check_range(key, source, out)

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

    def same_bytes(self, key: str, other: SafetensorsFile, other_key: str) -> bool:
        """Whether two tensors are stored in the same type and the same bytes."""
        if self.dtype(key) != other.dtype(other_key) or self.shape(key) != other.shape(other_key):
            return False
        one, two = (np.frombuffer(data, np.uint8) for data in (self.raw(key), other.raw(other_key)))
        same = True
        for begin in range(0, len(one), 8 * _BLOCK):
            self._fetch_ahead(self.offset(key) + begin)
            other._fetch_ahead(other.offset(other_key) + begin)
            if not (same := np.array_equal(one[begin : begin + 8 * _BLOCK], two[begin : begin + 8 * _BLOCK])):
                break
        self.release(key)
        other.release(other_key)
        return same

    def release(self, key: str) -> None:
        """Give the pages of a tensor back to the system."""
        begin = self.offset(key)
        self._drop(begin, begin + self._size(key))

    def _check_range(self, key: str, source: np.ndarray, out: np.ndarray) -> None:
        """Raise UserError where a number became infinite in the array's type."""
        # By its bits, which takes a tenth of the time: nothing is above the largest number.
        if out.dtype == np.float16 and (out.view(np.uint16) << 1).max(initial=0) < 0xF800:
            return
        over = np.isinf(out)
        values = source[over]
        values = (values.astype(np.uint32) << 16).view(np.float32) if self.dtype(key) == "BF16" else values
        values = np.abs(values[np.isfinite(values)])
        if values.size:
            text = f"{self.path}: {key} holds {values.max():.3g}, which {out.dtype} cannot hold"
            raise UserError(text, "load it as bfloat16 or float32" if out.dtype == np.float16 else None)

    def numpy_type(self, key: str) -> np.dtype:
        """How NumPy reads the numbers of a tensor; those of bfloat16 as whole numbers, by their bits.

        Raises:
            UserError: tensors of this type are not read.
        """
        code = self.dtype(key)
        if code not in NUMPY_TYPES:
            raise UserError(f"{self.path}: tensor {key} has type {code}", f"supported: {', '.join(NUMPY_TYPES)}")
        return np.dtype(NUMPY_TYPES[code])

    def offset(self, key: str, row: int = 0) -> int:
        """Where the bytes of a tensor, or of one of its rows, begin in the file."""
        start = self._start + self._header[key]["data_offsets"][0]
        return start + row * math.prod(self.shape(key)[1:]) * self.numpy_type(key).itemsize if row else start

    def _flat(self, key: str) -> np.ndarray:
        return np.frombuffer(self._map, self.numpy_type(key), math.prod(self.shape(key)), self.offset(key))

    def _size(self, key: str) -> int:
        start, end = self._header[key]["data_offsets"]
        return end - start

    def _fetch_ahead(self, begin: int) -> None:
        """Start reading what follows a place, unless that is under way."""
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
        # A bfloat16 is the upper half of a float32. Widening and shifting in one call, which NumPy does through a small
        # buffer, takes three times as long.
        bits = out.view(np.uint32)
        for begin in range(0, source.size, _BLOCK // 2):
            part = bits[begin : begin + _BLOCK // 2]
            np.copyto(part, source[begin : begin + _BLOCK // 2])
            np.left_shift(part, 16, out=part)
    else:
        for begin in range(0, source.size, _BLOCK):
            part = slice(begin, begin + _BLOCK)
            np.copyto(out[part], (source[part].astype(np.uint32) << 16).view(np.float32), casting="unsafe")


@lru_cache(maxsize=1)
def _half_numbers() -> np.ndarray:
    """float32 (65536,): what each float16 means, by its bits."""
    return np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)


def _drop_inside(pages: mmap.mmap, begin: int, end: int) -> None:
    """Give back the pages between two places, but for those that go beyond: there lie neighbours."""
    begin, end = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
    if end > begin and hasattr(pages, "madvise"):
        pages.madvise(mmap.MADV_DONTNEED, begin, end - begin)


def _map_file(path: Path, access: int) -> tuple[mmap.mmap, tuple[int, ...]]:
    """A file's bytes, and what tells it from another; the limit of open files is raised where they are too many."""
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            identity = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            return mmap.mmap(file.fileno(), 0, access=access), identity
    except OSError as error:
        if error.errno != errno.EMFILE or not _allow_more_files():
            raise
        return _map_file(path, access)


def _allow_more_files() -> bool:
    """Raise the limit of open files as far as the system lets this process; whether that gave any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):
        return False
    return True
