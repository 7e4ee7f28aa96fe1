"""Write tokenised records to a MindRecord file, and read them back in the same order."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ms_medqa.backend.device import quiet_environment
from ms_medqa.config.console import progress
from ms_medqa.config.errors import RunError, UserError
from ms_medqa.data.records import TokenRecords, from_rows

# Tokens are 32-bit because MindRecord has no unsigned 16-bit integers; the mask is bytes, a quarter of the space.
SCHEMA: dict[str, dict[str, Any]] = {
    "id": {"type": "string"},
    "input_ids": {"type": "int32", "shape": [-1]},
    "loss_mask": {"type": "bytes"},
}
# One row a call is several times slower.
_ROWS_A_CALL = 512
# What `set_header_size` and `set_page_size` take.
_HEADER_SIZES = (1 << 14, 1 << 27)
_PAGE_SIZES = (1 << 15, 1 << 28)
# Pages that a file is aimed to have: every page is written whole, so few records must not get a large one, and the
# header has to list all of them.
_PAGES = 64
_HEADER_BYTES_A_PAGE = 1024


def write_records(path: str | Path, rows: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> int:
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
    meant = from_rows(rows)
    assert len(meant) > 0, "MindRecord cannot hold zero rows"
    assert int(meant.lengths.min()) > 0, "MindRecord cannot hold an empty row"
    header, page = _sizes(meant)
    _quiet()
    from mindspore.mindrecord import FileWriter

    try:
        writer = FileWriter(str(path), shard_num=1, overwrite=False)
        writer.set_header_size(header)
        writer.set_page_size(page)
        writer.add_schema(SCHEMA, "ms_medqa tokenised records")
        batch: list[dict[str, Any]] = []
        for name, tokens, mask in progress(meant.rows(), total=len(meant), desc=f"writing {path.name}", unit="record"):
            batch.append({"id": name, "input_ids": tokens, "loss_mask": mask.tobytes()})
            if len(batch) == _ROWS_A_CALL:
                writer.write_raw_data(batch)
                batch = []
        if batch:
            writer.write_raw_data(batch)
        writer.commit()
    except RuntimeError as error:
        raise _write_error(path, error) from error
    for file in files_of(path):
        # MindRecord makes files that only their owner can read.
        file.chmod(0o644)
        _sync(file)
    _compare(path, meant)
    return len(meant)


def read_records(path: str | Path) -> TokenRecords:
    """All records of a MindRecord file, in the order they were written.

    Raises:
        UserError: the file or its `.db` index is absent, or cannot be read as such a MindRecord.
    """
    path = Path(path)
    for file in files_of(path):
        if not file.is_file():
            raise UserError(f"{file}: no such file", "convert the data anew")
    _quiet()
    import mindspore.dataset as ds

    try:
        # A list, not a name: with a name MindRecord looks for further shards beside it.
        dataset = ds.MindDataset(
            [str(path)], columns_list=list(SCHEMA), shuffle=False, num_parallel_workers=min(2, os.cpu_count() or 1)
        )
        total = dataset.get_dataset_size()
        iterator = dataset.create_tuple_iterator(num_epochs=1, output_numpy=True)
        rows = progress(iterator, total=total, desc=f"reading {path.name}", unit="record")
        return from_rows((str(name), tokens, np.frombuffer(mask.tobytes(), np.uint8)) for name, tokens, mask in rows)
    except (RuntimeError, ValueError) as error:
        raise UserError(f"{path}: not readable as MindRecord ({_cause(error)})", "convert the data anew") from error


def files_of(path: Path) -> tuple[Path, Path]:
    """The data file and its index; they only work together and under these names."""
    return path, path.with_name(path.name + ".db")


def _sizes(records: TokenRecords) -> tuple[int, int]:
    """Header and page size in bytes: the defaults alone would make every file 48 MB."""
    lengths = records.lengths
    row_bytes = 5 * lengths + 64 + np.array([len(name.encode()) for name in records.ids])
    largest, total = int(row_bytes.max()), int(row_bytes.sum())
    page = _power_of_two(max(total // _PAGES, 2 * largest), *_PAGE_SIZES)
    if largest > page - 4096:
        name = records.ids[int(lengths.argmax())]
        raise UserError(f"record {name!r} has {lengths.max()} tokens, too many for MindRecord", "cut the text in parts")
    return _power_of_two(_HEADER_BYTES_A_PAGE * (total // page + 1), 1 << 16, _HEADER_SIZES[1]), page


def _power_of_two(wish: int, lowest: int, highest: int) -> int:
    return min(highest, max(lowest, 1 << (wish - 1).bit_length()))


def _compare(path: Path, meant: TokenRecords) -> None:
    """Read every row: MindRecord drops rows that do not fit its schema with a mere warning, and has no checksum."""
    found = read_records(path)
    same = (
        found.ids == meant.ids
        and np.array_equal(found.offsets, meant.offsets)
        and np.array_equal(found.tokens, meant.tokens)
        and np.array_equal(found.loss_mask, meant.loss_mask)
    )
    if not same:
        raise RunError(
            f"{path}: what was read back differs from what was written ({len(found)} of {len(meant)} rows came back); "
            "the disk may be full or faulty"
        )


def _write_error(path: Path, error: RuntimeError) -> RunError:
    cause = _cause(error)
    if "No free disk" in str(error) or "No space left" in str(error):
        return RunError(f"no space left writing {path}")
    return RunError(f"MindRecord cannot write {path}: {cause}")


def _cause(error: Exception) -> str:
    """The telling line of MindSpore's page-long error texts."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith("[ERROR]")]
    return (marked or lines or ["no reason given"])[0].removeprefix("[ERROR]").strip()


def _quiet() -> None:
    quiet_environment()
    # MindSpore's Python side logs apart from its C++ side and knows no environment variable after its first use.
    logging.getLogger("mindspore").setLevel(logging.ERROR)


def _sync(file: Path) -> None:
    with file.open("rb") as handle:
        os.fsync(handle.fileno())
