"""Where the compiled kernels for few rows are. Needs no MindSpore."""

from __future__ import annotations

import ctypes
import hashlib
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path

# Of the functions that few_rows.py calls; one more with each change of their arguments (kernels/few_rows.cc).
INTERFACE = 2


@lru_cache(maxsize=1)
def library() -> Path | None:
    """The compiled kernels; None where there is none of this version that this machine can load.

    setuptools compiles it when the package is installed, if it finds a C++ compiler with OpenMP. MindSpore calls such
    functions on Linux alone.
    """
    found = Path(__file__).with_name(f"_few_rows{sysconfig.get_config_var('EXT_SUFFIX')}")
    # MindSpore takes what follows a colon for the function's name.
    if sys.platform != "linux" or ":" in str(found) or not found.exists():
        return None
    try:
        # One that is left from another version lacks the function, or has another number.
        current = ctypes.CDLL(str(found)).FewRowsInterface() == INTERFACE
    except (OSError, AttributeError):
        return None
    return found if current else None


def identity() -> str:
    """What graphs that call the kernels depend on: where these are, and which they are."""
    found = library()
    return f"{found} {hashlib.sha256(found.read_bytes()).hexdigest()}" if found else ""
