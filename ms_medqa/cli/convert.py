"""Turn raw records into a data set for training: MindRecord, JSON Lines, a report."""

from __future__ import annotations

import argparse
from pathlib import Path

from ms_medqa.config import UserError, load_config, split_overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ms-medqa convert`."""
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="a file of records, a folder or a pattern such as 'raw/*.csv', or a config override such as "
        "data.max_length=1024",
    )
    parser.add_argument(
        "--output", required=True, metavar="DIR", help="the folder to make; an earlier result is replaced"
    )
    parser.add_argument("--model", metavar="DIR", help="the model whose tokenizer is used (model.path)")
    parser.add_argument("--config", metavar="FILE", help="YAML config")
    parser.add_argument(
        "--benchmark",
        nargs="+",
        metavar="FILE",
        help="evaluation files: training records that overlap them are rejected (data.benchmark)",
    )


def run(args: argparse.Namespace) -> int:
    """Run `ms-medqa convert`."""
    from ms_medqa.data.convert import convert
    from ms_medqa.data.processes import end_quickly

    overrides, inputs = split_overrides(args.inputs)
    # They also stand behind --benchmark, which takes all that follows.
    more, benchmark = split_overrides(args.benchmark or [])
    overrides += more
    if not inputs:
        raise UserError("no input file", "ms-medqa convert INPUT… --output DIR")
    config = load_config(args.config, overrides)
    if args.model is not None:
        config.model.path = args.model
    if benchmark:
        config.data.benchmark = benchmark
    end_quickly()
    convert(inputs, Path(args.output), config)
    return 0
