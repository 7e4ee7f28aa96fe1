"""Two processes on one core each beside one process on one core: what a step's work takes, the same for each of them.

    python benchmarks/train_ranks.py MODEL CONVERTED [--ranks 2] [--rounds 7] [--steps 5] [--rows 1] [--length 128]

Both runs are `run/run_distribute_train.sh` of a whole LoRA training on this machine's CPU, each process with `--rows`
rows of `--length` tokens a step and a core of its own, without accumulation: gradients are summed over the processes
after every micro-batch. They take turns of a few steps; the one that waits is stopped (SIGSTOP). A turn's figure is all
positions of a step, padding too, for it is the same work, over the median time of its steps.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml
from sides import show

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
_START_SECONDS, _TURN_SECONDS = 300.0, 120.0


class Job:
    """A training of several ranks that can be held.

    Args:
        place: an empty folder of its own.
        args: of the command line.
        ranks: how many processes.
    """

    def __init__(self, place: Path, args: argparse.Namespace, ranks: int) -> None:
        place.mkdir()
        config = {
            "model": {"path": str(args.model)},
            "data": {"path": str(args.data), "max_length": args.length},
            "lora": {"target_modules": ["q_proj", "k_proj", "v_proj"], "dropout": 0.0},
            "train": {
                "batch_size": args.rows,
                "gradient_accumulation_steps": 1,
                "epochs": 100,
                "logging_steps": 1,
                "eval_steps": 10**9,
                "save_steps": 10**9,
            },
            "runtime": {"device": "CPU", "threads": 1},
            "output_dir": str(place / "run"),
        }
        path = place / "run.yaml"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        self.positions = ranks * args.rows * args.length
        self.metrics = place / "run" / "metrics.jsonl"
        self.log = (place / "log").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ms_medqa.launch.msrun", str(ranks), str(path)],
            env={**os.environ, **dict.fromkeys(_THREADS, "1")},
            stdout=self.log,
            stderr=subprocess.STDOUT,
        )

    def seconds(self) -> list[float]:
        """Of all steps so far."""
        if not self.metrics.exists():
            return []
        text = self.metrics.read_text(encoding="utf-8")
        return [json.loads(line)["seconds"] for line in text[: text.rfind("\n") + 1].splitlines()]

    def until(self, steps: int, limit: float) -> list[float]:
        """Wait for so many steps; what each took."""
        end = time.monotonic() + limit
        while len(found := self.seconds()) < steps:
            if self.process.poll() is not None or time.monotonic() > end:
                self.log.seek(0)
                raise SystemExit(f"the run failed:\n{self.log.read()[-3000:]}")
            time.sleep(0.2)
        return found[:steps]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes."""
        launcher = psutil.Process(self.process.pid)
        for process in (launcher, *launcher.children(recursive=True)):
            process.send_signal(number)

    def turn(self, steps: int) -> float:
        """Positions a second of `steps` steps."""
        self.signal(signal.SIGCONT)
        # The one that was held, and the first after it, which finds its data elsewhere than in the cache.
        begun = len(self.seconds()) + 2
        found = self.until(begun + steps, _TURN_SECONDS)
        self.signal(signal.SIGSTOP)
        return self.positions / statistics.median(found[begun:])

    def end(self) -> None:
        """End all of its processes."""
        if self.process.poll() is None:
            self.signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()


def main() -> None:
    """Print both speeds, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--length", type=int, default=128)
    args = parser.parse_args()
    jobs: dict[int, Job] = {}
    speeds: dict[int, list[float]] = {1: [], args.ranks: []}
    with tempfile.TemporaryDirectory(prefix="ms_medqa-ranks-") as folder:
        try:
            for ranks in speeds:
                jobs[ranks] = Job(Path(folder) / str(ranks), args, ranks)
                # Compiled by then.
                jobs[ranks].until(1, _START_SECONDS)
                jobs[ranks].signal(signal.SIGSTOP)
            for _ in range(args.rounds):
                # Always in this order: a run that is held for more than one turn, some 40 s on a slow machine, was seen
                # to end in MindSpore's sum over the processes (SIGSEGV in all of them).
                for ranks in speeds:
                    speeds[ranks].append(jobs[ranks].turn(args.steps))
        finally:
            for job in jobs.values():
                job.end()
    for ranks, found in speeds.items():
        print(f"{ranks} processes: {statistics.median(found):.1f} positions/s ({min(found):.1f} to {max(found):.1f})")
    print(f"{args.ranks} / 1: {show([many / one for one, many in zip(*speeds.values(), strict=True)])}")


if __name__ == "__main__":
    main()
