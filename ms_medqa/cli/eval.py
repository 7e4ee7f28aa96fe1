"""Measure models on questions with known answers, exams, classes or plain text, and write a report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ms_medqa.config import load_config, split_overrides
from ms_medqa.config.console import say
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path


class _Named(argparse.Action):
    """Keeps models and adapters in the order in which they were named: an adapter belongs to the model before it."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        named = getattr(namespace, "named", None) or []
        namespace.named = [*named, (self.dest, values)]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "--model",
        metavar="[NAME=]DIR",
        action=_Named,
        help="model folder or name of a shipped model (default: medqa-tiny); may come several times",
    )
    parser.add_argument(
        "--adapter",
        metavar="[NAME=]DIR",
        action=_Named,
        help="adapter folder, as `train` writes it, of the model before it; may come several times",
    )
    parser.add_argument(
        "--data", metavar="FILE", help="questions with answers: test.jsonl of a converted folder, or what convert reads"
    )
    parser.add_argument(
        "--task",
        metavar="[NAME:]KIND=FILE",
        action="append",
        default=[],
        help="one more task: qa, choice, classify or perplexity, on a file or on all files of a folder",
    )
    parser.add_argument(
        "--general",
        metavar="[NAME:]KIND=FILE",
        action="append",
        default=[],
        help="a task on general data: what did the model forget?",
    )
    parser.add_argument("--limit", metavar="N", help="only the first N records of each task (eval.limit)")
    parser.add_argument("--output", metavar="DIR", help="folder for the report, eval.json and the answers")
    parser.add_argument("--compare-base", action="store_true", help="measure the model without the adapter as well")
    parser.add_argument(
        "--train-data", metavar="DIR", help="converted folder that the model was trained on, to look for its items"
    )
    parser.add_argument("--history", metavar="DIR", help="compare the evaluations in a folder; measures nothing")
    parser.add_argument("--config", metavar="FILE", help="YAML config")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys, such as eval.batch_size=8")
    parser.set_defaults(named=[])


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the table."""
    overrides, others = split_overrides(args.overrides)
    if others:
        raise UserError(f"unexpected argument {others[0]!r}", "config keys are given as key=value")
    if args.history is not None:
        return _history(args.history)
    if args.output is None:
        raise UserError("no folder for the report", "name one: --output DIR")
    if args.limit is not None:
        overrides.append(f"eval.limit={args.limit}")
    config = load_config(args.config, overrides)

    from ms_medqa.launch.scheduler import is_scheduler, schedule

    # After the config, so that a wrong one ends the scheduler as it ends the workers.
    if is_scheduler():
        schedule()
        return 0

    from ms_medqa.backend.device import setup_runtime

    device = setup_runtime(config.runtime, mode="pynative")
    if device.notice:
        print(device.notice, file=sys.stderr)

    from ms_medqa.backend import distributed
    from ms_medqa.evaluation.contestants import contestants
    from ms_medqa.evaluation.report.table import table
    from ms_medqa.evaluation.run import run_evaluation
    from ms_medqa.evaluation.tasks import parse_specs

    specs = parse_specs(args.data, args.task, args.general)
    models = contestants(args.named, config.model.path, args.compare_base)
    world = distributed.start()
    report = run_evaluation(
        specs,
        models,
        args.output,
        config,
        command=args.command_line,
        train_data=args.train_data,
        world=world,
        device=device.name,
    )
    if world.is_main:
        say(table(report))
        output = user_path(args.output)
        say(f"written: {output / 'report.html'}, report.md, report.json, eval.json, skipped.jsonl and all answers")
    return 0


def _history(folder: str) -> int:
    from ms_medqa.evaluation.history import history, history_table

    say(history_table(history(Path(folder))))
    return 0
