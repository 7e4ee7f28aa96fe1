"""Show what data holds: raw files, a folder of them, a converted folder or a MindRecord file."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ms_medqa.config import Config, UserError, load_config, split_overrides
from ms_medqa.config.assets import resolve_model
from ms_medqa.config.files import user_path

if TYPE_CHECKING:
    from ms_medqa.data.inspection import Inspection


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of `ms-medqa inspect`."""
    parser.add_argument(
        "path",
        nargs="+",
        metavar="PATH",
        help="a file or folder; config overrides may follow, such as data.columns.question=ask",
    )
    parser.add_argument("--examples", type=_count, default=5, metavar="N", help="examples to show (default: 5)")
    parser.add_argument("--seed", type=_count, default=42, metavar="N", help="seed of their choice (default: 42)")
    parser.add_argument("--model", metavar="DIR", help="the model whose tokenizer counts and shows the tokens")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")


def run(args: argparse.Namespace) -> int:
    """Run `ms-medqa inspect`."""
    from ms_medqa.data.inspect_text import render

    overrides, paths = split_overrides(args.path)
    if len(paths) != 1:
        raise UserError("one path is needed" if not paths else f"{len(paths)} paths", "ms-medqa inspect PATH")
    found = _inspect(user_path(paths[0]), load_config(None, overrides), args)
    if args.json:
        text = json.dumps(found.to_dict(), ensure_ascii=False, indent=2)
        print(text.encode("utf-8", "replace").decode("utf-8"))
        return 0
    for line in render(found, colour=_colour()):
        print(line)
    return 0


def _inspect(path: Path, config: Config, args: argparse.Namespace) -> Inspection:
    from ms_medqa.data import manifest
    from ms_medqa.data.inspect_converted import inspect_converted, inspect_mindrecord, is_mindrecord
    from ms_medqa.data.prompt import Prompt
    from ms_medqa.data.tokenizer import Tokenizer

    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    tokenizer = None if args.model is None else Tokenizer.load(resolve_model(args.model))
    if (path / manifest.FILE_NAME).is_file():
        return inspect_converted(path, tokenizer, examples=args.examples, seed=args.seed)
    if path.is_file() and is_mindrecord(path):
        return inspect_mindrecord(path, tokenizer, examples=args.examples, seed=args.seed)
    # Here: the readers are not needed for what is converted.
    from ms_medqa.data.inspect_raw import inspect_raw

    prompt = None if tokenizer is None else Prompt.named(config.data.prompt, tokenizer)
    return inspect_raw(path, config.data, prompt, examples=args.examples, seed=args.seed)


def _colour() -> bool:
    """Colours only on a terminal that knows them, and not where NO_COLOR (no-color.org) forbids them."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _count(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError("at least 0")
    return number
