"""`python -m ms_medqa.launch.msrun DEVICE_NUM [CONFIG] [RANK_TABLE_FILE] [key=value…]`: train on several devices."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ms_medqa.config import RunError, UserError, load_config, split_overrides
from ms_medqa.config.assets import LORA_CONFIG
from ms_medqa.config.errors import fail
from ms_medqa.config.scratch import redirect_droppings
from ms_medqa.launch.nodes import Nodes
from ms_medqa.launch.rank_table import check_rank_table
from ms_medqa.launch.workers import check_device_num, run_workers

NAME = "run_distribute_train.sh"
DEFAULT_CONFIG = LORA_CONFIG
WORKER = Path(__file__).resolve().with_name("worker.py")
USAGE = f"usage: bash run/{NAME} DEVICE_NUM [CONFIG] [RANK_TABLE_FILE] [--resume] [key=value…]"
_TARGETS = ("CPU", "GPU", "Ascend")


def main(argv: Sequence[str] | None = None) -> int:
    """Train, and return the exit status: 0, 2 for the user's fault, another for a failed run.

    NODE_NUM, NODE_RANK, MASTER_ADDR and MASTER_PORT of the environment make this host one of several (`nodes.Nodes`).
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    try:
        return _train(arguments)
    except (UserError, RunError, OSError) as error:
        return fail(NAME, error, debug="--debug" in arguments)


def _train(arguments: Sequence[str]) -> int:
    options = [argument for argument in arguments if argument.startswith("--")]
    overrides, places = split_overrides(argument for argument in arguments if argument not in options)
    if not 1 <= len(places) <= 3:
        raise UserError(f"{len(places)} arguments besides key=value", USAGE)
    device_num = check_device_num(places[0])
    nodes = Nodes.from_environment()
    share = nodes.share(device_num)
    config_path = Path(places[1]) if len(places) > 1 else DEFAULT_CONFIG
    overrides += device_override(overrides)
    # Read here as well as in every worker: a wrong key should not take the start of a cluster to show.
    config = load_config(config_path, overrides)
    rank_table = None
    if len(places) > 2:
        rank_table = check_rank_table(places[2], device_num, nodes.num, nodes.time_out)
    nodes.check_master()

    redirect_droppings()
    command = ["train", str(config_path), *options, *overrides]
    if device_num == 1:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, str(WORKER), *command])  # noqa: S606 - a list, no shell
    log_dir = Path(config.output_dir).absolute() / "msrun_log"
    where = "" if nodes.num == 1 else f" of {device_num}, this is host {nodes.rank} of {nodes.num}"
    print(f"starting {share} workers{where}, logs in {log_dir}", flush=True)
    return run_workers(WORKER, command, device_num, log_dir, rank_table, nodes)


def device_override(overrides: Sequence[str]) -> list[str]:
    """What DEVICE_TARGET of the environment says, unless an override says it."""
    target = os.environ.get("DEVICE_TARGET")
    if not target or any(override.startswith("runtime.device=") for override in overrides):
        return []
    if target not in _TARGETS:
        raise UserError(f"DEVICE_TARGET={target}: it must be one of {', '.join(_TARGETS)}")
    return [f"runtime.device={target}"]


if __name__ == "__main__":
    sys.exit(main())
