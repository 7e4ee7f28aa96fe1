"""Seconds of the first training step, compiling included: without a cache of graphs, and with what an earlier run left.

    python benchmarks/train_start.py MODEL CONVERTED [--rounds 3] [--rows 1] [--length 128] [--threads 2]

Each round trains two steps twice with `ms-medqa train`, first with an empty `runtime.compile_cache`, then with what
that run has left there. Counted are `compiled the training step in … s` and the time of the first step; loading the
model and reading the data come before them, and validation, which would follow, is not waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from sides import show

_COMPILED = re.compile(r"compiled the training step in ([\d.]+) s")


def first_step(place: Path, cache: Path, args: argparse.Namespace) -> tuple[float, float]:
    """(seconds of compiling and the first step, loss of the last step)."""
    config = {
        "model": {"path": str(args.model)},
        "data": {"path": str(args.data), "max_length": args.length},
        "lora": {"target_modules": ["q_proj", "k_proj", "v_proj"]},
        "train": {"batch_size": args.rows, "gradient_accumulation_steps": 1, "max_steps": 2, "logging_steps": 1},
        "runtime": {"device": "CPU", "compile_cache": str(cache)},
        "output_dir": str(place / "run"),
    }
    path = place / "run.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [sys.executable, "-u", "-m", "ms_medqa.cli.main", "train", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(args.threads)}
    said = ""
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said += line
            if "step:[    2/    2]" in line:
                break
        process.kill()
    found = _COMPILED.search(said)
    lines = (place / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines() if found else []
    if found is None or len(lines) < 2:
        raise SystemExit(f"the run failed:\n{said[-2000:]}")
    steps = [json.loads(line) for line in lines[-2:]]
    return float(found[1]) + steps[0]["seconds"], steps[-1]["loss"]


def main() -> None:
    """Print both, and the size of what is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    cold, kept = [], []
    for _ in range(args.rounds):
        with tempfile.TemporaryDirectory(prefix="ms_medqa-start-") as folder:
            place, cache = Path(folder), Path(folder) / "graphs"
            seconds, loss = first_step(place, cache, args)
            cold.append(seconds)
            seconds, again = first_step(place, cache, args)
            kept.append(seconds)
            assert loss == again, f"the kept graph computes something else: {loss} and {again}"
            size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
    print(f"first step: {show(cold)} s, from the cache {show(kept)} s; {size / 1e6:.0f} MB kept")


if __name__ == "__main__":
    main()
