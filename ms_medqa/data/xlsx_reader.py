"""Records of an Excel workbook (XLSX): every sheet with a header, row after row."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from ms_medqa.config.errors import UserError
from ms_medqa.data.cells import plain
from ms_medqa.data.raw import HALF_WRITTEN, RawRecord
from ms_medqa.data.streams import seekable


def open_xlsx(path: Path, stem: str) -> tuple[str, Iterator[RawRecord]]:
    """The layout (for people) and the records. The line of a record is its row in the sheet.

    The header is the first row that is not empty; a title, alone in its row above one with more cells, is no header.
    Texts that cells share, most of them, are held in memory by the format's reader.

    Args:
        path: the file, gzipped or not.
        stem: of its name; where several sheets have records, ids are this, the sheet's name and the row.

    Raises:
        UserError: it is no whole workbook; or, while reading, a header names a column twice.
    """
    import openpyxl

    size = path.stat().st_size
    try:
        file = _Counted(seekable(path), size)
        with warnings.catch_warnings():
            # Styles and validations that openpyxl does not know are nothing to a reader of texts.
            warnings.simplefilter("ignore", UserWarning)
            book = openpyxl.load_workbook(io.BufferedReader(file), read_only=True, data_only=True, keep_links=False)
    except (zipfile.BadZipFile, EOFError) as fault:
        raise UserError(f"{path}: not a whole XLSX file ({fault})", HALF_WRITTEN) from None
    except OSError:
        raise
    except Exception as fault:
        # openpyxl raises whatever a wrong file leads it to.
        raise UserError(f"{path}: not a workbook that can be read ({_first_line(fault)})", "save it anew") from None
    sheets = book.worksheets
    words = "XLSX" if len(sheets) == 1 else f"XLSX ({len(sheets)} sheets)"
    return words, _read_sheets(path, stem, sheets, file)


def _read_sheets(path: Path, stem: str, sheets: list[Any], file: _Counted) -> Iterator[RawRecord]:
    last = 0
    with file:
        for sheet in sheets:
            key = f"{stem}-{sheet.title}" if len(sheets) > 1 else None
            # Some programs write a wrong size of the sheet, which would hide cells.
            sheet.reset_dimensions()
            records = _read_sheet(f"{path} sheet {sheet.title!r}", key, sheet.iter_rows(values_only=True), file)
            try:
                for record in records:
                    last = record.line
                    yield record
            except (UserError, OSError, GeneratorExit):
                raise
            except Exception as fault:
                detail = f"sheet {sheet.title!r} cannot be read behind row {last}: {_first_line(fault)}"
                yield RawRecord(last + 1, last + 1, "", ("broken_record", detail), file.position, key)


def _read_sheet(where: str, key: str | None, rows: Iterator[tuple[Any, ...]], file: _Counted) -> Iterator[RawRecord]:
    filled = ((line, row) for line, row in enumerate(rows, start=1) if _width(row))
    line, header = next(filled, (0, ()))
    if not line:
        return
    second = next(filled, None)
    if second is not None and _width(header) == 1 and _width(second[1]) > 1:
        (line, header), second = second, None
    names = ["" if cell is None else str(plain(cell)).strip() for cell in header[: _width(header)]]
    for name, count in Counter(name.lower() for name in names if name).items():
        if count > 1:
            message = f"{where} row {line}: the header names {name!r} {count} times"
            raise UserError(message, "rename or remove a column")
    if second is not None:
        yield _record(names, key, *second, file.position)
    for number, row in filled:
        yield _record(names, key, number, row, file.position)


def _record(names: list[str], key: str | None, line: int, row: tuple[Any, ...], position: int) -> RawRecord:
    cells = [plain(cell) for cell in row]
    error = None
    value: Any = cells[: _width(row)]
    if _width(row) > len(names):
        error = ("broken_record", f"{len(value)} cells, but the header has {len(names)}")
    else:
        cells += [None] * (len(names) - len(cells))
        value = dict(zip(names, cells, strict=False))
    return RawRecord(line, line, value, error, position, None if key is None else f"{key}-{line}")


def _width(row: tuple[Any, ...]) -> int:
    """Cells up to the last with something in it."""
    width = len(row)
    while width and (row[width - 1] is None or row[width - 1] == ""):
        width -= 1
    return width


def _first_line(fault: Exception) -> str:
    return (str(fault) or type(fault).__name__).splitlines()[0]


class _Counted(io.RawIOBase):
    """A file that counts what is read of it: the parts of a ZIP archive do not stand in the order of their reading."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._size = size
        self._read = 0

    @property
    def position(self) -> int:
        """About as many bytes of the file on disk as are done."""
        return min(self._read, self._size)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._read += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
