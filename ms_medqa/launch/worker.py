"""The script that msrun starts in every process: `python worker.py train CONFIG …`."""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path


def main() -> None:
    """Be the scheduler, or run the command line as rank RANK_ID."""
    # `python FILE` puts FILE's folder first on the path, where our module names would hide others of the same name.
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    from ms_medqa.launch.process import die_with_parent

    if "MS_ROLE" in os.environ:
        die_with_parent()
    if os.environ.get("MS_ROLE") == "MS_SCHED":
        _schedule()
        return
    folder = os.environ.get("MS_MEDQA_PID_FOLDER")
    if folder is not None:
        (Path(folder) / str(os.getpid())).write_text(os.environ.get("RANK_ID", ""), encoding="ascii")
    runpy.run_module("ms_medqa.cli.main", run_name="__main__", alter_sys=True)


def _schedule() -> None:
    """The scheduler only connects the workers: it reads no config and writes no file of the run."""
    from ms_medqa.config.scratch import redirect_droppings

    redirect_droppings()
    import mindspore as ms
    from mindspore.communication import init

    ms.set_device("CPU")
    # Returns, or ends the process, when all workers have finished.
    init()


if __name__ == "__main__":
    main()
