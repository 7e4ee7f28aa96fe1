"""The script that msrun starts in every process: `python worker.py train CONFIG …`."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

# Behind a worker's process id, the name of the file that tells that its command has ended well.
DONE = ".done"


def main() -> None:
    """Be the scheduler, or run the command line as rank RANK_ID."""
    # `python FILE` puts FILE's folder first on the path, where our module names would hide others of the same name.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from ms_medqa.launch.process import die_with_parent
    from ms_medqa.launch.scheduler import is_scheduler, schedule

    if "MS_ROLE" in os.environ:
        die_with_parent()
    if is_scheduler():
        # msrun starts one wherever MASTER_ADDR is an address of the host, such as 127.0.0.1.
        if os.environ.get("MS_MEDQA_NODE_RANK", "0") == "0":
            schedule()
        return
    folder = os.environ.get("MS_MEDQA_PID_FOLDER")
    if folder is not None:
        (Path(folder) / str(os.getpid())).write_text(os.environ.get("RANK_ID", ""), encoding="ascii")
    try:
        runpy.run_module("ms_medqa.cli.main", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        # What comes now is the clean-up of libraries. In MindSpore's, of processes that compute together, now and then
        # one crashes; that is no failure of the run.
        if folder is not None and not end.code:
            (Path(folder) / f"{os.getpid()}{DONE}").touch()
        raise


if __name__ == "__main__":
    main()
