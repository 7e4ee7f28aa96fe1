"""MindRecord files made without MindSpore, byte for byte as its `FileWriter` makes them of all rows in one call.

`FileWriter` takes 48 us a row of 100 tokens, reading back 33 us, and each process that does it has to import MindSpore
first. `tests/data/test_mindrecord_file.py` compares both writers, with the MindSpore that is installed. The format
(version 3.0) is that of MindSpore's `mindrecord/io/shard_writer.cc` and `mindrecord/io/shard_index_generator.cc`: a
header, then pages, and beside it SQLite with the place of each row. Blob pages come first; the rows of one are a row
group. Raw pages hold what is neither array nor bytes, and no row group is on two of them.
"""

from __future__ import annotations

import itertools
import json
import operator
import os
import sqlite3
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ms_medqa.data.mindrecord_columns import BLOB_COLUMNS, SCHEMA, blobs_of, raw_of
from ms_medqa.data.records import TokenRecords, ends_of

DESCRIPTION = "ms_medqa tokenised records"
# Rows that are put into the index at a time.
_BATCH = 1024
_TABLES = (
    # Word for word as `FileWriter` has it.
    "CREATE TABLE INDEXES("
    "  ROW_ID               INT  NOT NULL, PAGE_ID_RAW          INT  NOT NULL"
    ", PAGE_OFFSET_RAW      INT  NOT NULL, PAGE_OFFSET_RAW_END  INT  NOT NULL"
    ", ROW_GROUP_ID         INT  NOT NULL, PAGE_ID_BLOB         INT  NOT NULL"
    ", PAGE_OFFSET_BLOB     INT  NOT NULL, PAGE_OFFSET_BLOB_END INT  NOT NULL"
    ",INC_0 INT, id_0 TEXT, PRIMARY KEY(ROW_ID,INC_0))",
    "CREATE TABLE SHARD_NAME(NAME TEXT NOT NULL)",
)


class MindRecordFile:
    """One data file and its index, written from the first to the last row.

    Args:
        path: of the data file; neither it nor `<path>.db` may exist.
        header_size, page_size: bytes, as `FileWriter.set_header_size` and `set_page_size` take them.
    """

    def __init__(self, path: Path, header_size: int, page_size: int) -> None:
        self.path = path
        self.index = path.with_name(path.name + ".db")
        self._header_size = header_size
        self._page_size = page_size
        # What the header says of each page, and the CRC-32 of what is on it.
        self._pages: list[dict[str, Any]] = []
        self._checksums: list[int] = []
        self._header = b""
        self._ids: list[str] = []
        # int64 (n, 8): the first columns of the index.
        self._places = np.zeros((0, 8), np.int64)

    def __len__(self) -> int:
        return len(self._ids)

    def write(self, batches: Iterable[TokenRecords], count: Callable[[int], object] = lambda _: None) -> None:
        """Write rows; none may be empty, or larger than a page.

        Args:
            batches: of rows, a few megabytes each: their tokens take ten times as much meanwhile.
            count: is told the rows of each batch when it is written.

        Raises:
            OSError, sqlite3.Error: they cannot be written.
        """
        with self.path.open("xb") as file:
            blobs, raws, saved = self._write_blobs(file, batches, count)
            self._write_raws(file, blobs, raws)
            header = json.dumps(self._describe(saved), separators=(",", ":"), ensure_ascii=False).encode()
            self._header = struct.pack("<Q", len(header)) + header
            assert len(self._header) <= self._header_size, "the header cannot list so many pages"
            file.seek(0)
            file.write(self._header)
            file.flush()
            os.fsync(file.fileno())
        with closing(sqlite3.connect(self.index, isolation_level=None)) as index:
            # An index that is not whole is never used, so that a journal would be work for nothing.
            index.execute("PRAGMA journal_mode = OFF")
            index.execute("BEGIN")
            for table in _TABLES:
                index.execute(table)
            index.execute("INSERT INTO SHARD_NAME VALUES (?)", (self.path.name,))
            index.executemany("INSERT INTO INDEXES VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", self._entries())
            index.execute("COMMIT")

    def is_intact(self) -> bool:
        """Whether the header, each page and each entry of the index is read as it was meant.

        Raises:
            OSError, sqlite3.Error: they cannot be read.
        """
        with self.path.open("rb") as file:
            if file.read(len(self._header)) != self._header:
                return False
            for page, checksum in zip(self._pages, self._checksums, strict=True):
                file.seek(self._place_of(page["page_id"]))
                content = file.read(page["page_size"])
                if len(content) != page["page_size"] or zlib.crc32(content) != checksum:
                    return False
        with closing(sqlite3.connect(self.index)) as index:
            found = index.execute("SELECT * FROM INDEXES ORDER BY ROW_ID")
            return all(itertools.starmap(operator.eq, itertools.zip_longest(found, self._entries())))

    def _write_blobs(
        self, file: BinaryIO, batches: Iterable[TokenRecords], count: Callable[[int], object]
    ) -> tuple[list[int], list[bytes], int]:
        """All blob pages; returns the bytes of each row there, the raw rows, and the bytes that integers were saved."""
        blobs: list[int] = []
        raws: list[bytes] = []
        group: list[bytes] = []
        saved = blob_bytes = raw_bytes = 0
        for records in batches:
            made, saved_here = blobs_of(records)
            saved += saved_here
            self._ids += records.ids
            for blob, raw in zip(made, map(raw_of, records.ids), strict=True):
                blob_bytes += len(blob)
                raw_bytes += len(raw)
                if group and max(blob_bytes, raw_bytes) > self._page_size:
                    self._write_blob_page(file, group)
                    group, blob_bytes, raw_bytes = [], len(blob), len(raw)
                group.append(blob)
                blobs.append(len(blob))
                raws.append(raw)
            count(len(records))
        self._write_blob_page(file, group)
        return blobs, raws, saved

    def _write_blob_page(self, file: BinaryIO, group: list[bytes]) -> None:
        number = len(self._pages)
        start = self._pages[-1]["end_row_id"] if self._pages else 0
        self._write_page(file, group, "BLOB_DATA", number, [(0, 0)], (start, start + len(group)))

    def _write_raws(self, file: BinaryIO, blobs: list[int], raws: list[bytes]) -> None:
        """All raw pages, of whole row groups each; and the places of all rows."""
        # Rows before each group and behind the last, and groups before each raw page and behind the last.
        groups = np.array([0, *(page["end_row_id"] for page in self._pages)])
        blob_ends = ends_of(np.array(blobs, np.int64))
        raw_ends = ends_of(np.fromiter(map(len, raws), np.int64, len(raws)))
        first = len(self._pages)
        pages = [0]
        for group in range(1, first):
            if raw_ends[groups[group + 1]] - raw_ends[groups[pages[-1]]] > self._page_size:
                pages.append(group)
        pages.append(first)
        for here, behind in itertools.pairwise(pages):
            start, end = groups[here], groups[behind]
            offsets = (raw_ends[groups[here:behind]] - raw_ends[start]).tolist()
            # `FileWriter` counts so: the first is 0, and any other follows the number of the page before it.
            kind_number = len(self._pages) if here else 0
            listed = list(zip(range(here, behind), offsets, strict=True))
            self._write_page(file, raws[start:end], "RAW_DATA", kind_number, listed, (0, 0))
        group_of = np.repeat(np.arange(first), np.diff(groups))
        page_of = (np.searchsorted(pages, np.arange(first), "right") - 1)[group_of]
        blobs_before, raws_before = blob_ends[groups][group_of], raw_ends[groups[pages]][page_of]
        self._places = np.stack(
            [
                np.arange(len(raws)),
                first + page_of,
                raw_ends[:-1] - raws_before,
                raw_ends[1:] - raws_before,
                group_of,
                group_of,
                blob_ends[:-1] - blobs_before,
                blob_ends[1:] - blobs_before,
            ],
            axis=1,
        )

    def _write_page(
        self,
        file: BinaryIO,
        rows: list[bytes],
        kind: str,
        kind_number: int,
        groups: list[tuple[int, int]],
        span: tuple[int, int],
    ) -> None:
        """One page, right behind the last.

        Args:
            rows: its content.
            kind: `BLOB_DATA` or `RAW_DATA`.
            kind_number: what the format calls `page_type_id`.
            groups: (number, first byte) of each row group, as the header lists them.
            span: its first row and the one behind its last.
        """
        number = len(self._pages)
        content = b"".join(rows)
        file.seek(self._place_of(number))
        file.write(content)
        self._checksums.append(zlib.crc32(content))
        self._pages.append(
            {
                "end_row_id": span[1],
                "page_id": number,
                "page_size": len(content),
                "page_type": kind,
                "page_type_id": kind_number,
                "row_group_ids": [{"id": group, "offset": offset} for group, offset in groups],
                "shard_id": 0,
                "start_row_id": span[0],
            }
        )

    def _place_of(self, page: int) -> int:
        """Where in the file a page begins."""
        return self._header_size + page * self._page_size

    def _describe(self, saved: int) -> dict[str, Any]:
        return {
            "header_size": self._header_size,
            "index_fields": [{"index_field": "id", "schema_id": 0}],
            "page": self._pages,
            "page_size": self._page_size,
            "compression_size": max(0, saved),
            "schema": [{"blob_fields": list(BLOB_COLUMNS), "desc": DESCRIPTION, "schema": SCHEMA}],
            "shard_addresses": [self.path.name],
            "shard_id": 0,
            "statistics": None,
            "version": "3.0",
        }

    def _entries(self) -> Iterator[tuple[Any, ...]]:
        """The rows of the index."""
        for start in range(0, len(self), _BATCH):
            columns = self._places[start : start + _BATCH].T.tolist()
            yield from zip(*columns, itertools.repeat(0), self._ids[start : start + _BATCH])
