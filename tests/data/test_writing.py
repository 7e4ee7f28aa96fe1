"""Several processes write the same files as one, their errors are its errors, and none is left running."""

from __future__ import annotations

import errno
import gc
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ms_medqa.config import RunError, UserError
from ms_medqa.data.mindrecord import plan_shards, read_records
from ms_medqa.data.processes import fresh_processes
from ms_medqa.data.records import TokenRecords
from ms_medqa.data.spool import Joined, Spool, Spooled
from ms_medqa.data.writing import Writing

COUNT = 3000
LARGEST = 100_000


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[dict[str, Joined]]:
    with Spool(tmp_path / "first") as first, Spool(tmp_path / "second") as second:
        found = fill(first, COUNT, "r"), fill(second, 20, "更")
        odd, even = np.arange(1, COUNT, 2)[::-1], np.arange(0, COUNT, 2)
        train = Joined((found[0].part(odd), found[1].part(np.arange(20))))
        yield {"train": train, "val": Joined((found[0].part(even),)), "test": Joined((found[0].part([]),))}


def fill(spool: Spool, count: int, name: str) -> Spooled:
    for number in range(count):
        length = number % 40 + 1
        spool.add(f"{name}-{number}", "{}\n", np.arange(length, dtype=np.int32), np.ones(length, np.uint8))
    return spool.close()


def ids_of(rows: Joined) -> list[str]:
    return [name for batch in rows.batches() for name in batch.ids]


def write(folder: Path, parts: Mapping[str, Joined], workers: int, largest: int = LARGEST) -> dict[str, list[Path]]:
    folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        pool = stack.enter_context(fresh_processes(workers, gc.collect)) if workers > 1 else None
        return Writing(folder, parts, largest, pool).finish()


def test_the_files_are_the_same_by_one_process_and_by_several(
    parts: dict[str, Joined], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    found = []
    for workers in (1, 2):
        files = write(tmp_path / str(workers), parts, workers)
        assert [len(files[part]) for part in ("train", "val", "test")] == [3, 3, 0]
        for part, paths in files.items():
            assert read_records(*paths).ids == ids_of(parts[part])
        found.append({path.name: path.read_bytes() for path in (tmp_path / str(workers)).iterdir()})
    assert found[0] == found[1]
    assert len(found[0]) == 12
    assert not multiprocessing.active_children()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("largest", [1, 7_000, 70_000, 10**9])
def test_files_are_of_about_the_same_size(parts: dict[str, Joined], largest: int) -> None:
    rows = parts["train"]
    planned = plan_shards(Path("a"), rows, largest)
    names = [path.name for path, _ in planned]
    assert names == (["a"] if len(names) == 1 else sorted(names))
    assert [name for _, piece in planned for name in ids_of(piece)] == ids_of(rows)

    def size(piece: Joined) -> int:
        return int((5 * piece.lengths + 64 + piece.id_bytes).sum())

    sizes = [size(piece) for _, piece in planned]
    longest = 5 * 40 + 64 + 8
    assert len(sizes) == min(-(-size(rows) // largest), len(rows))
    assert max(sizes) - min(sizes) <= 2 * longest


def test_a_row_larger_than_a_file_has_its_own(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool") as spool:
        for length in (1, 5000, 1, 1):
            spool.add("r", "{}\n", np.zeros(length, np.int32), np.ones(length, np.uint8))
        planned = plan_shards(Path("a"), spool.close().part(np.arange(4)), 1000)
    assert sum(len(piece) for _, piece in planned) == 4
    assert min(len(piece) for _, piece in planned) > 0
    assert [path.name for path, _ in planned] == [f"a{number}" for number in range(len(planned))]


@dataclass(frozen=True)
class Faulty(Joined):
    """Rows that cannot be walked through."""

    fault: str

    def slice(self, start: int, stop: int) -> Faulty:
        return Faulty(super().slice(start, stop).parts, self.fault)

    def batches(self) -> Iterator[TokenRecords]:
        if self.fault == "user":
            raise UserError("record 'r' is too long", "cut it")
        if self.fault == "disk":
            raise OSError(errno.ENOSPC, "No space left on device")
        if self.fault == "dead":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().batches()


@pytest.mark.parametrize(
    ("fault", "kind", "text"),
    [
        ("user", UserError, "^record 'r' is too long: cut it$"),
        ("disk", RunError, "^no space left writing .*val.mindrecord$"),
        ("dead", RunError, "^a process that writes records ended by itself"),
        ("there", RunError, "cannot write .*val.mindrecord: .*exists"),
    ],
)
def test_what_goes_wrong_in_a_process_is_the_same_error(
    parts: dict[str, Joined], tmp_path: Path, fault: str, kind: type[Exception], text: str
) -> None:
    val = Faulty(parts["val"].parts, fault) if fault != "there" else parts["val"].slice(0, 100)
    if fault == "there":
        (tmp_path / "val.mindrecord").write_bytes(b"")
    with pytest.raises(kind, match=text):
        write(tmp_path, {"train": parts["train"], "val": val}, 2, 10**9)
    assert not multiprocessing.active_children()


PROGRAM = """
import os, signal, sys, time
from ms_medqa.config.console import progress
from ms_medqa.data.processes import fresh_processes

def start():
    list(progress([1], desc="one", unit="number"))
    # In one piece: two processes may say it at once.
    os.write(1, b"started\\n")

if __name__ == "__main__":
    # As in the foreground of a terminal; what a shell starts in the background inherits that it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with fresh_processes(2, start) as pool:
        pool.submit(time.sleep, 600)
        print("submitted", flush=True)
        time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_first(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "program.py").write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(3)]
    assert sorted(lines) == ["started\n", "started\n", "submitted\n"]
    # As a terminal does it; a killed process is killed alone.
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.kill()
    # The pipes close when the last process is gone.
    _, said = process.communicate(timeout=60)
    assert said.count("Traceback") == (1 if number == signal.SIGINT else 0), said
    if number == signal.SIGINT:
        assert "leaked" not in said
