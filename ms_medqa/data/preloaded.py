"""A tokenizer that is loaded once for all worker processes.

They are forked from Python's fork server, which imports this module and loads the tokenizer that the environment names:
so they begin at once and share its 180 MB. By itself, a process takes nearly two seconds for a vocabulary of 150,000
tokens. To fork the first process is no way out, for it may have threads by then (MindSpore's are many).
"""

from __future__ import annotations

import os
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path

from ms_medqa.data.processes import give_back_memory, hold_back_signals
from ms_medqa.data.tokenizer import TOKENIZER_FILES, Tokenizer

_FOLDER = "MS_MEDQA_PRELOADED"
# What workers need beside this module.
_MODULES = ("ms_medqa.data.judging", "ms_medqa.data.variant_maker", "ms_medqa.data.writing")

# A folder with the state of its files → what was loaded from it.
_loaded: dict[tuple[object, ...], Tokenizer] = {}


def start_server(folder: Path) -> None:
    """Let the fork server begin to load a tokenizer, unless it runs already: it ends with this process.

    Args:
        folder: of the tokenizer.
    """
    # The server has one thread, as it is safe to fork: NumPy shall not begin others.
    environment = {_FOLDER: str(folder), "OPENBLAS_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in environment}
    forkserver.set_forkserver_preload([__name__, *_MODULES])
    os.environ |= environment
    try:
        with hold_back_signals():
            forkserver.ensure_running()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a folder, ready for tens of thousands of texts where the server has loaded it.

    Raises:
        UserError: as `Tokenizer.load`.
    """
    return _loaded.get(_state(folder)) or Tokenizer.load(folder)


def _state(folder: Path) -> tuple[object, ...]:
    files = [folder / name for name in TOKENIZER_FILES]
    found = [(path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in files if path.is_file()]
    return (str(folder), *found)


def _preload(folder: Path) -> None:
    tokenizer = Tokenizer.load(folder)
    tokenizer.expect_many()
    _loaded[_state(folder)] = tokenizer
    give_back_memory()


if _FOLDER in os.environ:
    # Whatever is wrong here, the first process finds it too, and says so.
    with suppress(Exception):
        _preload(Path(os.environ[_FOLDER]))
