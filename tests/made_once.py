"""What all test processes of a session share: made by the first that needs it, in a folder that the session leaves."""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

FOLDER = "MS_MEDQA_TEST_SESSION"


@functools.cache
def session_folder() -> Path:
    """The folder that `conftest.py` names, which the processes of pytest-xdist inherit; of a script, one of its own."""
    if FOLDER in os.environ:
        return Path(os.environ[FOLDER])
    folder = Path(tempfile.mkdtemp(prefix="ms-medqa-tests-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, filled by `make` once for all processes. Do not write into it."""
    folder = session_folder() / name
    with (session_folder() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            # Under its own name, which may be written into the files; a run that failed leaves nothing.
            folder.mkdir()
            try:
                make(folder)
            except BaseException:
                shutil.rmtree(folder)
                raise
    return folder
