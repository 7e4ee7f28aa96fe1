"""Where graphs are kept, and how many."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, nn

from ms_medqa.backend import compile_cache, graph_folder, kept_graphs

pytestmark = pytest.mark.usefixtures("pynative_mode")


class Doubled(nn.Cell):
    """One kept graph for each shape."""

    def __init__(self, graph_key: str = "doubled") -> None:
        super().__init__(auto_prefix=False)
        self.graph_key = graph_key

    @kept_graphs.kept_jit
    def double(self, x: Tensor) -> Tensor:
        """2 x."""
        return x + x


class Plain(nn.Cell):
    """Compiled, and kept by whoever calls it."""

    @ms.jit
    def double(self, x: Tensor) -> Tensor:
        """2 x."""
        return x + x


@pytest.fixture
def graphs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for this test's graphs."""
    monkeypatch.setenv(kept_graphs.FOLDER, str(tmp_path))
    return tmp_path


class Tripled(Doubled):
    """Another function of the same shapes."""

    @kept_graphs.kept_jit
    def double(self, x: Tensor) -> Tensor:
        """3 x."""
        return x + x + x


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*/rank_0/*")}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, "HOME/.cache/ms_medqa/graphs"),
        ({"XDG_CACHE_HOME": "/elsewhere"}, "/elsewhere/ms_medqa/graphs"),
        ({"XDG_CACHE_HOME": "/elsewhere", kept_graphs.FOLDER: "/graphs"}, "/graphs"),
        ({kept_graphs.FOLDER: "~/graphs"}, "HOME/graphs"),
        ({kept_graphs.FOLDER: "off"}, None),
    ],
)
def test_the_folder(
    variables: dict[str, str], expected: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (kept_graphs.FOLDER, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = kept_graphs.folder()
    assert found == (None if expected is None else Path(expected.replace("HOME", str(tmp_path))))


def test_one_graph_for_each_shape(graphs: Path) -> None:
    cell = Doubled()
    for length in (3, 4, 3):
        x = np.arange(length, dtype=np.float32)
        np.testing.assert_array_equal(cell.double(Tensor(x)).asnumpy(), 2 * x)
    assert len(names(graphs)) == 2


def test_cells_that_differ_share_nothing(graphs: Path) -> None:
    x = Tensor(np.ones(5, np.float32))
    Doubled("one").double(x)
    Doubled("another").double(x)
    assert len(names(graphs)) == 2


def test_the_oldest_make_room(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_graphs, "_MOST_KEPT", 3)
    cell, seen = Doubled(), []
    for length in range(10, 16):
        cell.double(Tensor(np.ones(length, np.float32)))
        seen.append(names(graphs))
    assert [len(some) for some in seen] == [1, 2, 3, 3, 3, 3]
    assert seen[0] <= seen[2]
    assert not seen[2] & seen[5]


def cut_short(entry: Path) -> None:
    path = next(entry.glob("*.mindir"))
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:100])


def of_another_function(entry: Path) -> None:
    """A graph that MindSpore would take."""
    Tripled(entry.name).double(Tensor(np.ones(9, np.float32)))
    [other] = entry.parent.glob("Tripled*")
    path = next(entry.glob("*.mindir"))
    path.chmod(0o600)
    path.write_bytes(next(other.glob("*.mindir")).read_bytes())
    shutil.rmtree(other)


def without_mark(entry: Path) -> None:
    (entry / "entry.json").unlink()


@pytest.mark.parametrize("damage", [cut_short, of_another_function, without_mark])
def test_a_damaged_graph_is_compiled_anew_and_kept(graphs: Path, damage: Callable[[Path], None]) -> None:
    x = np.ones(9, np.float32)
    written = []
    for harm in (damage, lambda entry: None, lambda entry: None):
        # Each cell asks for its graph once.
        np.testing.assert_array_equal(Doubled(damage.__name__).double(Tensor(x)).asnumpy(), 2 * x)
        [entry] = graphs.glob("*/rank_0/*")
        written.append(next(entry.glob("*.mindir")).stat().st_mtime_ns)
        assert (
            hashlib.sha256(next(entry.glob("*.mindir")).read_bytes()).hexdigest() in (entry / "entry.json").read_text()
        )
        harm(entry)
    assert written[0] < written[1] == written[2]


def test_damage_is_told_where_it_is_wished(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def compiled() -> np.ndarray:
        cell = Plain()
        cache = compile_cache.CompileCache(tmp_path, {}, 0, patient=True)
        return cache.first_call("plain", "its graph", lambda: cell.double(Tensor(np.ones(11, np.float32)))).asnumpy()

    compiled()
    [entry] = tmp_path.glob("*/rank_0/*")
    cut_short(entry)
    capsys.readouterr()
    np.testing.assert_array_equal(compiled(), np.full(11, 2))
    assert f"note: {entry} is damaged: compiling anew" in capsys.readouterr().out


def test_graphs_are_found_behind_a_compilation_that_failed(graphs: Path) -> None:
    class Broken(Doubled):
        @kept_graphs.kept_jit
        def double(self, x: Tensor) -> Tensor:
            """Of no shape."""
            return x + self.missing

    x = Tensor(np.ones(12, np.float32))
    Doubled().double(x)
    with pytest.raises(AttributeError):
        Broken().double(x)
    # This one finds another number than it expects.
    Doubled("another").double(x)
    written = {path: path.stat().st_mtime_ns for path in graphs.rglob("*.mindir")}
    assert len(written) == 2
    np.testing.assert_array_equal(Doubled().double(x).asnumpy(), np.full(12, 2))
    assert {path: path.stat().st_mtime_ns for path in graphs.rglob("*.mindir")} == written


def test_work_folders_of_killed_processes_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_folder, "scratch_folder", lambda: tmp_path)
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True)
    old, new, alive = f"graphs-{int(gone.stdout)}-a", f"graphs-{int(gone.stdout)}-b", f"graphs-{os.getpid()}-c"
    for name in (old, new, alive):
        (tmp_path / name).mkdir()
    for name in (old, alive):
        os.utime(tmp_path / name, (0, 0))
    work = graph_folder.WorkFolder()
    assert {path.name for path in tmp_path.iterdir()} == {new, alive, work.path.name}


def test_a_scratch_folder_that_cannot_be_made_costs_no_answer(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(compile_cache, "work_folder", full)
    x = np.ones(7, np.float32)
    np.testing.assert_array_equal(Doubled().double(Tensor(x)).asnumpy(), 2 * x)
    assert names(graphs) == set()


def test_a_call_that_fails_fails_as_without(graphs: Path) -> None:
    class Broken(Doubled):
        @kept_graphs.kept_jit
        def double(self, x: Tensor) -> Tensor:
            """Of no shape."""
            return x + self.missing

    with pytest.raises(AttributeError, match="missing"):
        Broken().double(Tensor(np.ones(3, np.float32)))
    assert names(graphs) == set()
