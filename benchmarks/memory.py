"""Peak memory of training runs on this CPU beside the estimate that each run prints when it starts.

    python benchmarks/memory.py MODEL DATA [--batch 1 2] [--length 128 256] [--targets qkv all-linear all-weights]
        [--accumulation 1]

Every combination is one `ms-medqa train` of one optimizer step, with validation and checkpoint, in a process of its
own. MODEL comes from `benchmarks/make_checkpoint.py --tokenizer …`, DATA from `ms-medqa convert … --model MODEL` with
the smallest of the lengths. The peak is the largest resident set of the whole process.
"""

from __future__ import annotations

import argparse
import itertools
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

_TARGETS = {
    "qkv": {"target_modules": ["q_proj", "k_proj", "v_proj"]},
    "all-linear": {"target_modules": "all-linear"},
    "all-weights": None,
}
_MEASURED = re.compile(r"([\d.]+) GB measured at the peak, ([\d.]+) GB estimated")


def train(place: Path, model: Path, data: Path, batch: int, length: int, targets: str, **settings: int) -> str:
    """What `ms-medqa train` prints; the run is left in `place`/run.

    Args:
        place: an empty folder.
        model: its folder.
        data: a converted folder.
        batch, length: rows in a micro-batch, tokens in a row.
        targets: one of `_TARGETS`.
        settings: more keys of the section `train`.
    """
    config = {
        "model": {"path": str(model)},
        "data": {"path": str(data), "max_length": length},
        "lora": _TARGETS[targets],
        "train": {"batch_size": batch, **settings},
        "runtime": {"device": "CPU"},
        "output_dir": f"{place}/run",
    }
    path = place / "run.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-m", "ms_medqa.cli.main", "train", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"the run failed:\n{result.stderr[-2000:]}")
    return result.stdout


def run(model: Path, data: Path, batch: int, length: int, targets: str, accumulation: int) -> tuple[float, float]:
    """(measured, estimated) GB of one run."""
    with tempfile.TemporaryDirectory() as place:
        settings = {"gradient_accumulation_steps": accumulation, "max_steps": 1}
        printed = train(Path(place), model, data, batch, length, targets, **settings)
    found = _MEASURED.search(printed)
    if found is None:
        raise SystemExit(f"the run told no memory:\n{printed[-2000:]}")
    measured, estimated = map(float, found.groups())
    return measured, estimated


def main() -> None:
    """Print a table as the runs end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--length", type=int, nargs="+", default=[128, 256])
    parser.add_argument("--targets", nargs="+", choices=list(_TARGETS), default=["qkv", "all-linear"])
    parser.add_argument("--accumulation", type=int, nargs="+", default=[1])
    options = parser.parse_args()
    heads = f"{'batch':>5}{'length':>8}{'accumulation':>14}  {'trained':<13}{'estimated':>12}{'measured':>12}"
    print(f"{options.model.name}\n{heads}", flush=True)
    for case in itertools.product(options.batch, options.length, options.targets, options.accumulation):
        batch, length, targets, accumulation = case
        measured, estimated = run(options.model, options.data, *case)
        sizes = f"{estimated:>9.1f} GB{measured:>9.1f} GB{100 * (estimated / measured - 1):>+7.0f} %"
        print(f"{batch:>5}{length:>8}{accumulation:>14}  {targets:<13}{sizes}", flush=True)


if __name__ == "__main__":
    main()
