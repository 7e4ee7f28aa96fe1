"""Compiled graphs kept on disk, so that the next run of the same training begins sooner.

MindSpore has such a cache, but looks at little before it takes a file of it: whether some source files are the same and
whether a file is there whose name holds the graph's number in the order of compilation. So it never gets to see the
user's folder. It works in a private folder of this process, into which one graph's files are put just before that graph
is compiled: those that are known to be of the same graph under the same number, and whose sha256 is right.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import mindspore as ms
from mindspore import Tensor, nn

from ms_medqa.backend.graphs import return_free_memory, structure
from ms_medqa.config.console import say
from ms_medqa.config.scratch import scratch_folder

try:
    from mindspore.graph import api
except ImportError:  # where MindSpore 2.7 has it
    from mindspore.common import api

_ENABLE, _PATH = "MS_COMPILER_CACHE_ENABLE", "MS_COMPILER_CACHE_PATH"
_MARK = "entry.json"
# `rank_0/graph_cache/compile_cache_0.mindir`; among several processes the name begins with their role, and an Ascend
# adds files of the back end.
_GRAPH_FILE = re.compile(r"(?P<role>.*?)(backend_)?compile_cache_(?P<number>\d+)(?!\d).*")


class CompileCache:
    """The compiled graphs of one process of a run.

    Args:
        folder: of all runs; made when absent, and may be deleted at any time. None: nothing is kept.
        key: everything that decides the graphs of the run.
        rank: of this process.
    """

    def __init__(self, folder: Path | None, key: dict[str, Any], rank: int) -> None:
        self._folder: Path | None = None
        self._compiled: set[str] = set()
        if folder is None:
            return
        if _ENABLE in os.environ:
            say(f"note: {_ENABLE} is set: MindSpore's own cache is used, and runtime.compile_cache is not")
            return
        # Without it there would be no telling in which folder MindSpore looks.
        if not hasattr(api, "entry_script_path"):
            say("note: runtime.compile_cache does not fit this version of MindSpore and is not used")
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
        entry: _Entry | None = None
        try:
            with _work_folder() as work:
                entry = _Entry(self._folder, name, work.next_number, _graph_of(cell, inputs))
                found = entry.restore(work)
                cell.compile(*inputs)
                if found and work.is_untouched():
                    say(f"{name}: compiled by an earlier run, {entry.path}")
                else:
                    if found:
                        say(f"note: MindSpore did not take {entry.path}: compiled anew")
                    entry.keep(work)
        # Anything: what MindSpore raises over a cache is not documented. A fault of the cell itself comes again below.
        except Exception as error:
            self._give_up(entry, error)
            cell.compile(*inputs)

    def _give_up(self, entry: _Entry | None, error: Exception) -> None:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        say(f"note: compile cache {self._folder}: {reason}; compiling without it")
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
        self.path = Path(tempfile.mkdtemp(prefix="graphs-", dir=scratch_folder()))
        atexit.register(shutil.rmtree, self.path, ignore_errors=True)
        self.next_number = 0
        self._script = self.path / "process.py"
        self._script.write_text(f"# {secrets.token_hex(16)}\n", encoding="ascii")
        # As MindSpore makes it of a list of one file.
        inner = hashlib.sha256(self._script.read_bytes()).hexdigest()
        self._digest = hashlib.sha256(inner.encode()).hexdigest()
        self._laid_down: list[Path] = []

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
        self.next_number = max([self.next_number, *(number + 1 for _, number in self.graphs())])
        # What lies here must not be taken for a later graph.
        for folder in self.path.glob("rank_*"):
            shutil.rmtree(folder)
        self._laid_down.clear()

    def put(self, name: str, content: bytes) -> None:
        """Lay down a file of a graph, and what MindSpore wants beside it."""
        path = self.path / name
        match = _GRAPH_FILE.fullmatch(path.name)
        assert match is not None, name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (0, 0))
        self._laid_down.append(path)
        path.with_name(f"{match['role']}compile_dependency.hash").write_text(self._digest, encoding="ascii")

    def is_untouched(self) -> bool:
        """Whether MindSpore has left alone what was laid down: what it does not take, it writes anew."""
        return all(path.stat().st_mtime == 0 for path in self._laid_down)

    def files(self, number: int) -> dict[str, bytes]:
        """The files of a graph, by their path in this folder."""
        return {str(path.relative_to(self.path)): path.read_bytes() for path, n in self.graphs() if n == number}

    def graphs(self) -> list[tuple[Path, int]]:
        matches = [(path, _GRAPH_FILE.fullmatch(path.name)) for path in self.path.glob("rank_*/graph_cache/*")]
        return [(path, int(match["number"])) for path, match in matches if match is not None]


@lru_cache(maxsize=1)
def _work_folder() -> _WorkFolder:
    return _WorkFolder()


class _Entry:
    """One graph in the user's folder, under its number in the order of compilation.

    Args:
        folder: of the run's graphs.
        name: of the graph.
        number: its number.
        graph: digest of the graph.
    """

    def __init__(self, folder: Path, name: str, number: int, graph: str) -> None:
        self.number = number
        self.path = folder / f"{number}-{name.replace(' ', '-')}-{graph[:24]}"

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
            say(f"note: {self.path} is damaged: compiling anew")
            shutil.rmtree(self.path, ignore_errors=True)
            return False
        for name, content in contents.items():
            work.put(name, content)
        return True

    def keep(self, work: _WorkFolder) -> None:
        """Take over what MindSpore has written, whole or not at all."""
        contents = work.files(self.number)
        if not contents:
            say(f"note: MindSpore left no file for {self.path}: the next run compiles as well")
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
                say(f"note: the compiled graph cannot be kept: {error}")


def _graph_of(cell: nn.Cell, inputs: Sequence[Tensor]) -> str:
    shapes = [(value.shape, str(value.dtype)) for value in inputs]
    return hashlib.sha256(f"{structure(cell, across_processes=True)} {shapes}".encode()).hexdigest()
