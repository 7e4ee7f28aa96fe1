"""MindRecord: what is written comes back, in order, and a small file is small."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ms_medqa.config import RunError, UserError
from ms_medqa.data import mindrecord
from ms_medqa.data.mindrecord_file import MindRecordFile
from ms_medqa.data.records import Row, TokenRecords, from_rows


def rows(count: int, longest: int, dtype: type = np.int64) -> Iterator[Row]:
    random = np.random.default_rng(0)
    for number in range(count):
        length = int(random.integers(1, longest + 1))
        yield f"r-{number}", random.integers(0, 151_665, length).astype(dtype), random.integers(0, 2, length)


def assert_same(path: Path, meant: list[Row]) -> None:
    found = mindrecord.read_records(path)
    assert found.ids == [name for name, _, _ in meant]
    for index, (_, tokens, mask) in enumerate(meant):
        assert found.record(index)[0].tolist() == tokens.tolist()
        assert found.record(index)[1].tolist() == mask.tolist()


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint16])
def test_round_trip_keeps_order_and_values(tmp_path: Path, dtype: type) -> None:
    meant = [(name, tokens % 60_000, mask) for name, tokens, mask in rows(700, 40, dtype)]
    assert mindrecord.write_records(tmp_path / "a.mindrecord", iter(meant)) == 700
    assert_same(tmp_path / "a.mindrecord", meant)


def test_masks_of_zeros_and_odd_ids(tmp_path: Path) -> None:
    ids = ["a'b", 'q"x', "中文 😀", "007", "a\nb", "", " lead", "x" * 3000, "a\\b;%s", "a\0b", "y" * 40_000]
    meant = [(name, np.arange(n + 1), np.zeros(n + 1)) for n, name in enumerate(ids)]
    mindrecord.write_records(tmp_path / "a.mindrecord", meant)
    assert_same(tmp_path / "a.mindrecord", meant)


def test_a_small_set_stays_small(tmp_path: Path) -> None:
    path = tmp_path / "a.mindrecord"
    meant = list(rows(1500, 150))
    mindrecord.write_records(path, meant)
    tokens = sum(tokens.size for _, tokens, _ in meant)
    on_disk = sum(file.stat().st_size for file in mindrecord.files_of(path))
    assert on_disk < 5 * tokens + 400_000 < 2_000_000
    assert [file.stat().st_mode & 0o777 for file in mindrecord.files_of(path)] == [0o644, 0o644]


@pytest.mark.parametrize(("count", "longest"), [(30, 60_000), (1, 700_000), (5_000, 3)])
def test_long_rows_and_many_rows_fit(tmp_path: Path, count: int, longest: int) -> None:
    meant = list(rows(count, longest))
    mindrecord.write_records(tmp_path / "a.mindrecord", meant)
    assert_same(tmp_path / "a.mindrecord", meant)


def test_the_folder_can_be_renamed(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "新 folder"
    old.mkdir()
    meant = list(rows(20, 9))
    mindrecord.write_records(old / "a.mindrecord", meant)
    old.rename(new)
    assert_same(new / "a.mindrecord", meant)


def test_a_reader_sees_only_its_own_file(tmp_path: Path) -> None:
    for name, count in (("a.mindrecord", 3), ("a.mindrecord1", 5)):
        mindrecord.write_records(tmp_path / name, rows(count, 5))
    assert len(mindrecord.read_records(tmp_path / "a.mindrecord")) == 3


def test_rows_that_are_not_what_they_say_are_noticed(tmp_path: Path) -> None:
    class Fewer(TokenRecords):
        def batches(self) -> Iterator[TokenRecords]:
            return iter([self.slice(0, 9)])

    records = from_rows(rows(10, 5))
    fewer = Fewer(records.ids, records.tokens, records.loss_mask, records.offsets)
    with pytest.raises(RunError, match="9 of 10 rows came back"):
        mindrecord.write_records(tmp_path / "a.mindrecord", fewer)


def test_a_changed_byte_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_intact = MindRecordFile.is_intact

    def spoil_and_look(file: MindRecordFile) -> bool:
        content = file.path.read_bytes()
        assert content.count(np.int32(77_777).tobytes()) == 1
        file.path.write_bytes(content.replace(np.int32(77_777).tobytes(), np.int32(77_776).tobytes()))
        return is_intact(file)

    monkeypatch.setattr(MindRecordFile, "is_intact", spoil_and_look)
    meant = [(str(n), np.full(5, n), np.ones(5)) for n in range(600)]
    meant[550][1][-1] = 77_777
    with pytest.raises(RunError, match="what was read back differs"):
        mindrecord.write_records(tmp_path / "a.mindrecord", meant)


@pytest.mark.parametrize(
    "fault", [OSError(28, "No space left on device"), sqlite3.OperationalError("database or disk is full")]
)
def test_a_full_disk_is_said_plainly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def fail(*_: Any) -> None:
        raise fault

    monkeypatch.setattr(MindRecordFile, "write", fail)
    with pytest.raises(RunError, match=r"^no space left writing .*a\.mindrecord$"):
        mindrecord.write_records(tmp_path / "a.mindrecord", rows(10, 5))


def test_writing_does_not_import_mindspore(tmp_path: Path) -> None:
    code = (
        "import sys; from ms_medqa.data.mindrecord import write_records; "
        "write_records(sys.argv[1], [('a', [1], [1])]); assert 'mindspore' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.mindrecord")], check=True, timeout=60)


def test_missing_and_torn_files_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.mindrecord"
    with pytest.raises(UserError, match="no such file"):
        mindrecord.read_records(path)
    mindrecord.write_records(path, rows(10, 5))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(UserError, match="not readable as MindRecord"):
        mindrecord.read_records(path)


def test_token_records_hand_out_what_was_put_in() -> None:
    meant = list(rows(5, 4))
    records = from_rows(meant)
    assert records.lengths.tolist() == [tokens.size for _, tokens, _ in meant]
    assert records.select([3, 0]).ids == ["r-3", "r-0"]
    assert records.select([3]).tokens.tolist() == meant[3][1].tolist()
    assert len(from_rows([])) == 0
