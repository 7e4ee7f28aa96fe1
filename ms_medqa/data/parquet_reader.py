"""Records of a Parquet file, a batch of rows at a time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ms_medqa.config.errors import UserError
from ms_medqa.data.cells import plain
from ms_medqa.data.raw import BAD_ENCODING, HALF_WRITTEN, RawRecord
from ms_medqa.data.streams import seekable

_MOST_ROWS = 1024
_BATCH_BYTES = 1 << 24


def open_parquet(path: Path) -> tuple[str, Iterator[RawRecord]]:
    """The layout (for people) and the records. The line of a record is its row, from 1.

    Args:
        path: the file, gzipped or not.

    Raises:
        UserError: it is no whole Parquet file, or has two columns of one name.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        file = seekable(path)
        table = parquet.ParquetFile(file)
    except (pyarrow.ArrowException, EOFError) as fault:
        raise UserError(f"{path}: not a whole Parquet file ({str(fault).splitlines()[0]})", HALF_WRITTEN) from None
    for name, count in Counter(table.schema_arrow.names).items():
        if count > 1:
            raise UserError(f"{path}: {count} columns are called {name!r}", "rename or remove one")
    return "Parquet", _read(path, table, file)


def _read(path: Path, table: Any, file: IO[bytes]) -> Iterator[RawRecord]:
    import pyarrow

    size, total = path.stat().st_size, table.metadata.num_rows
    first = 1  # row of the group
    with file:
        for index in range(table.num_row_groups):
            group = table.metadata.row_group(index)
            fitting = int(_BATCH_BYTES * group.num_rows / max(1, group.total_byte_size))
            batches = table.iter_batches(max(1, min(_MOST_ROWS, fitting)), row_groups=[index])
            line = first
            first += group.num_rows
            try:
                for value, error in (row for batch in batches for row in _rows(batch)):
                    yield RawRecord(line, line, value, error, size * line // total)
                    line += 1
            except (pyarrow.ArrowException, OSError) as fault:
                detail = f"{first - line:,} rows from here cannot be read: {str(fault).splitlines()[0]}"
                yield RawRecord(line, line, "", ("broken_record", detail), size * line // total)


def _rows(batch: Any) -> Iterator[tuple[dict[str, Any], tuple[str, str] | None]]:
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:
        for number in range(batch.num_rows):
            yield _row(batch, number)
        return
    for row in rows:
        yield plain(row), None


def _row(batch: Any, number: int) -> tuple[dict[str, Any], tuple[str, str] | None]:
    """A row of a batch in which some text is not UTF-8, whatever its column's type says."""
    import pyarrow

    row: dict[str, Any] = {}
    error = None
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = plain(column[number].as_py())
        except UnicodeDecodeError as fault:
            error = error or (BAD_ENCODING, f"column {name!r}: not UTF-8 text at byte {fault.start} of the cell")
            is_text = pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)
            row[name] = column[number].as_buffer().to_pybytes().decode("utf-8", "replace") if is_text else None
    return row, error
