"""Tokens a second of two processes of one thread each beside one process of one thread, the same work for each of them.

    python benchmarks/train_ranks.py MODEL CONVERTED [--ranks 2] [--rounds 3] [--steps 8] [--rows 1] [--length 128]

Every run is `run/run_distribute_train.sh` of a whole (short) LoRA training on this machine's CPU, each process with
`--rows` rows of `--length` tokens a step and its own core's worth of threads. The runs alternate; a run's figure is the
median of its steps' `tokens_per_second` without the first one. There is no accumulation: gradients are summed over the
processes after every micro-batch.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from train import show

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def run(model: Path, data: Path, ranks: int, rows: int, length: int, steps: int) -> tuple[float, float]:
    """(tokens a second, seconds a step) of one run."""
    with tempfile.TemporaryDirectory(prefix="ms_medqa-ranks-") as folder:
        config = {
            "model": {"path": str(model)},
            "data": {"path": str(data), "max_length": length},
            "lora": {"target_modules": ["q_proj", "k_proj", "v_proj"], "dropout": 0.0},
            "train": {
                "batch_size": rows,
                "gradient_accumulation_steps": 1,
                "max_steps": steps,
                "logging_steps": 1,
                "eval_steps": 10**6,
            },
            "runtime": {"device": "CPU", "threads": 1},
            "output_dir": f"{folder}/run",
        }
        path = Path(folder) / "run.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        command = [sys.executable, "-m", "ms_medqa.launch.msrun", str(ranks), str(path)]
        environment = {**os.environ, **dict.fromkeys(_THREADS, "1")}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if result.returncode:
            raise SystemExit(f"the run failed:\n{result.stdout[-1500:]}\n{result.stderr[-1500:]}")
        lines = (Path(folder) / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    records = [record for record in map(json.loads, lines) if record["kind"] == "train"][1:]
    return (
        statistics.median(record["tokens_per_second"] for record in records),
        statistics.median(record["seconds"] for record in records),
    )


def main() -> None:
    """Print the runs and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--length", type=int, default=128)
    args = parser.parse_args()
    ratios = []
    for number in range(args.rounds):
        found = {}
        for ranks in (1, args.ranks) if number % 2 == 0 else (args.ranks, 1):
            speed, seconds = run(args.model, args.data, ranks, args.rows, args.length, args.steps)
            found[ranks] = speed
            print(f"{ranks} processes: {speed:.1f} tokens/s, {seconds:.2f} s a step", flush=True)
        ratios.append(found[args.ranks] / found[1])
    print(f"{args.ranks} processes / 1: {show(ratios)}")


if __name__ == "__main__":
    main()
