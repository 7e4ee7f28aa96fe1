"""Compiled graphs kept on disk, so that the next run of the same training, or the next answer, begins sooner.

MindSpore has such a cache, but looks at little before it takes a file of it: whether some source files are the same and
whether a file is there whose name holds the graph's number in the order of compilation. So it never gets to see the
user's folder. It works in a private folder of this process, into which one graph's files are put just before that graph
is compiled, under that number: those that are known to be of the same graph, and whose sha256 is right.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import json
import os
import platform
import re
import secrets
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
from ms_medqa.backend.graphs import return_free_memory, structure
from ms_medqa.config.console import say
from ms_medqa.config.scratch import scratch_folder

try:
    from mindspore.graph import api
except ImportError:  # where MindSpore 2.7 has it
    from mindspore.common import api

_ENABLE, _PATH = "MS_COMPILER_CACHE_ENABLE", "MS_COMPILER_CACHE_PATH"
_MARK = "entry.json"
_NUMBER = re.compile(r"(?<=compile_cache_)\d+")
_VARIABLES = ("MS_DEV_", "MS_ENABLE_", "MS_JIT", "ASCEND_HOME_PATH")
# A compilation that fails takes a number and leaves no file. As many may have failed, one after the other, for the next
# graphs to be found all the same.
_BLANKS = 8
# Seconds after which nobody writes an entry any more.
_UNFINISHED = 3600
_ABANDONED = 24 * 3600
Result = TypeVar("Result")
_one_at_a_time = threading.RLock()
# `rank_0/graph_cache/compile_cache_0.mindir`; among several processes the name begins with their role, and an Ascend
# adds files of the back end.
_GRAPH_FILE = re.compile(r"(?P<role>.*?)(backend_)?compile_cache_(?P<number>\d+)(?!\d).*")


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
        if _ENABLE in os.environ:
            self._say(f"note: {_ENABLE} is set: MindSpore's own cache is used, and runtime.compile_cache is not")
            return
        # Without it there would be no telling in which folder MindSpore looks.
        if not hasattr(api, "entry_script_path"):
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
                with _work_folder() as work:
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

    def _settle(self, entry: _Entry, work: _WorkFolder, name: str, found: bool) -> None:
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


class _WorkFolder:
    """The folder of this process in which MindSpore reads and writes its cache; in a `with` block that cache is on.

    MindSpore takes the folder from the environment once in a process, perhaps before it is set here. That it looks into
    this one and no other is made sure by the source file that it compares: the file's text is known to this process
    alone, so no other folder holds the digest that it asks for.

    Attributes:
        next_number: of the next graph. It is never greater than MindSpore's own; while it is smaller, nothing is found,
            for numbers only grow.
    """

    def __init__(self) -> None:
        _remove_abandoned()
        self.path = Path(tempfile.mkdtemp(prefix=f"graphs-{os.getpid()}-", dir=scratch_folder()))
        atexit.register(shutil.rmtree, self.path, ignore_errors=True)
        self.next_number = 0
        self._script = self.path / "process.py"
        self._script.write_text(f"# {secrets.token_hex(16)}\n", encoding="ascii")
        # As MindSpore makes it of a list of one file.
        inner = hashlib.sha256(self._script.read_bytes()).hexdigest()
        self._digest = hashlib.sha256(inner.encode()).hexdigest()
        self._laid_down: list[Path] = []
        self._blanks: list[Path] = []

    def __enter__(self) -> _WorkFolder:
        self._before = os.environ.get(_PATH), api.entry_script_path
        os.environ[_PATH], os.environ[_ENABLE] = str(self.path), "1"
        api.entry_script_path = str(self._script)
        return self

    def __exit__(self, *_: object) -> None:
        # Unset, not "0": to MindSpore's compiler a variable that is there is on.
        del os.environ[_ENABLE]
        path, api.entry_script_path = self._before
        if path is None:
            del os.environ[_PATH]
        else:
            os.environ[_PATH] = path
        try:
            self.next_number = max([self.next_number, *(number + 1 for _, number in self.graphs())])
        finally:
            # What lies here must not be taken for a later graph.
            for folder in self.path.glob("rank_*"):
                shutil.rmtree(folder, ignore_errors=True)
            self._laid_down.clear()
            self._blanks.clear()

    def put(self, name: str, content: bytes, number: int) -> None:
        """Lay down a file of a graph under a number, and what MindSpore wants beside it."""
        path = self.path / _numbered(name, number)
        match = _GRAPH_FILE.fullmatch(path.name)
        assert match is not None, name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (0, 0))
        self._laid_down.append(path)
        self._lay_digest(path.with_name(f"{match['role']}compile_dependency.hash"))

    def put_blanks(self) -> None:
        """Lay down empty files under the numbers that may come next.

        Where MindSpore finds no file it gives up its cache for the rest of the process; where it cannot read one, it
        compiles that graph and goes on looking for others.
        """
        # A worker's files have other names.
        if "MS_ROLE" in os.environ:
            return
        folder = self.path / "rank_0" / "graph_cache"
        # Without them the cache does less, but nothing wrong.
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            self._lay_digest(folder / "compile_dependency.hash")
            for number in range(self.next_number, self.next_number + _BLANKS):
                path = folder / f"compile_cache_{number}.mindir"
                path.touch()
                self._blanks.append(path)

    def _lay_digest(self, path: Path) -> None:
        path.write_text(self._digest, encoding="ascii")

    def is_untouched(self) -> bool:
        """Whether MindSpore has left alone what was laid down: what it does not take, it writes anew."""
        return all(path.stat().st_mtime == 0 for path in self._laid_down)

    def files(self, number: int) -> dict[str, bytes]:
        """The files of a graph, by their path in this folder, with the number 0."""
        found = [path for path, n in self.graphs() if n == number]
        return {_numbered(str(path.relative_to(self.path)), 0): path.read_bytes() for path in found}

    def graphs(self) -> list[tuple[Path, int]]:
        found = set(self.path.glob("rank_*/graph_cache/*")) - set(filter(_is_empty, self._blanks))
        matches = [(path, _GRAPH_FILE.fullmatch(path.name)) for path in found]
        return [(path, int(match["number"])) for path, match in matches if match is not None]


@lru_cache(maxsize=1)
def _work_folder() -> _WorkFolder:
    return _WorkFolder()


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:
        return True


def _remove_abandoned() -> None:
    """Delete the work folders of processes that were killed. One that is a day old may be of a process elsewhere."""
    for path in scratch_folder().glob("graphs-*-*"):
        number = path.name.split("-")[1]
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED and not Path(f"/proc/{number}").exists():
                shutil.rmtree(path, ignore_errors=True)


def _numbered(name: str, number: int) -> str:
    """A graph file's path with another number, of which nothing is in the file."""
    return _NUMBER.sub(str(number), name)


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

    def restore(self, work: _WorkFolder) -> bool:
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

    def keep(self, work: _WorkFolder) -> None:
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
