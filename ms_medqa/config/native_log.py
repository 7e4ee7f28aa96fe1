"""What MindSpore writes to standard error goes into a file of the run, and not on the terminal.

MindSpore's own variables do not do that: with GLOG_logtostderr=0 version 2.10 writes its files and the terminal. So the
file takes the place of file descriptor 2, and Python's `sys.stderr` (errors, tracebacks, bars) keeps the terminal.
"""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ms_medqa.config.errors import UserError

_STDERR = 2
# Where the lines go while a block is active: a nameless file until the run's folder is there.
_file: IO[bytes] | None = None
_path: Path | None = None


@contextmanager
def native_log() -> Iterator[None]:
    """Keep what is written to file descriptor 2 in the block off the terminal.

    It comes to the terminal after all where `move_to` was never called. A run that fails tells the file's name.
    """
    global _file, _path
    # msrun has given its processes a file each; under pytest and in notebooks, `sys.stderr` is something else.
    if "MS_ROLE" in os.environ or _file is not None or not _is_own_stderr():
        yield
        return
    before, sys_stderr = os.dup(_STDERR), sys.stderr
    sys.stderr.flush()
    terminal = os.fdopen(os.dup(before), "w", encoding=sys_stderr.encoding, errors="backslashreplace", buffering=1)
    _file, _path, failed = tempfile.TemporaryFile(), None, False  # noqa: SIM115 - it outlives this function's lines
    os.dup2(_file.fileno(), _STDERR)
    try:
        # Its logger in Python keeps the stream of this moment, which still writes to the descriptor.
        importlib.import_module("mindspore")
        sys.stderr = terminal
        yield
    except BaseException as error:
        failed = not isinstance(error, (UserError, SystemExit, KeyboardInterrupt))
        raise
    finally:
        sys_stderr.flush()
        os.dup2(before, _STDERR)
        os.close(before)
        sys.stderr = sys_stderr
        with suppress(OSError):
            terminal.close()
        file, path = _file, _path
        _file = _path = None
        with file, suppress(OSError):
            _tell(file, path, failed)
        if path is not None:
            # MindSpore says more when the process ends. Last in, first out: this runs before MindSpore's own hooks.
            atexit.register(_at_exit, path)


def move_to(path: Path) -> None:
    """From now on, and with what there is so far, in this file; nothing outside a `native_log` block."""
    global _file, _path
    if _file is None or _path is not None:
        return
    with suppress(OSError):
        file = path.open("ab+")
        _file.seek(0)
        shutil.copyfileobj(_file, file)
        file.flush()
        os.dup2(file.fileno(), _STDERR)
        _file.close()
        _file, _path = file, path


def _is_own_stderr() -> bool:
    try:
        return sys.stderr.fileno() == _STDERR
    except (AttributeError, OSError, ValueError):
        return False


def _at_exit(path: Path) -> None:
    with suppress(OSError):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), _STDERR)


def _tell(file: IO[bytes], path: Path | None, failed: bool) -> None:
    if path is None:
        file.seek(0)
        shutil.copyfileobj(file, sys.stderr.buffer)
        sys.stderr.flush()
    elif path.stat().st_size == 0:
        path.unlink()
    elif failed:
        print(f"MindSpore's own lines are in {path}", file=sys.stderr)
