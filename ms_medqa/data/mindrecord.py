"""Write tokenised records to a MindRecord file, and read them back in the same order."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

import numpy as np

from ms_medqa.backend.device import quiet_environment
from ms_medqa.config.console import progress
from ms_medqa.config.errors import RunError, UserError
from ms_medqa.data.mindrecord_columns import SCHEMA
from ms_medqa.data.mindrecord_file import MindRecordFile
from ms_medqa.data.records import Row, TokenRecords, from_rows

# What `set_header_size` and `set_page_size` take.
_HEADER_SIZES = (1 << 14, 1 << 27)
_PAGE_SIZES = (1 << 15, 1 << 28)
# Pages that a file is aimed to have: every page is written whole, so few records must not get a large one, and the
# header has to list all of them.
_PAGES = 64
_HEADER_BYTES_A_PAGE = 1024
# Tokens a row, on average, up to which `FileReader` is faster than `MindDataset`: a row of 100 tokens takes it 25 us
# instead of 55, but one of 2,000 takes 150 instead of 100, for it passes bytes through Python one by one.
_SHORT = 600

R = TypeVar("R", bound="Rows")


class Rows(Protocol):
    """Rows that can be walked through more than once and need not be in memory: a `TokenRecords` or `SpooledPart`."""

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,): tokens of each."""

    @property
    def id_bytes(self) -> np.ndarray:
        """int64 (n,): bytes of each id."""

    def __len__(self) -> int: ...

    def batches(self) -> Iterator[TokenRecords]:
        """All of them in order, some at a time."""

    def slice(self: R, start: int, stop: int) -> R:
        """Those from `start` to `stop`."""


def plan_shards(path: Path, rows: R, largest: int) -> list[tuple[Path, R]]:
    """Share rows out among as many MindRecord files as it takes, all of about the same size.

    Args:
        path: the name of the only file; several are called by it with 0, 1, … behind.
        rows: at least one.
        largest: bytes that a file is aimed to have at most.

    Returns:
        The name and the rows of each data file, in the order of the rows.
    """
    row_bytes = _row_bytes(rows)
    ends = np.cumsum(row_bytes)
    total = int(ends[-1])
    count = -(-total // largest)
    # A row goes where its middle lies; one that is larger than a file leaves the next without any.
    shard = (2 * ends - row_bytes) * count // (2 * total)
    bounds = [0, *(np.flatnonzero(np.diff(shard)) + 1).tolist(), len(rows)]
    if len(bounds) == 2:
        return [(path, rows)]
    digits = len(str(len(bounds) - 2))
    # Numbers of one width: sorted by name they are in order.
    return [
        (path.with_name(f"{path.name}{number:0{digits}}"), rows.slice(start, stop))
        for number, (start, stop) in enumerate(itertools.pairwise(bounds))
    ]


def write_records(path: str | Path, rows: Rows | Iterable[Row]) -> int:
    """Write (id, tokens, loss mask) rows as one MindRecord file and its `.db` index, and prove them by reading back.

    Args:
        path: the file to make; it must not exist.
        rows: id, tokens (any integer type; cast to int32), loss mask (0 or 1, of the same length, at least 1).

    Returns:
        The number of rows.

    Raises:
        RunError: no space is left, or what is read back differs from what was written.
        UserError: a record too long for MindRecord's largest page.
    """
    path = Path(path)
    meant: Rows = rows if hasattr(rows, "batches") else from_rows(rows)
    assert len(meant) > 0, "MindRecord cannot hold zero rows"
    assert int(meant.lengths.min()) > 0, "MindRecord cannot hold an empty row"
    file = MindRecordFile(path, *_sizes(meant))
    try:
        with progress(total=len(meant), desc=f"writing {path.name}", unit="record") as bar:
            file.write(meant.batches(), bar.update)
        intact = file.is_intact()
    except (OSError, sqlite3.Error) as error:
        raise _write_error(path, error) from error
    if not intact or len(file) != len(meant):
        raise RunError(
            f"{path}: what was read back differs from what was written ({len(file)} of {len(meant)} rows came back); "
            "the disk may be full or faulty"
        )
    return len(meant)


def read_records(*paths: str | Path) -> TokenRecords:
    """All records of MindRecord files, in the order they were written.

    Raises:
        UserError: a file or its `.db` index is absent, or cannot be read as such a MindRecord.
    """
    return from_rows(row for path in paths for row in read_rows(path))


def read_rows(path: str | Path) -> Iterator[Row]:
    """(id, int32 tokens, uint8 loss mask) of each record of one file, in the order they were written.

    Raises:
        UserError: as `read_records`.
    """
    path = Path(path)
    for file in files_of(path):
        if not file.is_file():
            raise UserError(f"{file}: no such file", "convert the data anew")
    _quiet()
    from mindspore.mindrecord import FileReader, MindRecordException

    try:
        # A list, not a name: with a name MindRecord looks for further shards beside it.
        reader = FileReader([str(path)], num_consumer=1)
        try:
            total = reader.len()
            # A token and its mask take five bytes.
            short = path.stat().st_size < 5 * _SHORT * total
            rows = _rows_by_reader(reader) if short else _rows_by_dataset(path)
            yield from progress(rows, total=total, desc=f"reading {path.name}", unit="record")
        finally:
            reader.close()
    except (RuntimeError, ValueError, MindRecordException) as error:
        raise UserError(f"{path}: not readable as MindRecord ({_cause(error)})", "convert the data anew") from error


def _rows_by_reader(reader: Any) -> Iterator[Row]:
    _keep_header(reader)
    for row in reader.get_next():
        yield row["id"], row["input_ids"], np.frombuffer(row["loss_mask"], np.uint8)


def _rows_by_dataset(path: Path) -> Iterator[Row]:
    import mindspore.dataset as ds

    dataset = ds.MindDataset(
        [str(path)], columns_list=list(SCHEMA), shuffle=False, num_parallel_workers=min(2, os.cpu_count() or 1)
    )
    for name, tokens, mask in dataset.create_tuple_iterator(num_epochs=1, output_numpy=True):
        yield str(name), tokens, np.frombuffer(mask.tobytes(), np.uint8)


def files_of(path: Path) -> tuple[Path, Path]:
    """The data file and its index; they only work together and under these names."""
    return path, path.with_name(path.name + ".db")


def _row_bytes(rows: Rows) -> np.ndarray:
    """int64 (n,): what each row takes in a file, about."""
    return 5 * rows.lengths + 64 + rows.id_bytes


def _sizes(rows: Rows) -> tuple[int, int]:
    """Header and page size in bytes: the defaults alone would make every file 48 MB."""
    row_bytes = _row_bytes(rows)
    largest, total = int(row_bytes.max()), int(row_bytes.sum())
    page = _power_of_two(max(total // _PAGES, 2 * largest), *_PAGE_SIZES)
    if largest > page - 4096:
        worst = int(rows.lengths.argmax())
        [name] = next(rows.slice(worst, worst + 1).batches()).ids
        text = f"record {name!r} has {rows.lengths.max()} tokens, too many for MindRecord"
        raise UserError(text, "cut the text in parts")
    return _power_of_two(_HEADER_BYTES_A_PAGE * (total // page + 1), 1 << 16, _HEADER_SIZES[1]), page


def _power_of_two(wish: int, lowest: int, highest: int) -> int:
    return min(highest, max(lowest, 1 << (wish - 1).bit_length()))


def _keep_header(reader: Any) -> None:
    """Let MindSpore's reader keep what its header says: it asks C++ twice a row, at 6 us each."""
    header = getattr(reader, "_header", None)
    if header is not None:
        reader._header = SimpleNamespace(schema=header.schema, blob_fields=header.blob_fields)


def _write_error(path: Path, error: OSError | sqlite3.Error) -> RunError:
    # SQLITE_FULL; Python 3.10 does not tell the number of an error.
    if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "disk is full" in str(error):
        return RunError(f"no space left writing {path}")
    return RunError(f"cannot write {path}: {error}")


def _cause(error: Exception) -> str:
    """The telling line of MindSpore's page-long error texts."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith("[ERROR]")]
    return (marked or lines or ["no reason given"])[0].removeprefix("[ERROR]").strip()


def _quiet() -> None:
    quiet_environment()
    # MindSpore's Python side logs apart from its C++ side and knows no environment variable after its first use.
    logging.getLogger("mindspore").setLevel(logging.ERROR)
