"""Merge an adapter into its base model: short for `export --format hf`."""

from __future__ import annotations

import argparse

from ms_medqa.cli import export


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--model", metavar="DIR", required=True, help="model folder or name of a shipped model")
    parser.add_argument("--adapter", metavar="DIR", required=True, help="adapter folder, as `train` or PEFT writes it")
    export.add_common_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Write the folder and say what is in it."""
    args.format = "hf"
    return export.run(args)
