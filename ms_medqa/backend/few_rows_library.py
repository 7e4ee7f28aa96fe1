"""Where the compiled kernel for few rows is. Needs no MindSpore."""

from __future__ import annotations

import ctypes
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=1)
def library() -> Path | None:
    """The compiled kernel; None where there is none that this machine can load.

    setuptools compiles it when the package is installed, if it finds a C++ compiler with OpenMP. MindSpore calls such
    functions on Linux alone.
    """
    found = Path(__file__).with_name(f"_few_rows{sysconfig.get_config_var('EXT_SUFFIX')}")
    # MindSpore takes what follows a colon for the function's name.
    if sys.platform != "linux" or ":" in str(found) or not found.exists():
        return None
    try:
        ctypes.CDLL(str(found))
    except OSError:
        return None
    return found
