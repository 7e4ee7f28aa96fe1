"""`python -m ms_medqa.launch.msrun_eval DEVICE_NUM [RANK_TABLE_FILE] ARGUMENT…`: `ms-medqa eval` on several devices."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ms_medqa.cli import eval as evaluation
from ms_medqa.cli.main import Parser
from ms_medqa.config import RunError, UserError, load_config, split_overrides
from ms_medqa.config.errors import fail
from ms_medqa.config.files import user_path
from ms_medqa.config.scratch import redirect_droppings
from ms_medqa.launch.msrun import WORKER, device_override
from ms_medqa.launch.nodes import Nodes
from ms_medqa.launch.rank_table import check_rank_table
from ms_medqa.launch.workers import check_device_num, run_workers

NAME = "run_distribute_eval.sh"
USAGE = f"usage: bash run/{NAME} DEVICE_NUM [RANK_TABLE_FILE] --output DIR [what `ms-medqa eval` takes…]"


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate, and return the exit status: 0, 2 for the user's fault, another for a failed run.

    NODE_NUM, NODE_RANK, MASTER_ADDR and MASTER_PORT of the environment make this host one of several (`nodes.Nodes`);
    all write into one output folder, which all must see.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    try:
        return _evaluate(arguments)
    except (UserError, RunError, OSError) as error:
        return fail(NAME, error, debug="--debug" in arguments)


def _evaluate(arguments: Sequence[str]) -> int:
    device_num = check_device_num(arguments[0])
    nodes = Nodes.from_environment()
    share = nodes.share(device_num)
    rest = list(arguments[1:])
    rank_table = None
    if rest and rest[0].endswith(".json"):
        rank_table = check_rank_table(rest.pop(0), device_num, nodes.num, nodes.time_out)
    nodes.check_master()
    parser = Parser(prog=NAME, allow_abbrev=False)
    evaluation.add_arguments(parser)
    parser.add_argument("--debug", action="store_true")
    args = parser.parse(rest)
    if args.output is None:
        raise UserError("no --output", USAGE)
    # Read here as well as in every worker: a wrong key should not take the start of a cluster to show.
    overrides = split_overrides(args.overrides)[0]
    load_config(args.config, overrides)
    output = user_path(args.output)
    redirect_droppings()
    command = ["eval", *rest, *device_override(overrides)]
    if device_num == 1:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, str(WORKER), *command])  # noqa: S606 - a list, no shell
    log_dir = output.absolute() / "msrun_log"
    print(f"starting {share} workers, logs in {log_dir}", flush=True)
    return run_workers(WORKER, command, device_num, log_dir, rank_table, nodes)


if __name__ == "__main__":
    sys.exit(main())
