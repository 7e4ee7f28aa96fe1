"""The bytes of a file, unpacked where it is gzipped, with the place on disk that was reached."""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path
from typing import IO

GZIP = b"\x1f\x8b"
_BLOCK = 1 << 18
# zlib: a gzip header and checksum around the data, the window size taken from it.
_GZIP_WINDOW = 16 + zlib.MAX_WBITS


class ByteStream:
    """Reads a file from its start. A damaged gzip file gives what is whole of it and tells its `fault`.

    Attributes:
        gzipped: found from the first bytes, not from the name.
        position: bytes of the file on disk read so far.
        fault: what is wrong with the gzip data, once that place was reached.
    """

    def __init__(self, path: Path) -> None:
        self.position = 0
        self.fault: str | None = None
        self._file = path.open("rb")
        self.gzipped = self._file.peek(2)[:2] == GZIP
        self._unpacker = zlib.decompressobj(_GZIP_WINDOW)
        self._packed = b""
        self._between_members = False

    def __enter__(self) -> ByteStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def read(self) -> bytes:
        """The next bytes, at most some hundred thousand; none at the end."""
        if not self.gzipped:
            return self._read_disk()
        while self.fault is None:
            if not self._packed:
                self._packed = self._read_disk()
            if not self._packed:
                self.fault = None if self._between_members else "the gzip data ends in the middle"
                return b""
            self._between_members = False
            try:
                data = self._unpacker.decompress(self._packed, _BLOCK)
            except zlib.error:
                self.fault = "the gzip data is damaged"
                return b""
            self._packed = self._unpacker.unconsumed_tail
            if self._unpacker.eof:
                self._begin_member()
            if data:
                return data
        return b""

    def _read_disk(self) -> bytes:
        data = self._file.read(_BLOCK)
        self.position += len(data)
        return data

    def _begin_member(self) -> None:
        """Several packed files in a row are one; zero bytes behind the last only fill it up."""
        self._packed = self._unpacker.unused_data.lstrip(b"\0")
        while len(self._packed) < len(GZIP) and (more := self._read_disk()):
            self._packed = (self._packed + more).lstrip(b"\0")
        if self._packed and not self._packed.startswith(GZIP):
            self.fault = "something follows the end of the gzip data"
        self._unpacker = zlib.decompressobj(_GZIP_WINDOW)
        self._between_members = True


def seekable(path: Path) -> IO[bytes]:
    """The file, opened for reading at any place; a gzipped one is unpacked into a temporary file first.

    Raises:
        EOFError: its gzip data is cut or damaged.
    """
    with ByteStream(path) as stream:
        if not stream.gzipped:
            return path.open("rb")
        unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
        while data := stream.read():
            unpacked.write(data)
        if stream.fault is not None:
            unpacked.close()
            raise EOFError(stream.fault)
    unpacked.seek(0)
    return unpacked
