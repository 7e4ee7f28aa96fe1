"""Measure a model on questions with known answers: perplexity, next-token accuracy, ROUGE-L, key-fact rate."""

from __future__ import annotations

import argparse
import sys

from ms_medqa.config import load_config, split_overrides
from ms_medqa.config.console import say
from ms_medqa.config.errors import UserError
from ms_medqa.config.files import user_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--model", metavar="DIR", help="model folder or name of a shipped model (default: medqa-tiny)")
    parser.add_argument("--adapter", metavar="DIR", help="adapter folder, as `train` writes it")
    parser.add_argument(
        "--data", metavar="FILE", required=True, help="test.jsonl of a converted folder, or any file convert reads"
    )
    parser.add_argument("--output", metavar="DIR", required=True, help="folder for eval.json and answers.jsonl")
    parser.add_argument("--compare-base", action="store_true", help="measure the model without the adapter as well")
    parser.add_argument("--config", metavar="FILE", help="YAML config")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys, such as eval.batch_size=8")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print the table."""
    overrides, others = split_overrides(args.overrides)
    if others:
        raise UserError(f"unexpected argument {others[0]!r}", "config keys are given as key=value")
    config = load_config(args.config, overrides)

    from ms_medqa.backend.device import setup_runtime

    device = setup_runtime(config.runtime, mode="pynative")
    if device.notice:
        print(device.notice, file=sys.stderr)

    from ms_medqa.evaluation.report import table
    from ms_medqa.evaluation.run import run_evaluation

    model = args.model or config.model.path
    columns = run_evaluation(model, args.adapter, args.data, args.output, config, args.compare_base)
    say(table(columns))
    say(f"written: {user_path(args.output) / 'eval.json'}, answers.jsonl, skipped.jsonl")
    return 0
