"""MindRecord files made without MindSpore: the same bytes as its own writer makes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ms_medqa.data.mindrecord_columns import SCHEMA
from ms_medqa.data.mindrecord_file import DESCRIPTION, MindRecordFile
from ms_medqa.data.records import Row, from_rows

# One less and one more than what fits one, two and four bytes with a sign.
EDGES = [0, -1, 1, *(sign * 2**bits + more for bits in (7, 8, 15, 16) for sign in (1, -1) for more in (-1, 0, 1))]
EDGES += [2**31 - 1, -(2**31), 151_643]


def rows_of(count: int, longest: int, longest_id: int = 9) -> list[Row]:
    random = np.random.default_rng(count)
    rows = []
    for number in range(count):
        length = int(random.integers(1, longest + 1))
        kinds = random.choice(EDGES, length) if number % 2 else random.integers(0, 151_665, length)
        name = f"{number}号" + "x" * int(random.integers(0, longest_id))
        rows.append((name, kinds.astype(np.int32), random.integers(0, 2, length).astype(np.uint8)))
    return rows


def by_mindspore(path: Path, rows: list[Row], header_size: int, page_size: int) -> None:
    from mindspore.mindrecord import FileWriter

    writer = FileWriter(str(path), shard_num=1)
    writer.set_header_size(header_size)
    writer.set_page_size(page_size)
    writer.add_schema(SCHEMA, DESCRIPTION)
    writer.write_raw_data([{"id": name, "input_ids": ids, "loss_mask": mask.tobytes()} for name, ids, mask in rows])
    writer.commit()


def index_of(path: Path) -> dict[str, list[Any]]:
    with closing(sqlite3.connect(path.with_name(path.name + ".db"))) as index:
        queries = ("SELECT * FROM INDEXES ORDER BY ROWID", "SELECT * FROM SHARD_NAME", "SELECT sql FROM sqlite_master")
        return {query: index.execute(query).fetchall() for query in queries}


CASES = {
    "one row": (rows_of(1, 1), 1 << 14, 1 << 15),
    "all edges": ([("edges", np.array(EDGES, np.int32), np.ones(len(EDGES), np.uint8))], 1 << 14, 1 << 15),
    "lengths of all remainders": (
        [(str(n), np.arange(n + 1, dtype=np.int32), np.zeros(n + 1, np.uint8)) for n in range(40)],
        1 << 14,
        1 << 15,
    ),
    "many pages": (rows_of(3000, 150), 1 << 16, 1 << 15),
    "ids that fill the pages": (rows_of(300, 20, 3000), 1 << 16, 1 << 15),
    "ids of each length that MessagePack tells apart": (
        [("x" * n, np.ones(1, np.int32), np.ones(1, np.uint8)) for n in (0, 31, 32, 255, 256, 65_535, 65_536)],
        1 << 16,
        1 << 18,
    ),
    "rows as large as a page": (rows_of(20, 6000), 1 << 16, 1 << 15),
}


@pytest.mark.parametrize("case", CASES)
def test_both_writers_make_the_same_bytes(tmp_path: Path, case: str) -> None:
    rows, header_size, page_size = CASES[case]
    theirs, ours = (tmp_path / who / "数 a.mindrecord" for who in ("theirs", "ours"))
    for path in (theirs, ours):
        path.parent.mkdir()
    by_mindspore(theirs, rows, header_size, page_size)
    file = MindRecordFile(ours, header_size, page_size)
    file.write(from_rows(rows).batches())
    assert file.is_intact()
    assert ours.read_bytes() == theirs.read_bytes()
    assert index_of(ours) == index_of(theirs)


@pytest.fixture
def whole(tmp_path: Path) -> MindRecordFile:
    file = MindRecordFile(tmp_path / "a.mindrecord", 1 << 14, 1 << 15)
    file.write(from_rows(rows_of(500, 100)).batches())
    assert file.is_intact()
    return file


@pytest.mark.parametrize("place", [30, (1 << 14) + 5, (1 << 14) + (1 << 15), -1])
def test_a_changed_byte_is_noticed(whole: MindRecordFile, place: int) -> None:
    content = bytearray(whole.path.read_bytes())
    content[place] ^= 1
    whole.path.write_bytes(content)
    assert not whole.is_intact()


def test_a_file_cut_off_is_noticed(whole: MindRecordFile) -> None:
    whole.path.write_bytes(whole.path.read_bytes()[:-1])
    assert not whole.is_intact()


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM INDEXES WHERE ROW_ID = 499",
        "UPDATE INDEXES SET id_0 = 'other' WHERE ROW_ID = 250",
        "UPDATE INDEXES SET PAGE_OFFSET_BLOB = 1 WHERE ROW_ID = 0",
        "INSERT INTO INDEXES VALUES (500, 0, 0, 0, 0, 0, 0, 0, 0, 'more')",
    ],
)
def test_a_changed_index_is_noticed(whole: MindRecordFile, change: str) -> None:
    with closing(sqlite3.connect(whole.index)) as index:
        index.execute(change)
        index.commit()
    assert not whole.is_intact()


def test_nothing_is_overwritten(whole: MindRecordFile) -> None:
    before = whole.path.read_bytes()
    with pytest.raises(FileExistsError):
        MindRecordFile(whole.path, 1 << 14, 1 << 15).write(from_rows(rows_of(3, 3)).batches())
    assert whole.path.read_bytes() == before
