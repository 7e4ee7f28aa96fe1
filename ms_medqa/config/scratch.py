"""Keeps the files that MindSpore and CANN write on their own out of the user's folder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from ms_medqa.config.errors import RunError


def scratch_folder() -> Path:
    """A private folder of this user under the system's temporary folder, made when absent.

    It is the same one in every run, because on an Ascend it holds compiled kernels that the next run can use.

    Raises:
        RunError: no temporary folder can be written to (a full disk).
    """
    try:
        folder = Path(tempfile.gettempdir()) / f"ms_medqa-{os.getuid()}"
    except FileNotFoundError as error:
        raise RunError(f"{error.strerror}: free some space, or name a folder in TMPDIR") from error
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="ms_medqa-"))
    # The name can be guessed, so somebody else may have made it first.
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        return Path(tempfile.mkdtemp(prefix="ms_medqa-"))
    return folder


def redirect_droppings(environment: MutableMapping[str, str] | None = None) -> None:
    """Send `rank_N/om/analyze_fail.ir`, `kernel_meta`, `fusion_result.json` and the like to the scratch folder.

    Without these variables they land in the working folder. Must be called before MindSpore is imported. A variable
    that the user has set stays.

    Args:
        environment: the variables to change; the process's own by default.
    """
    environment = os.environ if environment is None else environment
    folder = str(scratch_folder())
    # ASCEND_WORK_PATH would move CANN's process logs as well, but administrators look for those in ~/ascend/log.
    if "ASCEND_WORK_PATH" not in environment:
        environment.setdefault("ASCEND_PROCESS_LOG_PATH", str(Path.home() / "ascend" / "log"))
    for name in ("MS_OM_PATH", "MS_COMPILER_CACHE_PATH", "ASCEND_WORK_PATH"):
        environment.setdefault(name, folder)
