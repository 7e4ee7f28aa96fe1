"""Compiled graphs kept on disk, so that the next run of the same training, or the next answer, begins sooner.

MindSpore has such a cache, but looks at little before it takes a file of it: whether some source files are the same and
whether a file is there whose name holds the graph's number in the order of compilation. So it never gets to see the
user's folder. It works in a private folder of this process, into which one graph's files are put just before that graph
is compiled, under that number: those that are known to be of the same graph, and whose sha256 is right.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import mindspore as ms
from mindspore import Tensor, nn

import ms_medqa
from ms_medqa.backend.graph_folder import ENABLE, WorkFolder, can_be_told, work_folder
from ms_medqa.backend.graphs import return_free_memory, structure
from ms_medqa.config.console import say

_MARK = "entry.json"
_VARIABLES = ("MS_DEV_", "MS_ENABLE_", "MS_JIT", "ASCEND_HOME_PATH")
# Seconds after which nobody writes an entry any more.
_UNFINISHED = 3600
Result = TypeVar("Result")
_one_at_a_time = threading.RLock()


class CompileCache:
    """The compiled graphs of one process of a run.

    Args:
        folder: of all runs; made when absent, and may be deleted at any time. None: nothing is kept.
        key: everything that decides the graphs of the run.
        rank: of this process.
        quiet: whether nothing is said of what was kept, found or not taken.
        most: graphs that are kept in the folder, those that were used last; None for all.
        patient: whether graphs are still looked for behind one that was not there. MindSpore by itself takes none any
            more in this process. Known to work on a CPU; without effect in workers of msrun.

    While a graph is compiled here no other thread may compile one past this class: it could get this one's number.
    """

    def __init__(
        self,
        folder: Path | None,
        key: dict[str, Any],
        rank: int,
        *,
        quiet: bool = False,
        most: int | None = None,
        patient: bool = False,
    ) -> None:
        self._folder: Path | None = None
        self._compiled: set[str] = set()
        self._say: Callable[[str], None] = _say_nothing if quiet else say
        self._most, self._root, self._patient = most, folder, patient
        if folder is None:
            return
        if ENABLE in os.environ:
            self._say(f"note: {ENABLE} is set: MindSpore's own cache is used, and runtime.compile_cache is not")
            return
        # Without it there would be no telling in which folder MindSpore looks.
        if not can_be_told():
            self._say("note: runtime.compile_cache does not fit this version of MindSpore and is not used")
            return
        digest = hashlib.sha256(json.dumps(key, sort_keys=True, default=str).encode()).hexdigest()
        self._folder = folder / digest[:24] / f"rank_{rank}"

    def compile(self, name: str, cell: nn.Cell, inputs: Sequence[Tensor]) -> bool:
        """Compile a cell for these inputs, or load what an earlier run compiled; only the first call for a name counts.

        A fault of the cache costs a note and a compilation, never the run.

        Returns:
            Whether it was the first call for this name, and there was something to compile.
        """
        if name in self._compiled:
            return False
        self._compiled.add(name)
        self._compile(name, cell, inputs)
        # What the compiler leaves, before the cell takes its own memory: the peak is lower by it.
        return_free_memory()
        return ms.get_context("mode") == ms.GRAPH_MODE

    def _compile(self, name: str, cell: nn.Cell, inputs: Sequence[Tensor]) -> None:
        if self._folder is None:
            if ms.get_context("mode") == ms.GRAPH_MODE:
                cell.compile(*inputs)
            return
        self.first_call(name, _graph_of(cell, inputs), lambda: cell.compile(*inputs))

    def first_call(self, name: str, graph: str, call: Callable[[], Result]) -> Result:
        """What a call returns that compiles a graph, or loads it where an earlier run has kept it.

        A fault of the cache costs another call, and ends its use.

        Args:
            name: of the graph.
            graph: all that decides it beside the key.
            call: may be called twice.
        """
        if self._folder is None:
            return call()
        # MindSpore's cache is on or off for the process as a whole.
        with _one_at_a_time:
            entry, found = None, False
            try:
                with work_folder() as work:
                    digest = hashlib.sha256(graph.encode()).hexdigest()
                    entry = _Entry(self._folder, name, work.next_number, digest, self._say)
                    if self._patient:
                        work.put_blanks()
                    found = entry.restore(work)
                    result = call()
                    self._settle(entry, work, name, found)
                    return result
            # Anything: what MindSpore raises over a cache is not documented.
            except Exception as error:
                # Where the call itself is at fault, this ends here, and what is kept stays.
                result = call()
                self._give_up(entry if found else None, error)
                return result

    def _settle(self, entry: _Entry, work: WorkFolder, name: str, found: bool) -> None:
        """Keep a graph that was compiled, unless others may have been compiled meanwhile."""
        numbers = {number for _, number in work.graphs()}
        if found and work.is_untouched():
            numbers.discard(entry.number)
            if not numbers:
                self._say(f"{name}: compiled by an earlier run, {entry.path}")
                entry.touch()
                return
        if found:
            self._say(f"note: MindSpore did not take {entry.path}: compiled anew")
        if len(numbers) > 1:
            return
        entry.number = max(numbers, default=entry.number)
        entry.keep(work)
        self._make_room()

    def _make_room(self) -> None:
        """Remove the graphs beyond `most` that were not used for longest, whatever their key, and unfinished ones."""
        if self._most is None or self._root is None:
            return
        with contextlib.suppress(OSError):
            kept = [path for path in self._root.glob("*/rank_*/*") if not path.name.startswith(".")]
            kept.sort(key=lambda path: path.stat().st_mtime)
            for path in kept[: max(0, len(kept) - self._most)]:
                shutil.rmtree(path, ignore_errors=True)
            for path in self._root.glob("*/rank_*/.writing-*"):
                if time.time() - path.stat().st_mtime > _UNFINISHED:
                    shutil.rmtree(path, ignore_errors=True)

    def _give_up(self, entry: _Entry | None, error: Exception) -> None:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        self._say(f"note: compile cache {self._folder}: {reason}; compiling without it")
        if entry is not None:
            shutil.rmtree(entry.path, ignore_errors=True)
        self._folder = None


class _Entry:
    """One graph in the user's folder.

    Args:
        folder: of the run's graphs.
        name: of the graph.
        number: its number in this process, in the order of compilation.
        graph: digest of the graph.
        say: takes what a user may want to know.
    """

    def __init__(self, folder: Path, name: str, number: int, graph: str, say: Callable[[str], None]) -> None:
        self.number = number
        self._say = say
        self.path = folder / f"{name.replace(' ', '-')}-{graph[:24]}"

    def restore(self, work: WorkFolder) -> bool:
        """Put the files before MindSpore; False where there are none or a fault was found, which is told."""
        try:
            sums = json.loads((self.path / _MARK).read_text(encoding="utf-8"))
            contents = {name: (self.path / Path(name).name).read_bytes() for name in sums}
        except FileNotFoundError:
            if not self.path.exists():
                return False
            contents = sums = {}
        except (OSError, ValueError, TypeError):
            contents = sums = {}
        whole = sums and all(hashlib.sha256(content).hexdigest() == sums[name] for name, content in contents.items())
        if not whole:
            self._say(f"note: {self.path} is damaged: compiling anew")
            shutil.rmtree(self.path, ignore_errors=True)
            return False
        for name, content in contents.items():
            work.put(name, content, self.number)
        return True

    def touch(self) -> None:
        """Note that the graph was used."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def keep(self, work: WorkFolder) -> None:
        """Take over what MindSpore has written, whole or not at all."""
        contents = work.files(self.number)
        if not contents:
            self._say(f"note: MindSpore left no file for {self.path}: the next run compiles as well")
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            aside = Path(tempfile.mkdtemp(prefix=".writing-", dir=self.path.parent))
            try:
                for name, content in contents.items():
                    (aside / Path(name).name).write_bytes(content)
                sums = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
                (aside / _MARK).write_text(json.dumps(sums, indent=1), encoding="utf-8")
                # What MindSpore did not want to take.
                shutil.rmtree(self.path, ignore_errors=True)
                aside.rename(self.path)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
        except OSError as error:
            # Another run may have written the same one meanwhile.
            if not self.path.exists():
                self._say(f"note: the compiled graph cannot be kept: {error}")


def _graph_of(cell: nn.Cell, inputs: Sequence[Tensor]) -> str:
    shapes = [(value.shape, str(value.dtype)) for value in inputs]
    return f"{structure(cell, across_processes=True)} {shapes}"


def _say_nothing(text: str) -> None:
    pass


def versions() -> dict[str, str]:
    """Of what makes graphs."""
    return {
        "mindspore": ms.__version__,
        "python": platform.python_version(),
        "source": source_digest(Path(ms_medqa.__file__).parent),
    }


def compiler_variables() -> dict[str, str]:
    """What of the environment switches passes of the compiler."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(_VARIABLES)}


@lru_cache
def source_digest(package: Path) -> str:
    """A digest of all Python files of a package."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + path.read_bytes())
    return digest.hexdigest()
