"""Write a model, with an adapter merged into it, for other tools: a Hugging Face folder or a MindSpore checkpoint."""

from __future__ import annotations

import argparse

from ms_medqa.config.console import say


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--model", metavar="DIR", required=True, help="model folder or name of a shipped model")
    parser.add_argument("--adapter", metavar="DIR", help="adapter folder, as `train` or PEFT writes it")
    parser.add_argument(
        "--format",
        choices=("hf", "ckpt"),
        default="hf",
        help="hf: safetensors for transformers, vLLM, mindnlp; ckpt: for MindSpore's load_checkpoint (default: hf)",
    )
    add_common_arguments(parser)


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    """Those that `export` and `merge` share."""
    parser.add_argument("--output", metavar="DIR", required=True, help="folder to make; an earlier export is replaced")
    parser.add_argument("--max-shard-size", metavar="SIZE", default="5GB", help="largest weights file (default: 5GB)")
    parser.add_argument(
        "--dtype",
        choices=("auto", "float32", "bfloat16", "float16"),
        default="auto",
        help="type of the weights (default: the model's own)",
    )
    parser.add_argument("--check", action="store_true", help="compare the logits of both; 1 if rounding is not enough")


def run(args: argparse.Namespace) -> int:
    """Write the folder and say what is in it."""
    from ms_medqa.backend.device import setup

    # Without --check nothing is computed on a device: an NPU can go on with what it does.
    setup("auto" if args.check else "CPU", mode="pynative")

    from ms_medqa.peft.export import export
    from ms_medqa.peft.export_summary import summary

    result = export(
        args.model,
        args.adapter,
        args.output,
        format=args.format,
        max_shard_size=args.max_shard_size,
        dtype=args.dtype,
        check=args.check,
    )
    for line in summary(result):
        say(line)
    return 0 if result.comparison is None or result.comparison.ok else 1
