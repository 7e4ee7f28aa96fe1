"""`python -m ms_medqa.data.corpus`: write the pre-training text or medqa-mini."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ms_medqa.config.errors import RunError, UserError, fail
from ms_medqa.data.corpus.mini import write_mini
from ms_medqa.data.corpus.pretrain import write_pretrain


def main(argv: Sequence[str] | None = None) -> int:
    """Run one generator; the status is 2 for a user's fault, 1 for a full disk."""
    parser = argparse.ArgumentParser(prog="python -m ms_medqa.data.corpus", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    pretrain = commands.add_parser("pretrain", help="write the pre-training text and its report")
    pretrain.add_argument("--output", type=Path, required=True, metavar="FILE.jsonl")
    pretrain.add_argument("--extra", type=Path, nargs="+", action="extend", default=[], metavar="FILE.json")
    pretrain.add_argument("--seed", type=int, default=42)
    mini = commands.add_parser("mini", help="write medqa-mini: records.jsonl and README.md")
    mini.add_argument("--output", type=Path, required=True, metavar="DIR")
    arguments = parser.parse_args(argv)
    try:
        if arguments.command == "mini":
            for part, count in write_mini(arguments.output).items():
                print(f"{part}: {count}")
        else:
            report = write_pretrain(arguments.output, arguments.extra, arguments.seed)
            for source, counts in {**report["sources"], "total": report["total"]}.items():
                print(f"{source}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    except (UserError, RunError, OSError) as error:
        return fail(parser.prog, error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
