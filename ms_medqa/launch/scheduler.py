"""msrun's scheduler: it only connects the workers, reads no data and writes no file of the run."""

from __future__ import annotations

import os


def is_scheduler() -> bool:
    """Whether msrun started this process as its scheduler; it gives that the workers' own command line."""
    return os.environ.get("MS_ROLE") == "MS_SCHED"


def schedule() -> None:
    """Connect the workers. Returns, or ends the process, when all of them have finished."""
    from ms_medqa.config.scratch import redirect_droppings

    redirect_droppings()
    import mindspore as ms
    from mindspore.communication import init

    ms.set_device("CPU")
    init()
