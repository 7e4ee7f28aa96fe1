"""Graphs of functions that answer, kept for later processes: compiling them takes longer than a first answer."""

from __future__ import annotations

import functools
import os
import platform
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import mindspore as ms

from ms_medqa.backend import few_rows
from ms_medqa.backend.compile_cache import CompileCache, compiler_variables, versions

FOLDER = "MS_MEDQA_GRAPHS"
_OFF = "off"
# Of graphs; the oldest make room. One takes up to 1 MB.
_MOST_KEPT = 200

Result = TypeVar("Result")
# MindSpore's cache is switched on by the environment, for one graph at a time.
_one_at_a_time = threading.RLock()


def folder() -> Path | None:
    """Where the graphs lie: MS_MEDQA_GRAPHS, else `ms_medqa/graphs` in the user's cache; None where that says `off`."""
    named = os.environ.get(FOLDER)
    if named:
        return None if named == _OFF else Path(named).expanduser().absolute()
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home).absolute() / "ms_medqa" / "graphs"


@lru_cache(maxsize=4)
def _cache(place: Path, rank: int) -> CompileCache:
    key = {
        "device": ms.get_context("device_target"),
        "machine": platform.machine(),
        "few rows": str(few_rows.library()),
        "environment": compiler_variables(),
        **versions(),
    }
    return CompileCache(place, key, rank, quiet=True, most=_MOST_KEPT)


def kept_jit(method: Callable[..., Result]) -> Callable[..., Result]:
    """`ms.jit` for a method of a Cell, whose graphs are kept.

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
        place = folder()
        if place is None:
            result = compiled(self, *arguments)
        else:
            name = f"{type(self).__name__}.{method.__name__}"
            with _one_at_a_time:
                cache = _cache(place, int(os.environ.get("RANK_ID") or 0))
                graph = f"{self.graph_key} {name} {shapes}"
                result = cache.first_call(name, graph, lambda: compiled(self, *arguments))
        seen.add((method.__name__, shapes))
        return result

    return call
