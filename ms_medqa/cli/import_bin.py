"""Turn PyTorch's pickled weights (*.bin, *.pt, *.pth) into safetensors; no code in them is ever run."""

from __future__ import annotations

import argparse

from ms_medqa.config.console import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("folder", metavar="FOLDER", help="model or adapter folder with *.bin, *.pt or *.pth files")
    parser.add_argument("--output", metavar="DIR", required=True, help="folder to make; an earlier import is replaced")
    parser.add_argument("--max-shard-size", metavar="SIZE", default="5GB", help="largest weights file (default: 5GB)")


def run(args: argparse.Namespace) -> int:
    """Write the folder and say what is in it."""
    from ms_medqa.models.import_bin import import_bin, summary

    for line in summary(import_bin(args.folder, args.output, args.max_shard_size)):
        say(line)
    return 0
