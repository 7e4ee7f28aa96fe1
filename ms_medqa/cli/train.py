"""Train a model as a config file says: LoRA or all weights, on one device or as one process of several."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from ms_medqa.config import UserError, load_config, split_overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("config", metavar="CONFIG", help="YAML file of the run")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys, such as train.epochs=5")
    parser.add_argument("--resume", action="store_true", help="go on from the newest complete checkpoint of output_dir")
    parser.add_argument("--dry-run", action="store_true", help="check everything, print the plan, train nothing")


def run(args: argparse.Namespace) -> int:
    """Train and say what to do next."""
    overrides, others = split_overrides(args.overrides)
    if others:
        raise UserError(f"unexpected argument {others[0]!r}", "overrides have the form key=value")
    config = load_config(args.config, overrides)
    if args.resume:
        config.train.resume = "auto"

    from ms_medqa.launch.scheduler import is_scheduler, schedule

    # After the config, so that a wrong one ends the scheduler as it ends the workers.
    if is_scheduler():
        schedule()
        return 0

    from ms_medqa.launch.rank_table_start import check_rank_table_start

    check_rank_table_start()

    from ms_medqa.config.console import say
    from ms_medqa.config.native_log import native_log

    with native_log():
        from ms_medqa.training import train

        result = train(config, dry_run=args.dry_run)
    if result.state is None:
        say("dry run: nothing was trained")
        return 0
    state = result.state
    say(f"trained {state.step} steps in {result.seconds:.0f} s, {state.skipped} skipped for overflow")
    if state.stopped is not None:
        say(f"stopped early: {state.stopped}")
    if state.best is not None:
        metric = config.train.best_metric
        say(f"best validation {metric} {state.best:.4f} at step {state.best_step}: these weights are the result")
    if result.folder is not None:
        say(f"result: {result.folder}")
        adapter = result.folder.name == "adapter"
        folder = str(result.folder)
        model = ["--model", config.model.path, "--adapter", folder] if adapter else ["--model", folder]
        if config.train.stage == "sft":
            test = Path(f"{config.data.path}/test.jsonl")
            files = ["--data", str(test), "--output", f"{config.output_dir}/eval"]
            compare = ["--compare-base"] if adapter else []
            # Quoted, so that a line can be copied from the terminal whatever the folders are called.
            commands = [f"ask {shlex.join(model)} QUESTION"]
            if test.exists() and test.stat().st_size:
                commands.insert(0, f"eval {shlex.join([*model, *files, *compare])}")
            if adapter:
                commands.append(f"merge {shlex.join([*model, '--output', f'{config.output_dir}/merged'])}")
            for number, command in enumerate(commands):
                say(f"{'        ' if number else 'next:   '}ms-medqa {command}")
    return 0
