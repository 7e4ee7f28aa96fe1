"""The private folder of a process in which MindSpore reads and writes its compile cache, see `compile_cache`."""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
from functools import lru_cache
from pathlib import Path

from ms_medqa.config.scratch import scratch_folder

try:
    from mindspore.graph import api
except ImportError:  # where MindSpore 2.7 has it
    from mindspore.common import api

ENABLE, _PATH = "MS_COMPILER_CACHE_ENABLE", "MS_COMPILER_CACHE_PATH"
_NUMBER = re.compile(r"(?<=compile_cache_)\d+")
# A compilation that fails takes a number and leaves no file. As many may have failed, one after the other, for the next
# graphs to be found all the same.
_BLANKS = 8
# Seconds.
_ABANDONED = 24 * 3600
# `rank_0/graph_cache/compile_cache_0.mindir`; among several processes the name begins with their role, and an Ascend
# adds files of the back end.
_GRAPH_FILE = re.compile(r"(?P<role>.*?)(backend_)?compile_cache_(?P<number>\d+)(?!\d).*")


def can_be_told() -> bool:
    """Whether this MindSpore lets itself be told in which folder to look."""
    return hasattr(api, "entry_script_path")


class WorkFolder:
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

    def __enter__(self) -> WorkFolder:
        self._before = os.environ.get(_PATH), api.entry_script_path
        os.environ[_PATH], os.environ[ENABLE] = str(self.path), "1"
        api.entry_script_path = str(self._script)
        return self

    def __exit__(self, *_: object) -> None:
        # Unset, not "0": to MindSpore's compiler a variable that is there is on.
        del os.environ[ENABLE]
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
def work_folder() -> WorkFolder:
    return WorkFolder()


def _is_empty(path: Path) -> bool:
    try:
        return path.stat().st_size == 0
    except OSError:
        return True


def _remove_abandoned() -> None:
    """Delete the work folders of killed processes; after a day, for one that is not seen here may run elsewhere."""
    for path in scratch_folder().glob("graphs-*-*"):
        number = path.name.split("-")[1]
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED and not Path(f"/proc/{number}").exists():
                shutil.rmtree(path, ignore_errors=True)


def _numbered(name: str, number: int) -> str:
    """A graph file's path with another number, of which nothing is in the file."""
    return _NUMBER.sub(str(number), name)
