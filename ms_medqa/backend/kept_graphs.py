"""Graphs of functions that answer, kept for later processes: compiling them takes longer than a first answer."""

from __future__ import annotations

import functools
import os
import platform
import stat
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import mindspore as ms

from ms_medqa.backend import few_rows, few_rows_library
from ms_medqa.backend.compile_cache import CompileCache, compiler_variables, versions
from ms_medqa.backend.device import blanks_are_silent
from ms_medqa.backend.ops import on_cpu

FOLDER = "MS_MEDQA_GRAPHS"
_OFF = "off"
# Of graphs; those that were not used for longest make room. One takes up to 1 MB.
_MOST_KEPT = 200

Result = TypeVar("Result")


def folder() -> Path | None:
    """Where the graphs lie: MS_MEDQA_GRAPHS, else `ms_medqa/graphs` in the user's cache.

    None where that says `off`, where the user has no home, and where others may write, for a graph can name code.
    """
    named = os.environ.get(FOLDER)
    if named and named.lower() == _OFF:
        return None
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    place = os.path.expanduser(named or os.path.join(home, "ms_medqa", "graphs"))
    if named and not place.startswith("~"):
        place = os.path.abspath(place)
    return Path(place) if os.path.isabs(place) and _is_own(place) else None


def _is_own(place: str) -> bool:
    try:
        status = os.stat(place)
    except OSError:
        # Not there yet.
        return True
    return status.st_uid == os.getuid() and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@lru_cache(maxsize=4)
def _cache(place: Path, rank: int) -> CompileCache:
    key = {
        "device": "CPU",
        "machine": platform.machine(),
        "few rows": None if few_rows.kernel() is None else few_rows_library.identity(),
        "environment": compiler_variables(),
        **versions(),
    }
    return CompileCache(place, key, rank, quiet=True, most=_MOST_KEPT, patient=blanks_are_silent())


def kept_jit(method: Callable[..., Result]) -> Callable[..., Result]:
    """`ms.jit` for a method of a Cell, whose graphs are kept on a CPU.

    The Cell has a text `graph_key` with all that may differ between two processes in what the method computes, but for
    the shapes and types of its arguments, which are Tensors.
    """
    compiled = ms.jit(method)

    @functools.wraps(method)
    def call(self: Any, *arguments: ms.Tensor) -> Result:
        shapes = tuple([(value.shape, value.dtype) for value in arguments])
        seen = self.__dict__.setdefault("_graphs_seen", set())
        if (method.__name__, shapes) in seen:
            return compiled(self, *arguments)
        # On an Ascend, what of the machine decides a graph is not known.
        place = folder() if on_cpu() else None
        if place is None:
            result = compiled(self, *arguments)
        else:
            name = f"{type(self).__name__}.{method.__name__}"
            rank = os.environ.get("RANK_ID", "")
            cache = _cache(place, int(rank) if rank.isdecimal() else 0)
            result = cache.first_call(name, f"{self.graph_key} {name} {shapes}", lambda: compiled(self, *arguments))
        seen.add((method.__name__, shapes))
        return result

    return call
